"""A network as one rank of a model-parallel group computes it.

`divide` goes through a traced network layer by layer; every layer says what one rank computes of
it and how its output is divided, given how its input is
(`sixfold.training.strategies.model_parallel.catalog`). All ranks do the same with their own numbers
and so agree on all exchanges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from sixfold.core.errors import UnsupportedError
from sixfold.distributed.process_group import Communicator
from sixfold.models.graph.trace import REMEDY, Call, Trace, trace
from sixfold.training.layers.calls import CONCATENATION, LAYERS, Entry
from sixfold.training.layers.tracing import Graph, Stage, StagedNetwork, stages_of
from sixfold.training.strategies.model_parallel.catalog import Rule, explain, look_up
from sixfold.training.strategies.model_parallel.division import OUTPUTS, Ways
from sixfold.training.strategies.model_parallel.exchange_ops import Gather
from sixfold.training.strategies.model_parallel.grid import Grid, Mesh
from sixfold.training.strategies.model_parallel.join import Concatenation
from sixfold.training.strategies.model_parallel.layout import Box, everywhere, is_empty, slices
from sixfold.training.strategies.model_parallel.local import LocalLayer
from sixfold.training.strategies.model_parallel.norm import BatchSum, LocalNorm
from sixfold.training.strategies.model_parallel.part import Part
from sixfold.training.strategies.model_parallel.pointwise import LocalDropout, MaskSource
from sixfold.training.strategies.model_parallel.value import Context, Divided, Shape, Value


class DividedNetwork(StagedNetwork):
    """The part of a network that one rank holds and computes.

    Its parameters and buffers have the names that they have in the network, and the shapes of
    the rank's parts. It stands on the meta device until `load`.

    Args:
        group: the ranks that divide it.
        mesh: their axes.
        stages: its operations, exchanges among them, and the number of the output's value.
        owners: name of a layer -> the rank's parts of its parameters and buffers.
        box: what the rank needs of an image, (C, H, W).

    Attributes:
        box: see above.
        parts: name of a parameter or buffer -> which part of it the rank holds.
    """

    def __init__(
        self,
        group: Communicator,
        mesh: Mesh,
        stages: tuple[list[Stage], int],
        owners: Mapping[str, LocalLayer],
        box: Box,
    ) -> None:
        super().__init__()
        self.group, self.mesh, self.box = group, mesh, box
        self.parts: dict[str, Part] = {}
        self._owners = list(owners.values())
        for name, owner in owners.items():
            self._adopt(name, owner)
        self.graph = Graph(
            module=self, stages=stages[0], output=stages[1], followed=[], unused=[], left={}
        )

    def _adopt(self, name: str, owner: LocalLayer) -> None:
        """Register a layer's parameters under its name in the network."""
        *path, last = name.split(".")
        parent: nn.Module = self
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, owner)
        prefix = f"{name}." if name else ""
        self.parts |= {f"{prefix}{own}": part for own, part in owner.parts.items()}

    @property
    def operations(self) -> Iterator[nn.Module]:
        """All of them, in order."""
        return (layer for stage in self.graph.stages for layer in stage.layers)

    def cut(self, images: Tensor) -> Tensor:
        """What this rank needs of whole images (n, C, H, W)."""
        whole: Box = tuple((0, length) for length in images.shape[1:])
        return images[(slice(None), *slices(self.box, whole))]

    def forward(self, images: Tensor) -> Tensor:
        """From (n, *box) to outputs (n, K), the same on every rank of the group; no gradients."""
        return self.graph.run(images)

    def train(self, mode: bool = True) -> DividedNetwork:
        """Training or evaluation, for all operations, also those without parameters."""
        super().train(mode)
        for layer in self.operations:
            layer.train(mode)
        return self

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Give parameters and buffers their values.

        Args:
            values: name -> this rank's part; exactly the names in `parts`.
        """
        self.load_state_dict(dict(values), assign=True)
        for owner in self._owners:
            owner.settle()

    def connect(self, draw: MaskSource, batch_sum: BatchSum | None = None) -> None:
        """Say where dropout masks come from and who adds the statistics of a whole batch."""
        for layer in self.operations:
            if isinstance(layer, LocalDropout):
                layer.draw = draw
            elif isinstance(layer, LocalNorm):
                layer.batch_sum = batch_sum


def divide(
    network: nn.Module, shape: Shape, group: Communicator, mesh: Mesh, layers: Ways = ()
) -> DividedNetwork:
    """Divide a network.

    Args:
        network: on the meta device; it is read, and not kept.
        shape: (C, H, W) of an image.
        group: the ranks among which it is divided.
        mesh: their axes.
        layers: what single layers do instead.

    Raises:
        UnsupportedError: with every layer that cannot be divided, and what to do.
    """
    traced = trace(network, shape)
    return Dividing(traced, shape, group, mesh, layers).run()


class Dividing:
    """The division of one network, layer by layer."""

    def __init__(
        self, traced: Trace, shape: Shape, group: Communicator, mesh: Mesh, layers: Ways = ()
    ) -> None:
        self.traced, self.mesh, self.group, self.ways = traced, mesh, group, dict(layers)
        self.context = Context(group=group, mesh=mesh)
        source = traced.source.name
        self.values = {source: Value(everywhere(mesh, shape), raw=True)}
        self.shapes: dict[str, tuple[int, ...] | None] = {source: (1, *shape)}
        self.shapes |= {call.node.name: call.shape for call in traced.calls}
        self.names = {source: source}  # of the value that a call's result is
        self.entries: list[Entry] = []
        self.owned: dict[str, LocalLayer] = {}
        self.problems: list[str] = []

    def run(self) -> DividedNetwork:
        """Divide all layers; raises `UnsupportedError` with every one that cannot be."""
        for number, call in enumerate(self.traced.calls):
            if call.shape is None:
                continue
            try:
                self._divide(number)
            except UnsupportedError as error:
                self.problems += explain(call, error)
                self._suppose(call.node, call.shape)
        self._check_parameters()
        self._check_ways()
        if self.problems:
            raise UnsupportedError(_in_short(list(dict.fromkeys(self.problems))))
        output = self._end()
        box = self._cut_input()
        return DividedNetwork(
            self.group, self.mesh, stages_of(self._needed(), output), self.owned, box
        )

    def _divide(self, number: int) -> None:
        call = self.traced.calls[number]
        entry = look_up(call, self.shapes)
        inputs = [self.values[self._name(node)] for node in entry.inputs]
        assert call.shape is not None
        if entry.division is None:
            name = self._name(entry.inputs[0])
            if len(call.shape) == 2 and not self.values[name].flat:
                flat = dataclasses.replace(self.values[name], flat=True)
                self.values[call.node.name] = flat
                self.entries.append(Entry(call.node.name, LAYERS, [], [name], call.name))
            else:
                self.names[call.node.name] = name
            return
        made = self.operations(call, entry, inputs, self.ways.get(call.name))
        self._own(call.name, made.owner)
        self._append(call.name, made, [self._name(n) for n in entry.inputs], call.node.name)
        self.values[call.node.name] = Value(made.layout, flat=len(call.shape) == 2)
        if entry.in_place:  # whoever takes its input from now on sees what it has become
            self.names[entry.inputs[0].name] = call.node.name

    def operations(
        self, call: Call, entry: Rule, inputs: Sequence[Value], way: Mesh | str | None
    ) -> Divided:
        """Divide one layer: in a given way, or by the grid if it convolves, or as its input is."""
        context = self.context
        assert call.shape is not None
        assert entry.division is not None
        by_input = next((value.layout.mesh for value in inputs if not value.raw), self.mesh)
        context.mesh = by_input
        if isinstance(entry.layer, nn.Conv2d):
            context.mesh = way if isinstance(way, Mesh) else self.mesh
        context.divides_outputs = way == OUTPUTS
        context.name, context.is_last = call.name, self._is_last(call.node)
        out = self._shape_of(call.shape, inputs[0], entry.layer)
        return entry.division(context, entry.layer, inputs, out)

    def _check_ways(self) -> None:
        """Every way must belong to a layer that can go it."""
        kinds = {
            call.name: type(call.called)
            for call in self.traced.calls
            if isinstance(call.called, (nn.Conv2d, nn.Linear))
        }
        for name, way in self.ways.items():
            if name not in kinds:
                known = ", ".join(kinds) or "none"
                self.problems.append(
                    f"--grid: {name!r} is no convolution or linear layer of the network; these "
                    f"are: {known}"
                )
            elif isinstance(way, str) is not issubclass(kinds[name], nn.Linear):
                what = "inputs or outputs" if issubclass(kinds[name], nn.Linear) else "axes"
                self.problems.append(
                    f"--grid: {name!r} is a {kinds[name].__name__}, which takes {what}, not "
                    f"{way if isinstance(way, str) else Grid(mesh=way)}"
                )

    def _shape_of(self, shape: tuple[int, ...], first: Value, layer: nn.Module) -> Shape:
        """(C, H, W) of a result; one of flattened maps keeps their rows and columns."""
        if len(shape) == 4:
            return shape[1], shape[2], shape[3]
        makes_features = isinstance(layer, (nn.Linear, Concatenation))
        if first.flat and not makes_features and torch.Size(first.shape).numel() == shape[1]:
            return first.shape
        return shape[1], 1, 1

    def _name(self, node: fx.Node) -> str:
        name = self.names.get(node.name, node.name)
        while self.names.get(name, name) != name:
            name = self.names[name]
        return name

    def _append(self, name: str, made: Divided, inputs: list[str], result: str) -> None:
        """Note the operations of a layer: exchanges of its inputs, what joins them, the rest."""
        given = []
        for number, (gather, value) in enumerate(zip(made.gathers, inputs, strict=True)):
            given.append(f"{result}:{number}")
            self.entries.append(Entry(given[-1], LAYERS, [gather], [value], name))
        dim = int(made.kind == CONCATENATION)
        self.entries.append(Entry(result, made.kind, made.layers, given, name, dim=dim))

    def _own(self, name: str, owner: LocalLayer | None) -> None:
        """Keep a layer's parameters; one that is called twice must be divided alike."""
        if owner is None:
            return
        if name in self.owned:
            raise UnsupportedError("it is called more than once: give each call its own layer")
        self.owned[name] = owner

    def _is_last(self, node: fx.Node) -> bool:
        """Whether a result is the network's output, up to its shape."""
        if node is self.traced.output:
            return True
        users = list(node.users)
        if len(users) != 1:
            return False
        calls = [call for call in self.traced.calls if call.node is users[0]]
        if not calls or calls[0].shape is None:
            return False
        try:
            entry = look_up(calls[0], self.shapes)
        except UnsupportedError:
            return False
        return entry.division is None and self._is_last(users[0])

    def _suppose(self, node: fx.Node, shape: tuple[int, ...]) -> None:
        """Go on behind a layer that cannot be divided, to find all of them."""
        whole = (*shape[1:], 1, 1)[:3] if len(shape) in (2, 3, 4) else (1, 1, 1)
        self.values[node.name] = Value(everywhere(self.mesh, whole), flat=len(shape) == 2)

    def _check_parameters(self) -> None:
        """Every parameter must belong to a layer that is called, and to one only."""
        seen: dict[int, str] = {}
        for name, parameter in self.traced.network.named_parameters(remove_duplicate=False):
            if id(parameter) in seen:
                self.problems.append(
                    f"parameter '{name}' is shared with '{seen[id(parameter)]}': give each layer "
                    f"its own, or {REMEDY}"
                )
            seen[id(parameter)] = name
        # A parameter that a forward takes by itself has been refused at its call.
        known = {
            call.name
            for call in self.traced.calls
            if isinstance(call.called, nn.Module) or call.called == "get_attr"
        }
        for name, _ in self.traced.network.named_parameters():
            path = name.split(".")
            if known.isdisjoint(".".join(path[:end]) for end in range(len(path) + 1)):
                self.problems.append(
                    f"parameter '{name}' belongs to no layer that is called: remove it, or {REMEDY}"
                )

    def _end(self) -> str:
        """Bring the output to every rank; the name of the value."""
        name = self._name(self.traced.output)
        value = self.values[name]
        layout = everywhere(value.layout.mesh, value.shape)
        if value.layout != layout:
            made = Divided(layout, [self.context.gather_as(value, layout)], [])
            self._append("output", made, [name], "output")
            name = "output"
        self.entries.append(Entry("logits", LAYERS, [nn.Flatten()], [name], "output"))
        return "logits"

    def _cut_input(self) -> Box:
        """The smallest box of an image that holds all this rank ever needs of it."""
        gathers = self.context.raw_gathers
        boxes = [gather.move.need for gather in gathers if not is_empty(gather.move.need)]
        box: Box = tuple(
            (min(box[dim][0] for box in boxes), max(box[dim][1] for box in boxes))
            if boxes
            else (0, 0)
            for dim in range(3)
        )
        for gather in gathers:
            gather.hold(box)
        return box

    def _needed(self) -> list[Entry]:
        """The operations, without exchanges that bring nothing."""
        same: dict[str, str] = {}
        found: list[Entry] = []
        for entry in self.entries:
            entry.inputs = [same.get(name, name) for name in entry.inputs]
            layers = [layer for layer in entry.layers if not _does_nothing(layer)]
            if entry.kind == LAYERS and not layers:
                same[entry.node] = entry.inputs[0]
            else:
                found.append(dataclasses.replace(entry, layers=layers))
        return found


def _does_nothing(layer: nn.Module) -> bool:
    return type(layer) is nn.Identity or (isinstance(layer, Gather) and layer.is_trivial)


_MOST_PROBLEMS = 5
"""More of them say that the network is of another kind, and help nobody one by one."""


def _in_short(problems: list[str]) -> list[str]:
    """Problems as they are; many of them as one line that names the first."""
    if len(problems) <= _MOST_PROBLEMS:
        return problems
    named = [text.partition(" cannot be divided")[0].partition(": ")[0] for text in problems]
    first = ", ".join(name.removesuffix(",") for name in named[:3])
    return [
        f"the network cannot be divided: {len(problems)} of its parts are none that model_parallel "
        f"knows, beginning with {first} (docs/strategies.md lists what it knows): {REMEDY}"
    ]
