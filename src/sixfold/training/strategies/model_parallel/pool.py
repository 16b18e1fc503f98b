"""Pooling, local response normalisation and padding: layers without weights that look around.

The output is divided like all maps, the input follows by windows
(`sixfold.training.strategies.model_parallel.window`). Max pools are padded with minus infinity.
Average pools count by the global position of a window, so a window at the border of a part counts
as it would in the whole. With `ceil_mode` the number of windows follows from the whole length.

Legend: n samples, C H W of the input, O P of the output's rows and columns.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.errors import UnsupportedError
from sixfold.training.native.max_pool import MaxPoolReLU2d
from sixfold.training.strategies.model_parallel.exchange_ops import Gather
from sixfold.training.strategies.model_parallel.layout import Box, Interval, Layout, maps, sizes
from sixfold.training.strategies.model_parallel.local import EmptyPart
from sixfold.training.strategies.model_parallel.value import Context, Divided, Shape, Value
from sixfold.training.strategies.model_parallel.window import Window

Pair = tuple[int, int]


class _Average(nn.Module):
    """Sums of windows, divided by how many cells each counts."""

    def __init__(self, kernel: Pair, stride: Pair, counts: Tensor) -> None:
        super().__init__()
        self._kernel, self._stride, self._counts = kernel, stride, counts

    def forward(self, x: Tensor) -> Tensor:
        sums = functional.avg_pool2d(x, self._kernel, self._stride, divisor_override=1)
        return sums / self._counts.to(sums.dtype)


class _ResponseNorm(nn.Module):
    """Local response normalisation of the channels in the middle, with the others around them."""

    def __init__(self, norm: nn.LocalResponseNorm, first: int, count: int) -> None:
        super().__init__()
        self._norm, self._first, self._count = norm, first, count

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self._norm(x)
        return normalised.narrow(1, self._first, self._count)


class _Adaptive(nn.Module):
    """Windows of different sizes, one by one."""

    def __init__(self, rows: list[Interval], cols: list[Interval], *, average: bool) -> None:
        super().__init__()
        self._rows, self._cols = rows, cols
        self._pool = functional.adaptive_avg_pool2d if average else functional.adaptive_max_pool2d

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                torch.cat([self._pool(x[:, :, a:b, c:d], 1) for c, d in self._cols], 3)
                for a, b in self._rows
            ],
            2,
        )


def divide_max_pool(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide a max-pool, and the ReLU that may be part of it."""
    assert isinstance(layer, nn.MaxPool2d)
    if layer.return_indices:
        raise UnsupportedError("return_indices=True cannot be divided: leave it out")
    kernel, dilation = _pair(layer.kernel_size), _pair(layer.dilation)
    stride = _pair(layer.kernel_size if layer.stride is None else layer.stride)
    padding = _pair(layer.padding)
    held = maps(context.mesh, out)
    windows = _windows(held, inputs[0].shape, kernel, stride, padding, dilation)
    native = [pad if window is None else 0 for pad, window in zip(padding, windows, strict=True)]
    gather = _gather(context, inputs[0], held, windows, fill=-torch.inf)
    pool = nn.MaxPool2d(kernel, stride, (native[0], native[1]), dilation, ceil_mode=layer.ceil_mode)
    relu = isinstance(layer, MaxPoolReLU2d) and layer.relu
    compute = MaxPoolReLU2d(pool, relu=relu)
    return _divided(context, gather, compute, held)


def divide_avg_pool(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide an average pool."""
    assert isinstance(layer, nn.AvgPool2d)
    kernel, padding = _pair(layer.kernel_size), _pair(layer.padding)
    stride = _pair(layer.kernel_size if layer.stride is None else layer.stride)
    held = maps(context.mesh, out)
    own = held.box(context.rank)
    value = inputs[0]
    windows = _windows(held, value.shape, kernel, stride, padding, (1, 1))
    compute: nn.Module = layer
    if any(window is not None for window in windows):
        windows = [
            _window(value.shape[dim + 1], kernel[dim], stride[dim], padding[dim], 1)
            for dim in (0, 1)
        ]
        counts = [
            _counts(
                own[dim + 1],
                value.shape[dim + 1],
                kernel[dim],
                stride[dim],
                padding[dim],
                padded=layer.count_include_pad,
            )
            for dim in (0, 1)
        ]
        divisors = counts[0][:, None] * counts[1][None, :]
        if layer.divisor_override is not None:
            divisors = torch.full_like(divisors, float(layer.divisor_override))
        compute = _Average(kernel, stride, divisors)
    gather = _gather(context, value, held, windows)
    return _divided(context, gather, compute, held)


def divide_adaptive_pool(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide an adaptive pool: window i of O over H rows is [floor(i H / O), ceil((i+1) H / O))."""
    assert isinstance(layer, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))
    if getattr(layer, "return_indices", False):
        raise UnsupportedError("return_indices=True cannot be divided: leave it out")
    (value,) = inputs
    held = maps(context.mesh, out)
    needs: list[Box] = []
    for channels, rows, cols in held.boxes():
        found = (
            channels,
            _adaptive_need(rows, value.shape[1], out[1]),
            _adaptive_need(cols, value.shape[2], out[2]),
        )
        empty = any(stop <= start for start, stop in (channels, rows, cols))
        needs.append(((0, 0),) * 3 if empty else found)
    gather = context.gather(value, needs)
    _, rows, cols = held.box(context.rank)
    compute = _Adaptive(
        _adaptive_windows(rows, value.shape[1], out[1]),
        _adaptive_windows(cols, value.shape[2], out[2]),
        average=isinstance(layer, nn.AdaptiveAvgPool2d),
    )
    return _divided(context, gather, compute, held)


def divide_response_norm(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide local response normalisation: a rank needs some channels on either side of its own."""
    assert isinstance(layer, nn.LocalResponseNorm)
    held, before, after = maps(context.mesh, out), layer.size // 2, (layer.size - 1) // 2
    count = out[0]

    def around(_: int, own: Interval) -> Interval:
        return max(own[0] - before, 0), min(own[1] + after, count)

    windows = _windows(held, out, (1, 1), (1, 1), (0, 0), (1, 1))
    gather = context.gather_windows(inputs[0], held, [None, *windows], around)
    own = held.box(context.rank)[0]
    compute = _ResponseNorm(layer, own[0] - around(0, own)[0], own[1] - own[0])
    return _divided(context, gather, compute, held)


def divide_padding(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide constant padding, of channels, rows or columns; negative padding cuts off."""
    assert isinstance(layer, (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d))
    (value,), held = inputs, maps(context.mesh, out)
    # torch lists the padding from the last dim to the first: (W before, W after, H before, ...).
    before = [0, 0, 0]
    for place, amount in enumerate(layer.padding[::2]):
        before[2 - place] = int(amount)
    windows = [
        Window(length=length, before=amount)
        for length, amount in zip(value.shape, before, strict=True)
    ]
    gather = context.gather_windows(value, held, windows, fill=float(layer.value))
    return _divided(context, gather, nn.Identity(), held)


def _divided(context: Context, gather: Gather, compute: nn.Module, held: Layout) -> Divided:
    out = sizes(held.box(context.rank))
    return Divided(held, [gather], [EmptyPart(compute, out) if 0 in out else compute])


def _gather(
    context: Context,
    value: Value,
    held: Layout,
    windows: Sequence[Window | None],
    fill: float = 0.0,
) -> Gather:
    return context.gather_windows(value, held, [None, *windows], lambda _, own: own, fill)


def _windows(
    held: Layout, shape: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> list[Window | None]:
    """Windows of rows and columns; None where the dim is not divided."""
    return [
        _window(shape[dim + 1], kernel[dim], stride[dim], padding[dim], dilation[dim])
        if held.splits[dim + 1].axes
        else None
        for dim in (0, 1)
    ]


def _window(length: int, kernel: int, stride: int, before: int, dilation: int) -> Window:
    return Window(length=length, kernel=kernel, stride=stride, before=before, dilation=dilation)


def _counts(
    own: Interval, length: int, kernel: int, stride: int, padding: int, *, padded: bool
) -> Tensor:
    """How many cells of the input each of a rank's windows counts, along one dim."""
    counts = []
    for place in range(*own):
        start = place * stride - padding
        stop = min(start + kernel, length + padding)
        counts.append(stop - start if padded else min(stop, length) - max(start, 0))
    return torch.tensor(counts, dtype=torch.float64)


def _adaptive_need(own: Interval, length: int, out: int) -> Interval:
    if own[1] <= own[0]:
        return 0, 0
    return own[0] * length // out, -(-own[1] * length // out)


def _adaptive_windows(own: Interval, length: int, out: int) -> list[Interval]:
    """A rank's windows, counted from the first cell that it needs."""
    first, _ = _adaptive_need(own, length, out)
    return [
        (place * length // out - first, -(-(place + 1) * length // out) - first)
        for place in range(*own)
    ]


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
