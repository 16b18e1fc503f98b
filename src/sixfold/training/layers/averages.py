"""Links of pooling by averages: dy is spread evenly over what was averaged.

Legend: n images, C channels, H W rows and columns.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.training.layers.weights import cast


class MeanOp:
    """The mean over all pixels: dx = dy / (H W)."""

    has_weights = False

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - keeps a shape
        """(n, C, H, W) -> (n, C, 1, 1)."""
        return nn.functional.adaptive_avg_pool2d(x, 1), (x.shape, x.dtype)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """(n, C, 1, 1) -> (n, C, H, W)."""
        shape, dtype = saved
        spread: Tensor = (grad.to(dtype) / (shape[-1] * shape[-2])).expand(shape)
        if len(shape) != 4:
            return spread
        return spread.contiguous(memory_format=torch.channels_last)


class AveragePoolOp:
    """Average-pool, and adaptive average-pool, by torch's kernels."""

    has_weights = False

    def __init__(self, layer: nn.AvgPool2d | nn.AdaptiveAvgPool2d) -> None:
        self._layer = layer

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> (n, C, H', W')."""
        y: Tensor = self._layer(x)
        return y, (x if wanted else None)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """(n, C, H', W') -> (n, C, H, W)."""
        x, layer = saved, self._layer
        if x is None:
            return None
        grad = cast(grad, x)
        found: Tensor
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            found = torch.ops.aten._adaptive_avg_pool2d_backward(grad, x)
            return found
        kernel, stride, padding = (
            [size] * 2 if isinstance(size, int) else list(size)
            for size in (layer.kernel_size, layer.stride, layer.padding)
        )
        found = torch.ops.aten.avg_pool2d_backward(
            grad, x, kernel, stride, padding, layer.ceil_mode, layer.count_include_pad,
            layer.divisor_override,
        )  # fmt: skip
        return found
