"""A network as one rank of a tile computes it.

`divide` goes through a traced network layer by layer; every layer says what one rank computes of
it and how its output is divided, given how its input is
(`sixfold.training.strategies.model_parallel.catalog`). All ranks do the same with their own numbers
and so agree on all exchanges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from sixfold.core.errors import UnsupportedError
from sixfold.distributed.process_group import Communicator
from sixfold.models.graph.trace import REMEDY, Trace, trace
from sixfold.training.strategies.model_parallel.catalog import explain, look_up
from sixfold.training.strategies.model_parallel.exchange import Fetch
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.join import Concatenation
from sixfold.training.strategies.model_parallel.layout import Box, everywhere, is_empty, slices
from sixfold.training.strategies.model_parallel.local import LocalLayer
from sixfold.training.strategies.model_parallel.norm import LocalNorm
from sixfold.training.strategies.model_parallel.part import Part
from sixfold.training.strategies.model_parallel.pointwise import LocalDropout, MaskSource
from sixfold.training.strategies.model_parallel.value import Context, Shape, Value


@dataclass(frozen=True)
class Turn:
    """One layer's turn in a forward pass.

    Attributes:
        layer: what computes it.
        inputs: names of the values it takes.
        result: name of the value it gives.
        last_uses: values that nobody needs afterwards.
    """

    layer: nn.Module
    inputs: tuple[str, ...]
    result: str
    last_uses: tuple[str, ...] = ()


class DividedNetwork(nn.Module):
    """The part of a network that one rank holds and computes.

    Its parameters and buffers have the names that they have in the network, and the shapes of
    the rank's parts. It stands on the meta device until `load`.

    Args:
        tile: the ranks that divide it.
        mesh: their axes.
        steps: layers in order.
        source: name of the network's input.
        output: name of the value that is the network's output.
        box: what the rank needs of an image, (C, H, W).

    Attributes:
        box: see above.
        parts: name of a parameter or buffer -> which part of it the rank holds.
    """

    def __init__(
        self,
        tile: Communicator,
        mesh: Mesh,
        steps: list[Turn],
        source: str,
        output: str,
        box: Box,
    ) -> None:
        super().__init__()
        self.tile, self.mesh, self.box = tile, mesh, box
        self._steps, self._source, self._output = steps, source, output
        self.parts: dict[str, Part] = {}

    def adopt(self, name: str, layer: LocalLayer) -> None:
        """Register a layer with parameters under its name in the network."""
        *path, last = name.split(".")
        parent: nn.Module = self
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, layer)
        prefix = f"{name}." if name else ""
        self.parts |= {f"{prefix}{own}": part for own, part in layer.parts.items()}

    def cut(self, images: Tensor) -> Tensor:
        """What this rank needs of whole images (n, C, H, W)."""
        whole: Box = tuple((0, length) for length in images.shape[1:])
        return images[(slice(None), *slices(self.box, whole))]

    def forward(self, images: Tensor) -> Tensor:
        """From (n, *box) to logits (n, K), the same on every rank of the tile."""
        values = {self._source: images}
        for step in self._steps:
            values[step.result] = step.layer(*(values[name] for name in step.inputs))
            for name in step.last_uses:
                del values[name]
        return values[self._output].flatten(1)

    def train(self, mode: bool = True) -> DividedNetwork:
        """Training or evaluation, for all layers, also those without parameters."""
        super().train(mode)
        for step in self._steps:
            step.layer.train(mode)
        return self

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Give parameters and buffers their values.

        Args:
            values: name -> this rank's part; exactly the names in `parts`.
        """
        self.load_state_dict(dict(values), assign=True)

    def connect(
        self, draw: MaskSource, batch_sum: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Say where dropout masks come from and who adds the statistics of a whole batch."""
        for step in self._steps:
            if isinstance(step.layer, LocalDropout):
                step.layer.draw = draw
            elif isinstance(step.layer, LocalNorm):
                step.layer.batch_sum = batch_sum


def divide(network: nn.Module, shape: Shape, tile: Communicator, mesh: Mesh) -> DividedNetwork:
    """Divide a network.

    Args:
        network: on the meta device; it is read, and not kept.
        shape: (C, H, W) of an image.
        tile: the ranks among which it is divided.
        mesh: their axes.

    Raises:
        UnsupportedError: with every layer that cannot be divided, and what to do.
    """
    traced = trace(network, shape)
    return _Division(traced, shape, tile, mesh).run()


class _Division:
    """The division of one network."""

    def __init__(self, traced: Trace, shape: Shape, tile: Communicator, mesh: Mesh) -> None:
        self.traced, self.mesh, self.tile = traced, mesh, tile
        self.context = Context(tile=tile, mesh=mesh)
        source = traced.source.name
        self.values = {source: Value(everywhere(mesh, shape), raw=True)}
        self.shapes: dict[str, tuple[int, ...] | None] = {source: (1, *shape)}
        self.shapes |= {call.node.name: call.shape for call in traced.calls}
        self.names = {source: source}  # of the value that a call's result is
        self.steps: list[Turn] = []
        self.owned: dict[str, LocalLayer] = {}
        self.problems: list[str] = []

    def run(self) -> DividedNetwork:
        for number, call in enumerate(self.traced.calls):
            if call.shape is None:
                continue
            try:
                self._divide(number)
            except UnsupportedError as error:
                self.problems += explain(call, error)
                self._suppose(call.node, call.shape)
        self._check_parameters()
        if self.problems:
            raise UnsupportedError(_in_short(list(dict.fromkeys(self.problems))))
        output = self._end()
        box = self._cut_input()
        source = self.traced.source.name
        divided = DividedNetwork(
            self.tile, self.mesh, self._with_last_uses(output), source, output, box
        )
        for name, layer in self.owned.items():
            divided.adopt(name, layer)
        return divided

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
                self._append(nn.Identity(), (name,), call.node.name)
            else:
                self.names[call.node.name] = name
            return
        out = self._shape_of(call.shape, inputs[0], entry.layer)
        self.context.name, self.context.is_last = call.name, self._is_last(call.node)
        layer, layout = entry.division(self.context, entry.layer, inputs, out)
        self._own(call.name, layer)
        names = tuple(self._name(node) for node in entry.inputs)
        self.values[call.node.name] = Value(layout, flat=len(call.shape) == 2)
        self._append(layer, names, call.node.name)
        if entry.in_place:  # whoever takes its input from now on sees what it has become
            self.names[entry.inputs[0].name] = call.node.name

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

    def _append(self, layer: nn.Module, inputs: tuple[str, ...], result: str) -> None:
        self.steps.append(Turn(layer, inputs, result))

    def _own(self, name: str, layer: nn.Module) -> None:
        """Keep a layer that has parameters; one that is called twice must be divided alike."""
        if not isinstance(layer, LocalLayer):
            return
        if name in self.owned:
            raise UnsupportedError("it is called more than once: give each call its own layer")
        self.owned[name] = layer

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
        layout = everywhere(self.mesh, value.shape)
        if value.layout != layout:
            self._append(_Everywhere(self.context.fetch_as(value, layout)), (name,), "output")
            return "output"
        return name

    def _cut_input(self) -> Box:
        """The smallest box of an image that holds all this rank ever needs of it."""
        fetches = self.context.raw_fetches
        boxes = [fetch.move.need for fetch in fetches if not is_empty(fetch.move.need)]
        box: Box = tuple(
            (min(box[dim][0] for box in boxes), max(box[dim][1] for box in boxes))
            if boxes
            else (0, 0)
            for dim in range(3)
        )
        for fetch in fetches:
            fetch.hold(box)
        return box

    def _with_last_uses(self, output: str) -> list[Turn]:
        """Note which values can be forgotten after each step."""
        needed, found = {output}, []
        for step in reversed(self.steps):
            gone = tuple(name for name in dict.fromkeys(step.inputs) if name not in needed)
            needed |= set(step.inputs)
            found.append(dataclasses.replace(step, last_uses=gone))
        return found[::-1]


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


class _Everywhere(nn.Module):
    """Gives every rank the whole of a value."""

    def __init__(self, fetch: Fetch) -> None:
        super().__init__()
        self._fetch = fetch

    def forward(self, x: Tensor) -> Tensor:
        return self._fetch(x)
