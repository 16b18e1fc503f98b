"""Max-pooling with the ReLU behind it in one pass, forward and backward.

torch writes the position of every maximum as 8 bytes, then ReLU reads and writes the result
again; backward, it fills the input's gradient with zeros and scatters into it. Here a position is
one byte, ReLU is a comparison while the maximum is still in a register, and windows that tile the
input write each element of its gradient once. Values are only compared and moved, so the result
is torch's to the bit; where the C module was not built, or a tensor is of another kind, torch
does the work.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sixfold.models.graph.operations import Operation, register_operation
from sixfold.training.native.loading import load

found = load()  # the C module, and where it is from
kernels: Any = found.module
Geometry = tuple[int, ...]
"""As `Geometry` in kernels.c: N H W C, kernel, stride, padding, dilation, output, ReLU or not."""

LARGEST_WINDOW = 255  # positions are one byte, and one value of it means none


def is_built() -> bool:
    """Whether the C module is there."""
    return kernels is not None


class MaxPoolReLU2d(nn.MaxPool2d):
    """`nn.MaxPool2d`, with a ReLU behind it if there was one."""

    def __init__(self, pool: nn.MaxPool2d, *, relu: bool) -> None:
        super().__init__(
            pool.kernel_size, pool.stride, pool.padding, pool.dilation, ceil_mode=pool.ceil_mode
        )
        self.relu = relu
        kernel, dilation = _pair(pool.kernel_size), _pair(pool.dilation)
        self._window = (*kernel, *_pair(pool.stride), *_pair(pool.padding), *dilation)
        self._fits = kernel[0] * kernel[1] < LARGEST_WINDOW and not pool.ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, H, W)."""
        geometry = self.geometry(x)
        if geometry is not None:
            return cast(Tensor, _MaxPool.apply(x, geometry))  # type: ignore[no-untyped-call]
        pooled: Tensor = super().forward(x)
        return pooled.relu() if self.relu else pooled

    @property
    def fits(self) -> bool:
        """Whether the C module can do it, given maps that it reads."""
        return self._fits

    def extra_repr(self) -> str:
        """The settings."""
        return super().extra_repr() + f", relu={self.relu}"

    def geometry(self, x: Tensor) -> Geometry | None:
        """What the C module is told of an input; None if torch must do the work."""
        if not (self._fits and kernels is not None and _suits(x)):
            return None
        images, channels, height, width = x.shape
        kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, *dilation = self._window
        out_h = (height + 2 * padding_h - dilation[0] * (kernel_h - 1) - 1) // stride_h + 1
        out_w = (width + 2 * padding_w - dilation[1] * (kernel_w - 1) - 1) // stride_w + 1
        if min(out_h, out_w) <= 0:  # torch says what is wrong
            return None
        if x.dtype == torch.bfloat16:
            # Gradients of overlapping windows are added up, in torch's way, where there are any.
            apart = (kernel_h, kernel_w) == (stride_h, stride_w)
            whole = out_h * stride_h >= height and out_w * stride_w >= width
            if not (apart and whole and padding_h == padding_w == 0 and dilation == [1, 1]):
                return None
        return (images, height, width, channels, *self._window, out_h, out_w, int(self.relu))


def _saved_bytes(pool: MaxPoolReLU2d) -> int | None:
    return 1 if is_built() and pool.fits else None


MAX_POOL_RELU = register_operation(
    Operation(
        name="max_pool_relu",
        modules=(MaxPoolReLU2d,),
        per_sample=True,
        keeps_channels=True,
        saved_bytes=_saved_bytes,
    )
)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _suits(x: Tensor) -> bool:
    """Whether a tensor is one that the C module reads: N H W C in memory, on the CPU."""
    return (
        isinstance(x, Tensor)  # torch.fx traces with something else
        and x.dim() == 4
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64, torch.bfloat16)
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def pool_forward(x: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Values and places of the maxima, (N, C, H', W') each; see `MaxPoolReLU2d.geometry`."""
    shape = (geometry[0], geometry[3], geometry[12], geometry[13])
    y = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    place = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
    kernels.max_pool_forward(
        x.element_size(), x.data_ptr(), y.data_ptr(), place.data_ptr(), *geometry
    )
    return y, place


def pool_backward(grad: Tensor, place: Tensor, geometry: Geometry) -> Tensor:
    """The input's gradient, (N, C, H, W), from the output's and `pool_forward`'s places."""
    images, height, width, channels = geometry[:4]
    grad = grad.contiguous(memory_format=torch.channels_last)
    if grad.stride() != place.stride():  # sizes of 1 leave strides open: `contiguous` may not act
        grad = torch.empty_strided(place.shape, place.stride(), dtype=grad.dtype).copy_(grad)
    x_grad = torch.empty(
        (images, channels, height, width), dtype=grad.dtype, memory_format=torch.channels_last
    )
    kernels.max_pool_backward(
        grad.element_size(), grad.data_ptr(), place.data_ptr(), x_grad.data_ptr(), *geometry
    )
    return x_grad


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, geometry: Geometry) -> Tensor:
        y, ctx.place = pool_forward(x, geometry)
        ctx.geometry = geometry
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return pool_backward(grad, ctx.place, ctx.geometry), None
