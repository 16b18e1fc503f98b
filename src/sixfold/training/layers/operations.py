"""Layers with their backward pass written out: the links of `sixfold.training.layers.executor`.

A link keeps nothing between calls: what its backward pass needs is handed back to the caller. The
gradients are the textbook's; tests hold each of them against autograd and numerical differences.

Legend: n images, C input and K output channels, H W rows and columns, F features.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sixfold.models.outputs import main_output
from sixfold.training.layers.weights import Weight, cast, put, put_gradients
from sixfold.training.native.max_pool import MaxPoolReLU2d, pool_backward, pool_forward


class LayerOp(Protocol):
    """One layer, or several that autograd treats as one; `has_weights`: any that are trainable."""

    has_weights: bool  # whether it has trainable parameters

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """The output, and what `backward` needs, for the gradient of `x` too if `wanted`."""
        ...

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """Write the own parameters' gradients to `out`, by places; the input's, or None."""
        ...


class LinearOp:
    """Fully connected: y = x w^T + b; dw = dy^T x, db = sum of dy over rows, dx = dy w."""

    has_weights = True

    def __init__(self, weight: Weight, bias: Weight | None) -> None:
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(..., F) -> (..., F')."""
        weight, bias = self.weight.value, None if self.bias is None else self.bias.value
        x = cast(x, weight)
        return nn.functional.linear(x, weight, bias), (x, wanted)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(..., F') -> (..., F)."""
        x, wanted = saved
        grad = cast(grad, x)
        rows, samples = grad.flatten(0, -2), x.flatten(0, -2)
        put(rows.t(), samples, out[self.weight.place])
        if self.bias is not None:
            db = out[self.bias.place]
            torch.sum(rows, 0, dtype=db.dtype, out=db)
        return torch.matmul(grad, self.weight.value) if wanted else None


class ReLUOp:
    """y = max(x, 0); dx is dy where y is positive."""

    has_weights = False

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """Any shape."""
        y = x.relu()
        return y, (y if wanted else None)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """Any shape."""
        return torch.ops.aten.threshold_backward(cast(grad, saved), saved, 0)  # type: ignore[no-any-return]


class ReLU6Op:
    """y = min(max(x, 0), 6); dx is dy where x is between."""

    has_weights = False

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """Any shape."""
        return nn.functional.relu6(x), (x if wanted else None)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """Any shape."""
        return torch.ops.aten.hardtanh_backward(cast(grad, saved), saved, 0.0, 6.0)  # type: ignore[no-any-return]


class FlattenOp:
    """Several dims as one: the same numbers in the order N C H W."""

    has_weights = False

    def __init__(self, layer: nn.Flatten) -> None:
        self._dims = layer.start_dim, layer.end_dim

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - costs nothing
        """(n, C, H, W) -> (n, C H W)."""
        return x.flatten(*self._dims), x.shape

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """(n, C H W) -> (n, C, H, W)."""
        return grad.reshape(saved)


class Masked(Protocol):
    """A dropout layer."""

    def mask(self, x: Tensor) -> Tensor | None:
        """What `x` is multiplied with; None if it is passed on as it is."""
        ...


class DropoutOp:
    """y = m x with a mask m of zeros and 1 / (1 - p); dx = m dy."""

    has_weights = False

    def __init__(self, layer: Masked) -> None:
        self._layer = layer

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - the mask is made anyway
        """Any shape."""
        mask = self._layer.mask(x)
        return (x if mask is None else x * mask), mask

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """Any shape."""
        return grad if saved is None else cast(grad, saved) * saved


class ReshapeOp:
    """The same numbers in another shape."""

    has_weights = False

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - costs nothing
        """Any shape of as many elements."""
        return x.reshape(self._shape), x.shape

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """Any shape of as many elements."""
        return grad.reshape(saved)


class MaxPoolOp:
    """Max-pool with or without ReLU: dy goes to the place of the maximum, the first of equals."""

    has_weights = False

    def __init__(self, layer: MaxPoolReLU2d) -> None:
        self._layer = layer
        self._otherwise = AutogradOp(layer, [])

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> (n, C, H', W')."""
        geometry = self._layer.geometry(x)
        if geometry is None:
            return self._otherwise.forward(x, wanted)
        y, place = pool_forward(x, geometry)
        return y, ((geometry, x.dtype), place)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(n, C, H', W') -> (n, C, H, W)."""
        first, second = saved
        if isinstance(first, tuple):
            geometry, dtype = first
            return pool_backward(grad.to(dtype), second, geometry)
        return self._otherwise.backward(saved, grad, out)


class Run:
    """Links one behind the other."""

    def __init__(self, links: Sequence[LayerOp]) -> None:
        self.links = links
        with_weights = [place for place, link in enumerate(links) if link.has_weights]
        self.has_weights = bool(with_weights)
        self._first = with_weights[0] if with_weights else len(links)

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, list[Any]]:
        """As of a link; what is saved is consumed by `backward`."""
        saved: list[Any] = []
        for place, link in enumerate(self.links):
            x, kept = link.forward(x, wanted or place > self._first)
            saved.append(kept)
        return x, saved

    def backward(
        self, saved: list[Any], grad: Tensor, out: Sequence[Tensor], wanted: bool
    ) -> Tensor | None:
        """As of a link: down to the input if its gradient is wanted, else to the first weights."""
        flowing: Tensor | None = grad
        for place in range(len(self.links) - 1, -1 if wanted else self._first - 1, -1):
            assert flowing is not None
            flowing = self.links[place].backward(saved.pop(), flowing, out)
        return flowing if wanted else None


class SpatialSumOp:
    """Two branches that begin with the same maps and are added, with or without ReLU behind.

    dx is the sum of the branches' gradients, each from the sum's gradient. A branch without links
    passes the maps on.
    """

    def __init__(self, branches: tuple[Run, Run], *, relu: bool) -> None:
        self.branches, self._relu = branches, relu
        self.has_weights = any(branch.has_weights for branch in branches)

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> what both branches make of it."""
        (left, kept_left), (right, kept_right) = (
            branch.forward(x, wanted) for branch in self.branches
        )
        y = left + right
        if self._relu:
            y = y.relu_()
        return y, (kept_left, kept_right, y if self._relu else None, wanted)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """The shape of the input."""
        *kept, y, wanted = saved
        if y is not None:
            grad = torch.ops.aten.threshold_backward(cast(grad, y), y, 0)
        left, right = (
            branch.backward(own, grad, out, wanted)
            for branch, own in zip(self.branches, kept, strict=True)
        )
        return None if left is None or right is None else left + right


NO_VIEW = "view size is not compatible"
"""What torch says of `x.view(len(x), -1)` where images lie in the order N H W C."""


def autocast(compute_dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """The numbers in which autograd's convolutions and products compute."""
    return nullcontext() if compute_dtype is None else torch.autocast("cpu", dtype=compute_dtype)


class AutogradOp:
    """Any module at all, in its current mode, differentiated by autograd.

    Its trainable parameters come with their places among all; `compute_dtype` is the type in which
    torch.autocast lets its convolutions and products compute.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[tuple[int, nn.Parameter]],
        *,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        self._module, self._compute_dtype = module, compute_dtype
        self._places = [place for place, _ in parameters]
        self._parameters = [parameter for _, parameter in parameters]
        self.has_weights = bool(parameters)
        parts = module.modules()
        self._works_in_place = any(getattr(part, "inplace", False) is True for part in parts)
        self._order_is_known = self._wants_contiguous = False

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """Whatever the module takes."""
        x = x.detach()
        with torch.enable_grad(), autocast(self._compute_dtype):
            x = x.requires_grad_() if wanted else x
            # Layers before this one may have kept what an activation in place would overwrite.
            y = self._run(x.clone() if self._works_in_place else x)
        return y.detach(), (x if wanted else None, y)

    def _run(self, x: Tensor) -> Tensor:
        if self._order_is_known:
            return self._call(x)
        before = [buffer.clone() for buffer in self._module.buffers()], torch.get_rng_state()
        try:
            y = self._call(x)
        except RuntimeError as error:
            if NO_VIEW not in str(error):
                raise
            self._wants_contiguous = True
            with torch.no_grad():
                for buffer, value in zip(self._module.buffers(), before[0], strict=True):
                    buffer.copy_(value)
            torch.set_rng_state(before[1])
            y = self._call(x)
        self._order_is_known = True
        return y

    def _call(self, x: Tensor) -> Tensor:
        if self._wants_contiguous:
            # `contiguous` leaves images of one channel, whose strides tell of N H W C, as they are.
            x = torch.empty(x.shape, dtype=x.dtype).copy_(x)
        y: Tensor = main_output(self._module(x))
        return y

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """Whatever the module takes."""
        x, y = saved
        inputs = self._parameters if x is None else [*self._parameters, x]
        if not y.requires_grad:
            found: Sequence[Tensor | None] = [None] * len(inputs)
        else:
            found = torch.autograd.grad(y, inputs, cast(grad, y), allow_unused=True)
        put_gradients([out[place] for place in self._places], found)
        if x is None:
            return None
        flowing = found[-1]
        return torch.zeros_like(x) if flowing is None else flowing
