"""A module with a forward of its own as a link: a graph of runs and joins, without autograd's.

Forward, stages run in the order in which the module's forward made its calls, so random numbers
are drawn in that order too. Backward they run the other way round; a value that several stages
take gets the sum of their gradients, added in that order: always the same, whoever computes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sixfold.training.layers.multi_input import (
    AutogradMultiInputOp,
    MultiInputOp,
    PlainOp,
    SequenceOp,
)
from sixfold.training.layers.operations import AutogradOp, LayerOp, Run, SpatialSumOp
from sixfold.training.layers.tracing import Graph


@dataclass(frozen=True, kw_only=True)
class Node:
    """A stage at work."""

    join: MultiInputOp  # computes it
    inputs: Sequence[int]  # numbers of values; see `sixfold.training.layers.tracing.Stage`
    places: Sequence[int]  # of its parameters' gradients


class GraphExecutor:
    """A module that is computed stage by stage; see above.

    Args:
        graph: what was read.
        nodes: its stages.
        unused: places of the parameters that no stage takes.
        otherwise: does the work where the graph does not hold: the module in another mode than
            that in which it was read, or one that computes something else (`prove`).
        prove: called with the first input; why the graph is not what the module computes, or None.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: Sequence[Node],
        unused: Sequence[int],
        otherwise: AutogradOp,
        prove: Callable[[Tensor], str | None],
    ) -> None:
        self.graph, self.nodes = graph, list(nodes)
        self._unused, self._prove = unused, prove
        self.otherwise: LayerOp = otherwise
        self._is_proved = False
        self.refused: str | None = None
        self.has_weights = bool(unused) or any(node.join.has_weights for node in nodes)

    @property
    def runs(self) -> list[Run]:
        """The layers between joins."""
        return [node.join.run for node in self.nodes if isinstance(node.join, SequenceOp)]

    @property
    def holds(self) -> bool:
        """Whether the stages are what runs."""
        return self.refused is None and self.graph.has_its_mode

    def settle(self, x: Tensor) -> None:
        """Find out whether the graph is what the module computes, if that is not known yet."""
        if not self._is_proved and self.holds:
            self.refused = self._prove(x)
            self._is_proved = True

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """Whatever the module takes."""
        self.settle(x)
        if not self.holds:
            return self.otherwise.forward(x, wanted)
        flows = [wanted]
        values: list[Any] = [x]
        saved: list[Any] = []
        last = self._last_uses()
        for number, node in enumerate(self.nodes, 1):
            wants = [flows[place] for place in node.inputs]
            y, kept = node.join.forward([values[place] for place in node.inputs], wants)
            values.append(y)
            saved.append(kept)
            is_plain = isinstance(node.join, PlainOp)
            flows.append(not is_plain and (node.join.has_weights or any(wants)))
            for place in node.inputs:
                if last[place] == number:
                    values[place] = None
        return values[self.graph.output], _Saved(saved, flows, x.shape)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """Whatever the module takes."""
        if not isinstance(saved, _Saved):
            return self.otherwise.backward(saved, grad, out)
        grads: dict[int, Tensor] = {self.graph.output: grad}
        for place in self._unused:
            out[place].zero_()
        for number in range(len(self.nodes), 0, -1):
            node, kept = self.nodes[number - 1], saved.kept.pop()
            flowing = grads.pop(number, None)
            if flowing is None or not saved.flows[number]:
                for place in node.places:
                    out[place].zero_()
                continue
            found = node.join.backward(kept, flowing, out)
            for place, gradient in zip(node.inputs, found, strict=True):
                if gradient is not None and saved.flows[place]:
                    grads[place] = grads[place] + gradient if place in grads else gradient
        if not saved.flows[0]:
            return None
        return grads[0] if 0 in grads else grad.new_zeros(saved.shape)

    def _last_uses(self) -> dict[int, int]:
        last = {place: n for n, node in enumerate(self.nodes, 1) for place in node.inputs}
        last[self.graph.output] = 0
        return last


class _Saved(NamedTuple):
    """What stages have kept, which values gradients flow to, and the shape of the input."""

    kept: list[Any]
    flows: list[bool]
    shape: torch.Size


class AutogradNeed:
    """Whether there is a module of which only autograd knows what it does.

    What cannot change is found out once; what can is whether a graph's stages are what runs.
    """

    def __init__(self, links: Sequence[LayerOp]) -> None:
        found = list(_operations(links))
        self._graphs = [op for op in found if isinstance(op, GraphExecutor)]
        self._always = any(isinstance(op, (AutogradOp, AutogradMultiInputOp)) for op in found)

    def __bool__(self) -> bool:
        return self._always or not all(graph.holds for graph in self._graphs)


def _operations(links: Sequence[LayerOp]) -> Iterator[LayerOp | MultiInputOp]:
    """All of them, and those within them."""
    for link in links:
        yield link
        if isinstance(link, GraphExecutor):
            yield from (node.join for node in link.nodes)
        for run in _runs(link):
            yield from _operations(run.links)


def _runs(link: LayerOp) -> Sequence[Run]:
    if isinstance(link, GraphExecutor):
        return link.runs
    return link.branches if isinstance(link, SpatialSumOp) else ()
