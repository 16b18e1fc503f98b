"""Which dims of which tensors are the same feature maps: found by following them through a network.

Numbering the maps of a layer in another way leaves a network's function as it is, provided that
everything that depends on the numbering follows: the layer's own weights and bias, the
normalisation behind it, a depthwise convolution, and the inputs of every layer that reads the maps,
behind pooling, and behind a flattening that turns a map into a block of H W features. An `Axis` is
one such numbering, with all tensor dims that follow it.

The network is traced by torch.fx, without being run. Where maps meet an operation that is not
known to keep them, or the border of the network, their axis is left alone, and why is told.

Legend: C channels, H rows, W columns.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from sixfold.models.graph.operations import Operation, operation_of
from sixfold.models.graph.table import CAT, FLATTEN, MEAN, VIEW
from sixfold.models.graph.trace import Call, Tracer, calls_of


@dataclass(frozen=True)
class Member:
    """A tensor's dim that follows an axis."""

    tensor: str  # name of the parameter or buffer
    dim: int  # 0 for a layer's outputs, 1 for its inputs
    start: int = 0  # where in the dim the axis begins
    block: int = 1  # consecutive elements that belong to one map: H W behind a flattening, else 1


@dataclass(eq=False)
class Axis:
    """One numbering of feature maps."""

    layer: str  # the layer whose outputs they are; the first, where a sum ties several together
    size: int  # how many maps
    members: list[Member] = field(default_factory=list)  # everything that follows the numbering
    fixed: str = ""  # why it must not change; empty if it may


@dataclass(frozen=True)
class Channels:
    """All axes of a network, in the order of its layers."""

    free: tuple[Axis, ...]  # axes whose numbering may change
    left_alone: dict[str, str]  # layer to the reason why its maps keep their numbers


def find_channels(model: nn.Module) -> Channels:
    """Follow the feature maps through a network; one that cannot be traced is left alone."""
    try:
        graph = Tracer().trace(model)
    except Exception as error:
        reason = f"the network cannot be traced ({type(error).__name__}: {error})".split("\n")[0]
        layers = [name for name, m in model.named_modules() if isinstance(m, _ConvNd | nn.Linear)]
        return Channels((), dict.fromkeys(layers, reason))
    walk = _Walk(model)
    calls = {call.node: call for call in calls_of(model, graph, {})}
    for node in graph.nodes:
        walk.visit(node, calls.get(node))
    roots = [axis for axis in walk.axes if walk.root(axis) is axis]
    return Channels(
        free=tuple(axis for axis in roots if not axis.fixed),
        left_alone={
            axis.layer: walk.root(axis).fixed for axis in walk.axes if walk.root(axis).fixed
        },
    )


@dataclass(frozen=True)
class _Maps:
    """What a value's channels are: axes side by side. No `_Maps` at all: channels of no axis."""

    axes: tuple[Axis, ...]  # from the first channel to the last
    flat: bool = False  # whether the value is (N, features) and no longer (N, C, H, W)

    @property
    def size(self) -> int:
        return sum(axis.size for axis in self.axes)


_SIZES = ("size", "dim", getattr, operator.getitem)  # calls that give no maps


def _keeps(call: Call, row: Operation | None) -> bool:
    """Whether a call of one tensor gives the same channels."""
    if row is MEAN:
        return _is_mean_of_maps(call) and bool(call.argument(2, "keepdim", False))
    return row is not None and row.leaves_channels_apart


def _flattens(call: Call, row: Operation | None) -> bool:
    """Whether a call gives (N, features) whose blocks are the channels."""
    if row is MEAN:
        return _is_mean_of_maps(call) and not call.argument(2, "keepdim", False)
    if row is FLATTEN:
        return bool(call.argument(1, "start_dim", 0) == 1) and len(call.arguments) <= 2
    return row is VIEW and len(call.arguments) == 3


def _is_mean_of_maps(call: Call) -> bool:
    dims = call.argument(1, "dim")
    return isinstance(dims, tuple | list) and sorted(dims) in ([2, 3], [-2, -1])


class _Walk:
    """Follows maps from node to node of a traced network."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.axes: list[Axis] = []
        self._merged: dict[int, Axis] = {}
        self._values: dict[fx.Node, _Maps | None] = {}
        self._names = {id(t): name for name, t in model.named_parameters()}
        self._names |= {id(t): name for name, t in model.named_buffers()}

    def root(self, axis: Axis) -> Axis:
        """The axis that this one has become part of."""
        while id(axis) in self._merged:
            axis = self._merged[id(axis)]
        return axis

    def visit(self, node: fx.Node, call: Call | None) -> None:
        """Find what the channels of a node's value are."""
        inputs = [self._values.get(source) for source in node.all_input_nodes]
        found: _Maps | None = None
        if node.op == "output":
            self._fix(inputs, "its outputs are the network's own")
        elif call is not None and isinstance(call.called, nn.Module):
            found = self._through_module(call.name, call.called, inputs)
        elif call is not None and node.op != "get_attr":
            found = self._through_function(call, inputs)
        self._values[node] = found

    def _through_module(
        self, name: str, module: nn.Module, inputs: Sequence[_Maps | None]
    ) -> _Maps | None:
        maps = inputs[0] if len(inputs) == 1 else None
        if self._is_made(module):
            reason = "its weight is made of other tensors (weight norm, a parametrization)"
            if isinstance(module, _ConvNd | nn.Linear):
                self.axes.append(Axis(name, len(module.weight), fixed=reason))
            return self._fix(inputs, f"{name} reads them, and {reason}")
        if len(inputs) == 1:
            if isinstance(module, _ConvNd) and not module.transposed:
                return self._convolution(name, module, maps)
            if isinstance(module, nn.Linear):
                return self._linear(name, module, maps)
            if isinstance(module, _BatchNorm | _InstanceNorm):
                return self._norm(module, maps)
            if isinstance(module, nn.PReLU):
                if module.num_parameters > 1:
                    self._attach(module.weight, 0, maps)
                return maps
            if isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1:
                return None if maps is None else _Maps(maps.axes, flat=True)
            row = operation_of(module)
            if row is not None and row.leaves_channels_apart:
                return maps
        return self._fix(inputs, f"{name} ({type(module).__name__}) is not known to keep maps")

    def _is_made(self, module: nn.Module) -> bool:
        """Whether a tensor of a module is none of the network's own, but computed from them."""
        tensors = (getattr(module, name, None) for name in ("weight", "bias"))
        return any(isinstance(t, Tensor) and id(t) not in self._names for t in tensors)

    def _convolution(self, name: str, layer: _ConvNd, maps: _Maps | None) -> _Maps | None:
        depthwise = layer.groups == layer.in_channels == layer.out_channels
        if layer.groups > 1 and not depthwise:
            self._fix([maps], f"{name} divides its input into {layer.groups} groups")
            axis = self._new(name, layer, layer.out_channels)
            axis.fixed = f"its {layer.groups} groups of maps must stay apart"
            return _Maps((axis,))
        if depthwise and layer.groups > 1:
            if maps is not None:
                self._attach(layer.weight, 0, maps)
                self._attach(layer.bias, 0, maps)
            return maps
        self._attach(layer.weight, 1, maps)
        return _Maps((self._new(name, layer, layer.out_channels),))

    def _linear(self, name: str, layer: nn.Linear, maps: _Maps | None) -> _Maps | None:
        if maps is not None and not maps.flat:
            self._fix([maps], f"{name} does not work along the maps")
            return None
        self._attach(layer.weight, 1, maps)
        return _Maps((self._new(name, layer, layer.out_features),), flat=True)

    def _norm(self, layer: nn.Module, maps: _Maps | None) -> _Maps | None:
        for tensor in (
            layer.weight, layer.bias, layer.running_mean, layer.running_var,
        ):  # fmt: skip
            self._attach(tensor, 0, maps)  # type: ignore[arg-type]
        return maps

    def _through_function(self, call: Call, inputs: list[_Maps | None]) -> _Maps | None:
        tensors = [maps for maps in inputs if maps is not None]
        if not tensors or call.called in _SIZES:
            return None
        row = operation_of(call.called)
        if row is not None and row.binary:
            return self._elementwise(call.node, inputs)
        if row is CAT and call.argument(1, "dim", 0) == 1:
            if len(inputs) == len(tensors) and not any(maps.flat for maps in tensors):
                return _Maps(tuple(axis for maps in tensors for axis in maps.axes))
        elif len(inputs) == 1 and _keeps(call, row):
            return tensors[0]
        elif len(inputs) <= 2 and _flattens(call, row):
            return _Maps(tensors[0].axes, flat=True)
        return self._fix(inputs, f"{call.node.name} ({call.node.op}) is not known to keep maps")

    def _elementwise(self, node: fx.Node, inputs: list[_Maps | None]) -> _Maps | None:
        """A sum or product of values with the same channels: their axes become one."""
        first = inputs[0]
        if len(inputs) == 1:
            return first
        whole = [maps for maps in inputs if maps is not None]
        sizes = {tuple(axis.size for axis in maps.axes) for maps in whole}
        if first is None or len(whole) < len(inputs) or len(sizes) > 1:
            return self._fix(inputs, f"a sum or product ({node.name}) adds maps of another kind")
        for other in whole[1:]:
            for left, right in zip(first.axes, other.axes, strict=True):
                self._unite(left, right)
        return first

    def _new(self, name: str, layer: nn.Module, size: int) -> Axis:
        """The axis of a layer's outputs."""
        axis = Axis(name, size)
        self.axes.append(axis)
        maps = _Maps((axis,))
        self._attach(layer.weight, 0, maps)  # type: ignore[arg-type]
        self._attach(layer.bias, 0, maps)  # type: ignore[arg-type]
        return axis

    def _attach(self, tensor: Tensor | None, dim: int, maps: _Maps | None) -> None:
        """Have a tensor's dim follow the channels of a value."""
        if tensor is None or maps is None:
            return
        block, rest = divmod(tensor.shape[dim], maps.size)
        if rest or not block or (block > 1 and not maps.flat):
            self._fix([maps], "its maps cannot be told apart further on")
            return
        start = 0
        for axis in maps.axes:
            axis = self.root(axis)
            member = Member(self._names[id(tensor)], dim, start, block)
            self._check_shared(axis, member)
            axis = self.root(axis)
            if member not in axis.members:
                axis.members.append(member)
            start += axis.size * block

    def _check_shared(self, axis: Axis, member: Member) -> None:
        """A layer that is used twice reads, or makes, one numbering, or its maps must stay."""
        stop = member.start + axis.size * member.block
        for other in self.axes:
            root, own = self.root(other), self.root(axis)
            if root is own:
                continue
            for found in list(root.members):
                if (found.tensor, found.dim) != (member.tensor, member.dim):
                    continue
                if found == member and root.size == own.size:
                    self._unite(root, own)
                elif found.start < stop and member.start < found.start + root.size * found.block:
                    self._fix([_Maps((own, root))], "a layer is used with different maps")

    def _unite(self, left: Axis, right: Axis) -> None:
        left, right = self.root(left), self.root(right)
        if left is right:
            return
        if self.axes.index(right) < self.axes.index(left):
            left, right = right, left
        left.members += [member for member in right.members if member not in left.members]
        left.fixed = left.fixed or right.fixed
        self._merged[id(right)] = left

    def _fix(self, values: Sequence[_Maps | None], reason: str) -> _Maps | None:
        """Leave the axes of some values alone; what comes of them has no axis."""
        for maps in values:
            for axis in maps.axes if maps is not None else ():
                root = self.root(axis)
                root.fixed = root.fixed or reason
        return None
