"""The cost of a layer and of the functions that it calls: counts, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

SUM_OF_GRADIENTS = "sum_of_gradients"
"""Stands among the functions of a call that takes a tensor which another has taken before."""

LOSS = "loss"
"""Name of the last layer: cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class FunctionCost:
    """One call of a torch function."""

    name: str  # of the function, without underscores
    known: bool  # whether its operations are counted by a formula
    input_shapes: tuple[tuple[int, ...], ...]  # of the tensors it takes, parameters left out
    output_shape: tuple[int, ...]  # of what it gives
    forward_flops: int  # operations of the forward pass
    backward_flops: int  # operations of all gradients that are wanted
    forward_bytes: int  # least bytes read and written by the forward pass
    backward_bytes: int  # least bytes read and written by the backward pass
    kept_bytes: int  # what it keeps for the backward pass and nobody has kept before it
    output_bytes: int  # new memory of its output; 0 for a view or a change in place


@dataclass(frozen=True, kw_only=True)
class LayerCost:
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

    @property
    def forward_flops(self) -> int:
        """Operations of the forward pass."""
        return sum(f.forward_flops for f in self.functions)

    @property
    def backward_flops(self) -> int:
        """Operations of the backward pass."""
        return sum(f.backward_flops for f in self.functions)

    @property
    def forward_bytes(self) -> int:
        """Least bytes moved by the forward pass."""
        return sum(f.forward_bytes for f in self.functions)

    @property
    def backward_bytes(self) -> int:
        """Least bytes moved by the backward pass."""
        return sum(f.backward_bytes for f in self.functions)

    @property
    def kept_bytes(self) -> int:
        """Activations kept for the backward pass, each counted at the layer that keeps it first."""
        return sum(f.kept_bytes for f in self.functions)

    @property
    def output_bytes(self) -> int:
        """New memory of the outputs of its functions."""
        return sum(f.output_bytes for f in self.functions)

    @property
    def flops(self) -> int:
        """Operations forward and backward."""
        return self.forward_flops + self.backward_flops

    @property
    def bytes_moved(self) -> int:
        """Least bytes moved, forward and backward."""
        return self.forward_bytes + self.backward_bytes
