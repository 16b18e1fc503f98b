"""Layers with their backward pass written out: the links of `sixfold.step.chain`.

A link keeps nothing between calls: what its backward pass needs is handed back to the caller. The
gradients are the textbook's; tests hold each of them against autograd and numerical differences.

Legend: n images, C input and K output channels, H W rows and columns, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sixfold.native.max_pool import MaxPoolReLU2d, pool_backward, pool_forward


class Link(Protocol):
    """One layer, or several that autograd treats as one.

    Attributes:
        has_weights: whether it has trainable parameters.
    """

    has_weights: bool

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """The layer's output, and what `backward` needs.

        Args:
            x: input.
            wanted: whether the gradient with respect to `x` will be wanted.
        """
        ...

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """Write the gradients of the own parameters to `out`, by their places.

        Returns:
            The gradient with respect to the input; None if it was not wanted.
        """
        ...


class ConvLink:
    """Convolution: y = x * w + b.

    dw is the correlation of x with dy, db the sum of dy over images and pixels, dx the full
    convolution of dy with w.
    """

    has_weights = True

    def __init__(self, layer: nn.Conv2d, weight: int, bias: int | None) -> None:
        self.layer, self.weight, self.bias = layer, weight, bias

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> (n, K, H', W')."""
        layer = self.layer
        y = torch.conv2d(
            x,
            layer.weight,
            layer.bias,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        return y, (x, wanted)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(n, K, H', W') -> (n, C, H, W)."""
        x, wanted = saved
        layer = self.layer
        has_bias = self.bias is not None
        dx, dw, db = torch.ops.aten.convolution_backward(
            grad,
            x,
            layer.weight,
            [layer.out_channels] if has_bias else None,
            layer.stride,
            layer.padding,
            layer.dilation,
            False,
            [0, 0],
            layer.groups,
            [wanted, True, has_bias],
        )
        out[self.weight].copy_(dw)
        if self.bias is not None:
            out[self.bias].copy_(db)
        return dx if wanted else None


class LinearLink:
    """Fully connected: y = x w^T + b; dw = dy^T x, db = sum of dy over rows, dx = dy w."""

    has_weights = True

    def __init__(self, layer: nn.Linear, weight: int, bias: int | None) -> None:
        self.layer, self.weight, self.bias = layer, weight, bias

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(..., F) -> (..., F')."""
        return nn.functional.linear(x, self.layer.weight, self.layer.bias), (x, wanted)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(..., F') -> (..., F)."""
        x, wanted = saved
        rows = grad.reshape(-1, grad.shape[-1])
        torch.mm(rows.t(), x.reshape(-1, x.shape[-1]), out=out[self.weight])
        if self.bias is not None:
            torch.sum(rows, 0, out=out[self.bias])
        return torch.matmul(grad, self.layer.weight) if wanted else None


class ReLULink:
    """y = max(x, 0); dx is dy where y is positive."""

    has_weights = False

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """Any shape."""
        y = x.relu()
        return y, (y if wanted else None)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """Any shape."""
        return torch.ops.aten.threshold_backward(grad, saved, 0)  # type: ignore[no-any-return]


class FlattenLink:
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


class MaxPoolLink:
    """Max-pool with or without ReLU: dy goes to the place of the maximum, the first of equals."""

    has_weights = False

    def __init__(self, layer: MaxPoolReLU2d) -> None:
        self._layer = layer
        self._otherwise = AutogradLink(layer, [])

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> (n, C, H', W')."""
        geometry = self._layer.geometry(x)
        if geometry is None:
            return self._otherwise.forward(x, wanted)
        y, place = pool_forward(x, geometry)
        return y, (geometry, place)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(n, C, H', W') -> (n, C, H, W)."""
        first, second = saved
        if isinstance(first, tuple):
            return pool_backward(grad, second, first)
        return self._otherwise.backward(saved, grad, out)


class AutogradLink:
    """Any module at all, differentiated by autograd.

    Args:
        module: what is run, in its current mode.
        parameters: its trainable parameters, each with its place among all.
    """

    def __init__(self, module: nn.Module, parameters: Sequence[tuple[int, nn.Parameter]]) -> None:
        self._module = module
        self._places = [place for place, _ in parameters]
        self._parameters = [parameter for _, parameter in parameters]
        self.has_weights = bool(parameters)

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """Whatever the module takes."""
        x = x.detach()
        with torch.enable_grad():
            x = x.requires_grad_() if wanted else x
            y = self._module(x)
        return y.detach(), (x if wanted else None, y)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """Whatever the module takes."""
        x, y = saved
        inputs = self._parameters if x is None else [*self._parameters, x]
        if not y.requires_grad:
            found: Sequence[Tensor | None] = [None] * len(inputs)
        else:
            found = torch.autograd.grad(y, inputs, grad, allow_unused=True)
        for place, gradient in zip(self._places, found, strict=False):
            if gradient is None:
                out[place].zero_()
            else:
                out[place].copy_(gradient)
        if x is None:
            return None
        flowing = found[-1]
        return torch.zeros_like(x) if flowing is None else flowing
