"""The convolution link: which of four ways a convolution is computed, by a rule on shapes.

* **Points**: a 1x1 convolution of maps in the order N H W C is one product of matrices, without
  any copy; its weights' gradient goes straight to its place.
* **Winograd**: 3x3 kernels of stride 1 between 32 channels or more, multiples of 16, in float32, by
  kernels of our own with fewer multiplications (`sixfold.training.native.winograd`).
* **Patches**: else, where a shard has no more output pixels than the layer has maps, the library
  spends most of its time on bringing weights into its own order and their gradient back. Then the
  patches under the kernel, which are fewer than the weights, are copied instead (im2col), and
  products of matrices do the rest.
* **Library**: everything else. The weights' gradient is made by a kernel of our own where the
  library is slow at it (`sixfold.training.native.conv_weights`).

Which way is taken follows from shapes alone, so every rank takes the same and gets the same bits.

Legend: n images, C input and K output channels, H W rows and columns, R S rows and columns of the
kernel, P = n H' W' output pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sixfold.training.layers.weights import Weight, cast, put
from sixfold.training.native import conv_weights, winograd

PRODUCTS_IN_TWO = 30_000_000
"""Of a convolution whose gradients are made by two calls. On a core of an AMD EPYC the second call
cost 1% of 2.2 ms (64 maps of 32x32 to as many, 3x3), 16% of 0.27 ms (of 10x10)."""

PRODUCTS_IN_ROWS = 600_000_000
"""Of the output rows that are computed before halos come. Cutting a convolution (3x3, of 64, 128
and 256 maps) cost 6 to 9% of 17 ms, 12% of 5.7 ms and 30% of 1.4 ms on a core of an AMD EPYC: the
weights are brought into order twice, and the rows are put together. An exchange within a machine
takes a tenth of a millisecond, waiting for a rank or a network that is late takes more."""


class ConvOp:
    """Convolution: y = x * w + b.

    dw is the correlation of x with dy, db the sum of dy over images and pixels, dx the full
    convolution of dy with w.
    """

    has_weights = True

    def __init__(self, layer: Any, weight: Weight, bias: Weight | None) -> None:
        self.layer, self.weight, self.bias = layer, weight, bias
        kernel = layer.kernel_size
        self._plain = layer.groups == 1 and tuple(layer.dilation) == (1, 1)
        self._has_unit_steps = self._plain and tuple(layer.stride) == (1, 1)
        # The library's gradient of the input: 25 to 60 ms in bfloat16 where float32 takes 2 to 5.
        self._is_slow_in_bf16 = (
            weight.value.dtype == torch.bfloat16
            and layer.groups > weight.value.shape[1] == 1
            and max(layer.stride) > 1
        )
        self._is_pointwise = (
            self._has_unit_steps and tuple(kernel) == (1, 1) and tuple(layer.padding) == (0, 0)
        )

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> (n, K, H', W')."""
        x = cast(x, self.weight.value)
        way = self._way(x)
        if way == "points":
            return self._points_forward(x), _Saved(way, x, x.shape, wanted)
        if way == "patches":
            y, patches = self._patches_forward(x)
            return y, _Saved(way, patches, x.shape, wanted)
        y = self._winograd_forward(x) if way == "winograd" else self._convolved(x)
        return y, _Saved(way, x, x.shape, wanted)

    def _way(self, x: Tensor) -> str:
        if self._is_pointwise and x.is_contiguous(memory_format=torch.channels_last):
            return "points"
        if self._has_unit_steps and winograd.suits(x, self.weight.value, self.layer.padding):
            return "winograd"
        if self._plain and 0 < self._output_pixels(x) <= self.layer.out_channels:
            return "patches"
        return "library"

    def _convolved(self, x: Tensor) -> Tensor:
        layer = self.layer
        return torch.conv2d(
            x,
            self.weight.value,
            None if self.bias is None else self.bias.value,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )

    def rows_before(self, x: Tensor, there: tuple[int, int]) -> tuple[int, int] | None:
        """The output rows that follow from the input rows [a, b), which are there before others.

        None if computing them apart does not pay: every call of the library brings the weights
        into its order. By shapes alone, and only for the library's way without padding of rows.
        """
        layer, dtype = self.layer, self.weight.value.dtype
        way = self._way(x)
        if x.dtype != dtype or layer.padding[0] or way not in ("library", "winograd"):
            return None
        reach = (layer.kernel_size[0] - 1) * layer.dilation[0] + 1
        first = -(-there[0] // layer.stride[0])
        last = (there[1] - reach) // layer.stride[0] + 1
        if way == "winograd":  # tiles are two rows high, and stay what they are
            first, last = first + first % 2, last - last % 2
        images, columns = len(x), self._output_size(x.shape)[1]
        products = self.weight.value.numel() * images * (last - first) * columns
        return (first, last) if last > first and products >= PRODUCTS_IN_ROWS else None

    def forward_in_rows(
        self, x: Tensor, wanted: bool, rows: tuple[int, int], end: Callable[[], None]
    ) -> tuple[Tensor, Any]:
        """As `forward`, beginning with the output rows of `rows_before`.

        Args:
            x: (n, C, H, W).
            wanted: as for `forward`.
            rows: what is computed first.
            end: waits until all of `x` is there.
        """
        way, (height, width) = self._way(x), self._output_size(x.shape)
        shape = len(x), self.layer.out_channels, height, width
        y = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        some = self._winograd_rows if way == "winograd" else self._rows_forward
        some(x, y, rows)
        end()
        for others in ((0, rows[0]), (rows[1], height)):
            if others[0] < others[1]:
                some(x, y, others)
        return y, _Saved(way, x, x.shape, wanted)

    def _rows_forward(self, x: Tensor, y: Tensor, rows: tuple[int, int]) -> None:
        layer, (first, last) = self.layer, rows
        reach = (layer.kernel_size[0] - 1) * layer.dilation[0] + 1
        start = first * layer.stride[0]
        needed = x[:, :, start : (last - 1) * layer.stride[0] + reach]
        y[:, :, first:last] = self._convolved(needed)

    def _winograd_forward(self, x: Tensor) -> Tensor:
        y = winograd.empty_output(x, self.weight.value, self.layer.padding)
        self._winograd_rows(x, y, None)
        return y

    def _winograd_rows(self, x: Tensor, y: Tensor, rows: tuple[int, int] | None) -> None:
        bias = None if self.bias is None else self.bias.value
        winograd.forward(x, self.weight.value, bias, self.layer.padding, y, rows)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(n, K, H', W') -> (n, C, H, W)."""
        grad = cast(grad, self.weight.value)
        if saved.way == "winograd":
            self._winograd_weights(saved, grad, out)
            return self._winograd_dx(saved, grad) if saved.wanted else None
        if saved.way == "points":
            g = _rows(grad.contiguous(memory_format=torch.channels_last))  # (P, K)
            self._points_weights(saved, g, out)
            return self._points_dx(saved, g) if saved.wanted else None
        if saved.way == "patches":
            g = self._by_channel(grad)
            self._patches_weights(saved, g, out)
            return self._patches_dx(saved, g, grad.shape) if saved.wanted else None
        return self._library_backward(saved, grad, out, [saved.wanted, True])

    def backward_in_two(
        self, saved: Any, grad: Tensor, out: Sequence[Tensor]
    ) -> tuple[Tensor, Callable[[], object]] | None:
        """The gradient of the input, and what writes the others; None if it is had with them.

        Matrix multiplications are two anyway, and so are the gradients where that of the weights
        is made by a kernel of our own. Two calls of the library bring the weights into its order
        twice, and pay where products are most of the work.
        """
        if not saved.wanted:
            return None
        grad = cast(grad, self.weight.value)
        if saved.way == "winograd":
            dx = self._winograd_dx(saved, grad)
            return dx, partial(self._winograd_weights, saved, grad, out)
        if saved.way == "points":
            g = _rows(grad.contiguous(memory_format=torch.channels_last))
            return self._points_dx(saved, g), partial(self._points_weights, saved, g, out)
        if saved.way == "patches":
            g = self._by_channel(grad)
            dx = self._patches_dx(saved, g, grad.shape)
            return dx, partial(self._patches_weights, saved, g, out)
        pixels = grad.numel() // max(grad.shape[1], 1)
        products = self.weight.value.numel() * pixels
        if products < PRODUCTS_IN_TWO and not self._has_own_kernel(saved.kept):
            return None
        found = self._library_backward(saved, grad, out, [True, False])
        assert found is not None
        return found, partial(self._library_backward, saved, grad, out, [False, True])

    def _library_backward(
        self, saved: _Saved, grad: Tensor, out: Sequence[Tensor], wanted: list[bool]
    ) -> Tensor | None:
        """The gradient of the input, if it is wanted, and those of weight and bias, if they are."""
        if wanted[1] and self._has_own_kernel(saved.kept):
            dx = self._library_backward(saved, grad, out, [True, False]) if wanted[0] else None
            self._own_weights_backward(saved.kept, grad, out)
            return dx
        if wanted[0] and self._is_slow_in_bf16:
            if wanted[1]:
                self._library_backward(saved, grad, out, [False, True])
            return self._dx_by_float32(saved, grad)
        layer, has_bias = self.layer, self.bias is not None
        dx, dw, db = torch.ops.aten.convolution_backward(
            grad,
            saved.kept,
            self.weight.value,
            [layer.out_channels] if has_bias else None,
            layer.stride,
            layer.padding,
            layer.dilation,
            False,
            [0, 0],
            layer.groups,
            [*wanted, has_bias and wanted[1]],
        )
        if wanted[1]:
            out[self.weight.place].copy_(dw)
            if self.bias is not None:
                out[self.bias.place].copy_(db)
        return dx if wanted[0] else None

    def _dx_by_float32(self, saved: _Saved, grad: Tensor) -> Tensor:
        layer, weight = self.layer, self.weight.value.float()
        geometry = layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups
        x = torch.empty(saved.shape, memory_format=torch.channels_last)  # only its shape counts
        dx, _, _ = torch.ops.aten.convolution_backward(
            grad.float(), x, weight, None, *geometry, [True, False, False]
        )
        return cast(dx, grad)

    def _has_own_kernel(self, x: Tensor) -> bool:
        return self._plain and conv_weights.is_used() and conv_weights.suits(x, self.weight.value)

    def _own_weights_backward(self, x: Tensor, grad: Tensor, out: Sequence[Tensor]) -> None:
        layer, weight = self.layer, out[self.weight.place]
        bias = None if self.bias is None else out[self.bias.place]
        conv_weights.gradient(x, grad, weight, bias, layer.stride, layer.padding)

    def _winograd_weights(self, saved: _Saved, grad: Tensor, out: Sequence[Tensor]) -> None:
        winograd.weight_gradient(saved.kept, grad, out[self.weight.place], self.layer.padding)
        if self.bias is not None:
            g = _rows(grad.contiguous(memory_format=torch.channels_last))
            _sum_into(g, 0, out[self.bias.place])

    def _winograd_dx(self, saved: _Saved, grad: Tensor) -> Tensor:
        return winograd.input_gradient(grad, self.weight.value, saved.kept, self.layer.padding)

    def _matrix(self) -> Tensor:
        """(K, C R S): the weights."""
        return self.weight.value.view(self.layer.out_channels, -1)

    def _points_forward(self, x: Tensor) -> Tensor:
        rows = _rows(x)  # (P, C)
        if self.bias is None:
            y = torch.mm(rows, self._matrix().t())
        else:
            y = torch.addmm(self.bias.value, rows, self._matrix().t())
        return _maps(y, x)

    def _points_weights(self, saved: _Saved, g: Tensor, out: Sequence[Tensor]) -> None:
        """From (P, K)."""
        put(g.t(), _rows(saved.kept), out[self.weight.place])
        if self.bias is not None:
            _sum_into(g, 0, out[self.bias.place])

    def _points_dx(self, saved: _Saved, g: Tensor) -> Tensor:
        return _maps(torch.mm(g, self._matrix()), saved.kept)

    def _output_pixels(self, x: Tensor) -> int:
        height, width = self._output_size(x.shape)
        return len(x) * max(height, 0) * max(width, 0)

    def _output_size(self, shape: Sequence[int]) -> tuple[int, int]:
        layer = self.layer
        height, width = (
            (
                shape[2 + k]
                + 2 * int(layer.padding[k])
                - layer.dilation[k] * (layer.kernel_size[k] - 1)
                - 1
            )
            // layer.stride[k]
            + 1
            for k in range(2)
        )
        return height, width

    def _patches_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values, and the patches (C R S, P)."""
        layer = self.layer
        (images, channels, height, width), (out_h, out_w) = x.shape, self._output_size(x.shape)
        pad_h, pad_w = (int(p) for p in layer.padding)
        padded = x.new_zeros((channels, images, height + 2 * pad_h, width + 2 * pad_w))
        padded[:, :, pad_h : pad_h + height, pad_w : pad_w + width] = x.transpose(0, 1)
        kernel_h, kernel_w = layer.kernel_size
        by_channel, by_image, by_row, _ = padded.stride()
        windows = padded.as_strided(
            (channels, kernel_h, kernel_w, images, out_h, out_w),
            (by_channel, by_row, 1, by_image, by_row * layer.stride[0], layer.stride[1]),
        )
        patches = windows.reshape(-1, images * out_h * out_w)
        y = torch.mm(self._matrix(), patches)  # (K, P)
        if self.bias is not None:
            y += self.bias.value[:, None]
        maps = y.view(-1, images, out_h, out_w).transpose(0, 1)
        return maps.contiguous(memory_format=torch.channels_last), patches

    def _by_channel(self, grad: Tensor) -> Tensor:
        """(n, K, H', W') as (K, P)."""
        return grad.transpose(0, 1).reshape(len(self._matrix()), -1)

    def _patches_weights(self, saved: _Saved, g: Tensor, out: Sequence[Tensor]) -> None:
        """From (K, P)."""
        put(g, saved.kept.t(), out[self.weight.place])
        if self.bias is not None:
            _sum_into(g, 1, out[self.bias.place])

    def _patches_dx(self, saved: _Saved, g: Tensor, shape: torch.Size) -> Tensor:
        """From (K, P), the gradient of an output (n, K, H', W')."""
        layer, (out_h, out_w) = self.layer, shape[2:]
        images, channels, height, width = saved.shape
        kernel_h, kernel_w = layer.kernel_size
        d = torch.mm(self._matrix().t(), g)
        d = d.view(channels, kernel_h, kernel_w, images, out_h, out_w)
        pad_h, pad_w = (int(p) for p in layer.padding)
        padded = g.new_zeros((channels, images, height + 2 * pad_h, width + 2 * pad_w))
        (down, across) = layer.stride
        for i in range(kernel_h):
            rows = slice(i, i + (out_h - 1) * down + 1, down)
            for j in range(kernel_w):
                padded[:, :, rows, j : j + (out_w - 1) * across + 1 : across] += d[:, i, j]
        dx = padded[:, :, pad_h : pad_h + height, pad_w : pad_w + width].transpose(0, 1)
        return dx.contiguous(memory_format=torch.channels_last)


class _Saved(NamedTuple):
    """What the backward pass needs: images or patches, the images' shape, and the way taken."""

    way: str
    kept: Tensor
    shape: torch.Size
    wanted: bool


def _rows(maps: Tensor) -> Tensor:
    """(n, C, H, W) in the order N H W C as (P, C): the same memory."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """(P, K) as (n, K, H, W), with the images and pixels of `like`."""
    images, _, height, width = like.shape
    return rows.view(images, height, width, -1).permute(0, 3, 1, 2)


def _sum_into(values: Tensor, dim: int, out: Tensor) -> None:
    torch.sum(values, dim, dtype=out.dtype, out=out)
