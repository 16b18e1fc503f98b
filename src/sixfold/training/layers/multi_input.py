"""Links of several inputs: sums, concatenations, and whatever else autograd knows.

Legend: n images, C channels, H W rows and columns.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sixfold.training.layers.operations import Run, autocast
from sixfold.training.layers.weights import cast, put_gradients

Gradients = Sequence[Tensor | None]


class MultiInputOp(Protocol):
    """What takes several values; `has_weights`: whether it has trainable parameters."""

    has_weights: bool  # whether it has trainable parameters

    def forward(self, values: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, Any]:
        """The result, and what `backward` needs for the gradients that are `wanted`."""
        ...

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Gradients:
        """Write the gradients of the own parameters to `out`; return those of the inputs."""
        ...


class SequenceOp:
    """Layers one behind the other: a join of one input."""

    def __init__(self, run: Run) -> None:
        self.run, self.has_weights = run, run.has_weights

    def forward(self, values: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, Any]:
        y, saved = self.run.forward(values[0], wanted[0])
        return y, (saved, wanted[0])

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Gradients:
        kept, wanted = saved
        return [self.run.backward(kept, grad, out, wanted)]


class AddOp:
    """y = a + b, with or without a ReLU behind; dy goes to both."""

    has_weights = False

    def __init__(self, *, relu: bool) -> None:
        self.relu = relu

    def forward(self, values: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, Any]:
        """Any shapes that fit."""
        left, right = values
        y = torch.add(left, right)
        if self.relu:
            y = y.relu_()
        kept = y if self.relu and any(wanted) else None
        return y, (kept, left.shape, left.dtype, right.shape, right.dtype, wanted)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Gradients:  # noqa: ARG002 - no weights
        y, left, left_type, right, right_type, wanted = saved
        if y is not None:
            grad = torch.ops.aten.threshold_backward(cast(grad, y), y, 0)
        found: list[Tensor | None] = []
        for shape, dtype, is_wanted in (
            (left, left_type, wanted[0]),
            (right, right_type, wanted[1]),
        ):
            own = grad if grad.shape == shape else grad.sum_to_size(shape)
            found.append(own.to(dtype) if is_wanted else None)
        return found


class ConcatenateOp:
    """Values side by side along a dim; each gets its part of dy."""

    has_weights = False

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def forward(self, values: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, Any]:
        """Any shapes that fit."""
        sizes = [value.shape[self._dim] for value in values]
        return torch.cat(list(values), self._dim), (sizes, [v.dtype for v in values], wanted)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Gradients:  # noqa: ARG002 - no weights
        sizes, dtypes, wanted = saved
        parts = torch.split(grad, sizes, self._dim)
        return [
            _alone(part).to(dtype) if is_wanted else None
            for part, dtype, is_wanted in zip(parts, dtypes, wanted, strict=True)
        ]


def _alone(part: Tensor) -> Tensor:
    """A part of a tensor in memory of its own, in the order of the whole."""
    if part.dim() == 4:
        return part.contiguous(memory_format=torch.channels_last)
    return part.contiguous()


class PlainOp:
    """A size, or what is computed from sizes: no gradient flows."""

    has_weights = False

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def forward(self, values: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, Any]:  # noqa: ARG002 - none flows
        return self._module(*values), None

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Gradients:
        """Never called: what is plain has no gradient."""
        raise AssertionError(saved, grad, out)


class AutogradMultiInputOp:
    """Any module of several inputs, differentiated by autograd; parameters have their places."""

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[tuple[int, nn.Parameter]],
        *,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        self._module, self._compute_dtype, self._owned = module, compute_dtype, parameters
        self.has_weights = bool(parameters)

    def forward(self, values: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, Any]:
        """Whatever the module takes."""
        with torch.enable_grad(), autocast(self._compute_dtype):
            given = [
                value.detach().requires_grad_() if is_wanted else value
                for value, is_wanted in zip(values, wanted, strict=True)
            ]
            y = self._module(*given)
        return y.detach(), (given, wanted, y)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Gradients:
        """Whatever the module takes."""
        given, wanted, y = saved
        parameters = [parameter for _, parameter in self._owned]
        inputs = [value for value, is_wanted in zip(given, wanted, strict=True) if is_wanted]
        found: Sequence[Tensor | None] = [None] * (len(parameters) + len(inputs))
        if y.requires_grad:
            found = torch.autograd.grad(y, [*parameters, *inputs], cast(grad, y), allow_unused=True)
        put_gradients([out[place] for place, _ in self._owned], found)
        flowing = iter(found[len(parameters) :])
        return [next(flowing) if is_wanted else None for is_wanted in wanted]
