"""The weights' gradient of a convolution, where the library is slow at it.

On processors with AVX2 and no AVX-512, oneDNN computes a convolution forward, and its input's
gradient, at nearly the rate of large products of matrices, but the weights' gradient at about half
of it. The kernel in conv.inc reaches the rate of the others. Each element is one chain of fused
multiply-adds over images, rows and columns, so its bits do not depend on the processor. The library
adds in the same order for most square maps, but not for all shapes, so bits may be others without
the C module; the canary and the record of a run's arithmetic tell
(`sixfold.training.step.arithmetic`). 1x1 convolutions are left to others.

Legend: n images, C input and K output channels, H W rows and columns, R S rows and columns of the
kernel.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from sixfold.training.native import max_pool


@cache
def is_used() -> bool:
    """Whether this process computes so: with AVX2, by choice or because there is no more.

    What ATen uses decides (`--cpu-isa`): it is agreed on for all ranks, and recorded.
    """
    return (
        hasattr(max_pool.kernels, "conv_weights")
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
    )


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel can take maps (n, C, H, W) and weights (K, C, R, S), by their kind."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[2:].numel() > 1
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def gradient(
    x: Tensor,
    grad: Tensor,
    out: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> None:
    """Write the gradients of the weights and, if there is one, of the bias.

    Args:
        x: (n, C, H, W) input in the order N H W C, float32.
        grad: (n, K, H', W') of the output.
        out: (K, C, R, S), overwritten.
        bias: (K,), overwritten.
        stride: of rows and columns.
        padding: of rows and columns, with zeros.
    """
    grad = grad.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = x.shape
    maps, _, kernel_h, kernel_w = out.shape
    assert out.is_contiguous()
    max_pool.kernels.conv_weights(
        x.data_ptr(), grad.data_ptr(), out.data_ptr(), 0 if bias is None else bias.data_ptr(),
        images, height, width, channels, maps, kernel_h, kernel_w, *stride, *padding,
        *grad.shape[2:],
    )  # fmt: skip
