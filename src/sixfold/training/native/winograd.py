"""3x3 convolutions of stride 1 with 16 multiplications where the definition has 36.

Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016. The kernels in
winograd.inc compute values, the input's gradient and that of the weights, 1.4 to 2 times as fast as
the library and, in float32, as exactly: tests hold them to float64. Their bits do not depend on the
processor; without the C module the library computes, and its bits are others, which the canary and
the record of a run's arithmetic tell (`sixfold.training.step.arithmetic`).

Legend: n images, C input and K output channels, H W rows and columns.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from sixfold.core.processor import processor
from sixfold.training.native import max_pool

LANES = 16
"""Channels, of the input and of the output, are a multiple of it."""

FEWEST_CHANNELS = 32
"""With 16 the library is as fast: transforming the pixels is a third of the work."""

FEWEST_TILES = 8
"""Of 2x2 outputs; with fewer, transforming the weights is most of the work."""

_NEEDS = frozenset({"avx2", "fma"})


@cache
def is_used() -> bool:
    """Whether this process computes so: with the C module and fused multiply-adds."""
    return hasattr(max_pool.kernels, "winograd") and (processor() or frozenset()) >= _NEEDS


def suits(x: Tensor, weight: Tensor, padding: Sequence[int]) -> bool:
    """Whether the kernels can take maps (n, C, H, W) and weights (K, C, 3, 3), and should."""
    maps, channels = weight.shape[:2]
    return (
        tuple(weight.shape[2:]) == (3, 3)
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and suit_channels(channels, maps)
        and max(padding) <= 2
        and weight.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
        and _tiles(x, padding) >= FEWEST_TILES
        and is_used()
    )


def suit_channels(channels: int, maps: int) -> bool:
    """Whether so many of the input and of the output come in whole vectors, and are enough."""
    return channels % LANES == maps % LANES == 0 and min(channels, maps) >= FEWEST_CHANNELS


def _tiles(x: Tensor, padding: Sequence[int]) -> int:
    height, width = _output_size(x, padding)
    return len(x) * (max(height + 1, 0) // 2) * (max(width + 1, 0) // 2)


def _output_size(x: Tensor, padding: Sequence[int]) -> tuple[int, int]:
    return x.shape[2] + 2 * padding[0] - 2, x.shape[3] + 2 * padding[1] - 2


def empty_output(x: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    """(n, K, H', W'), to be written by `forward`."""
    shape = len(x), len(weight), *_output_size(x, padding)
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    y: Tensor,
    rows: tuple[int, int] | None = None,
) -> None:
    """Write the convolution's values, or those of the output rows [first, last); first is even.

    Args:
        x: (n, C, H, W), in the order N H W C.
        weight: (K, C, 3, 3).
        bias: (K,), if there is one.
        padding: of rows and columns, with zeros.
        y: from `empty_output`.
        rows: which to write; all if absent.
    """
    first, last = rows or (0, y.shape[2])
    assert first % 2 == 0
    assert bias is None or bias.is_contiguous()
    max_pool.kernels.winograd(
        x.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr(), 0,
        *_sizes(x, y, padding), first, last,
    )  # fmt: skip


def input_gradient(grad: Tensor, weight: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
    """(n, C, H, W), from the output's (n, K, H', W'): a convolution with the taps turned about."""
    grad = grad.contiguous(memory_format=torch.channels_last)
    dx = torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last)
    turned = 2 - int(padding[0]), 2 - int(padding[1])
    max_pool.kernels.winograd(
        grad.data_ptr(), weight.data_ptr(), 0, dx.data_ptr(), 1, *_sizes(grad, dx, turned),
        0, dx.shape[2],
    )  # fmt: skip
    return dx


def weight_gradient(x: Tensor, grad: Tensor, out: Tensor, padding: Sequence[int]) -> None:
    """Write the gradient of the weights to `out`, (K, C, 3, 3)."""
    assert out.is_contiguous()
    grad = grad.contiguous(memory_format=torch.channels_last)
    max_pool.kernels.winograd_dw(
        x.data_ptr(), grad.data_ptr(), out.data_ptr(), *_sizes(x, grad, padding), 0, grad.shape[2]
    )


def _sizes(x: Tensor, y: Tensor, padding: Sequence[int]) -> tuple[int, ...]:
    images, channels, height, width = x.shape
    return images, height, width, channels, y.shape[1], *(int(p) for p in padding), *y.shape[2:]
