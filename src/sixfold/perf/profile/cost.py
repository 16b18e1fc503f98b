"""The cost of a layer and of the functions that it calls: counts, as plain data."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

SUM_OF_GRADIENTS = "sum_of_gradients"
"""Stands among the functions of a call that takes a tensor which another has taken before."""

LOSS = "loss"  # name of the last layer: cross-entropy


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Operations, and least bytes read and written, of a pass over a batch in training."""

    forward_flops: int = 0
    backward_flops: int = 0  # of all gradients that are wanted
    forward_bytes: int = 0
    backward_bytes: int = 0
    kept_bytes: int = 0  # what is kept for the backward pass and nobody has kept before
    output_bytes: int = 0  # new memory of outputs; 0 for a view or a change in place

    @property
    def flops(self) -> int:
        """Operations forward and backward."""
        return self.forward_flops + self.backward_flops

    @property
    def bytes_moved(self) -> int:
        """Least bytes moved, forward and backward."""
        return self.forward_bytes + self.backward_bytes


COUNTS = tuple(field.name for field in dataclasses.fields(Counts))


@dataclass(frozen=True, kw_only=True)
class FunctionCost(Counts):
    """One call of a torch function."""

    name: str  # of the function, without underscores
    known: bool  # whether its operations are counted by a formula
    input_shapes: tuple[tuple[int, ...], ...]  # of the tensors it takes, parameters left out
    output_shape: tuple[int, ...]  # of what it gives


@dataclass(frozen=True, kw_only=True)
class LayerCost(Counts):
    """One call of a layer, or of a function that a module of several layers calls itself."""

    name: str  # the module's path; for a function outside of a layer the path and the function
    kind: str  # the module's class, or the function
    parameters: int  # number of trainable values used here and by no layer before
    parameter_bytes: int  # of these
    functions: tuple[FunctionCost, ...]  # what it calls

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the first function's inputs."""
        return self.functions[0].input_shapes if self.functions else ()

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the last function's output."""
        shapes = [f.output_shape for f in self.functions if f.name != SUM_OF_GRADIENTS]
        return shapes[-1] if shapes else ()

    @property
    def unknown(self) -> tuple[str, ...]:
        """Functions that were counted as element by element, for want of a formula."""
        return tuple(f.name for f in self.functions if not f.known)


def sums_of(costs: Sequence[Counts]) -> dict[str, int]:
    """Every count, added up."""
    return {name: sum(getattr(cost, name) for cost in costs) for name in COUNTS}


def shared_rate(alone: float, together: float, cores: int, busy: int) -> float:
    """A core's rate while so many are busy: in a straight line from one core to all of them."""
    if busy <= 1 or cores <= 1:
        return alone
    part = min((busy - 1) / (cores - 1), 1.0)
    share = alone + (together / cores - alone) * part
    return share if busy <= cores else share * cores / busy
