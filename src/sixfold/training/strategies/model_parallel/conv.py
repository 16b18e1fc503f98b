"""Convolutions, divided by output channels, input channels, rows and columns.

The output is divided: K over `cout`, rows over `rows`, columns over `cols`. Each rank fetches the
input of its part (halos of rows and columns with their corners, see
`sixfold.training.strategies.model_parallel.window`). Along `cin` the sum over input channels is
divided: ranks have partial sums, which are added in the order of the ranks and left divided by K
over `cout` and `cin`.

With groups (AlexNet), and in depthwise layers where every channel is its own group, there is no
sum over all channels to divide: K is divided over `cout` and `cin` together, and a rank needs only
the channels of its own groups. Where these are what it holds, nothing is exchanged.

Legend: n samples, C H W of the input, K output channels, R S kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.errors import UnsupportedError
from sixfold.training.strategies.model_parallel.exchange import Fetch, Total, nothing
from sixfold.training.strategies.model_parallel.layout import (
    CHANNEL_AXES,
    Interval,
    Layout,
    even,
    maps,
    sizes,
    whole,
)
from sixfold.training.strategies.model_parallel.local import LocalLayer
from sixfold.training.strategies.model_parallel.part import Part
from sixfold.training.strategies.model_parallel.value import Context, Shape, Value
from sixfold.training.strategies.model_parallel.window import Window


class Segment(NamedTuple):
    """A run of output channels that one call computes: bounds within the rank's own channels."""

    outputs: Interval
    inputs: Interval
    groups: int


def segments(outputs: Interval, per_group: int, inputs_per_group: int) -> list[Segment]:
    """Cut a rank's output channels at the borders of groups, whole groups together.

    Args:
        outputs: the rank's output channels.
        per_group: output channels of a group.
        inputs_per_group: input channels of a group.

    >>> for segment in segments((3, 10), per_group=4, inputs_per_group=2):
    ...     print(segment)
    Segment(outputs=(0, 1), inputs=(0, 2), groups=1)
    Segment(outputs=(1, 5), inputs=(2, 4), groups=1)
    Segment(outputs=(5, 7), inputs=(4, 6), groups=1)
    """
    start, stop = outputs
    first = start // per_group
    found, at = [], start
    while at < stop:
        group = at // per_group
        until = stop // per_group * per_group
        if at % per_group or until <= at:  # a part of a group
            end = min((group + 1) * per_group, stop)
            count = 1
        else:
            end, count = until, until // per_group - group
        low = (group - first) * inputs_per_group
        found.append(
            Segment((at - start, end - start), (low, low + count * inputs_per_group), count)
        )
        at = end
    return found


class LocalConv(LocalLayer):
    """A rank's part of a convolution."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        rank: int,
        conv: nn.Conv2d,
        fetch: Fetch,
        total: Total | None,
        held: Layout,
        target: Layout,
        padding: tuple[int, int],
    ) -> None:
        super().__init__(rank)
        mesh, groups = held.mesh, conv.groups
        self._fetch, self._total = fetch, total
        self._stride, self._dilation, self._padding = conv.stride, conv.dilation, padding
        self._out = sizes(held.box(rank))
        channels = conv.in_channels // groups
        inputs = even(channels, mesh, ("cin",)) if groups == 1 else whole(channels)
        kernel = [whole(size) for size in conv.kernel_size]
        weights = Layout(mesh, (held.splits[0], inputs, *kernel))
        self.hold("weight", conv.weight, Part(tuple(conv.weight.shape), weights, held.spatial))
        biases = Layout(mesh, (target.splits[0],))
        self.hold("bias", conv.bias, Part((conv.out_channels,), biases, target.spatial))
        self._segments = segments(held.box(rank)[0], conv.out_channels // groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *own input) -> (n, *own output)."""
        x = self._fetch(x)
        own_bias = None if self._total is not None else self.bias
        if 0 in self._out or x.shape[1] == 0:
            y = nothing(len(x), self._out, x, self.weight)
            if own_bias is not None:
                y = y + own_bias.view(-1, 1, 1)
        elif len(self._segments) == 1:
            y = self._convolve(x, self.weight, own_bias, self._segments[0].groups)
        else:
            y = torch.cat([self._segment(x, own_bias, part) for part in self._segments], 1)
        if self._total is not None:
            y = self._total(y)
            if self.bias is not None:
                y = y + self.bias.view(-1, 1, 1)
        return y

    def _segment(self, x: Tensor, bias: Tensor | None, part: Segment) -> Tensor:
        (start, stop), (low, high) = part.outputs, part.inputs
        own = None if bias is None else bias[start:stop]
        return self._convolve(x[:, low:high], self.weight[start:stop], own, part.groups)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return functional.conv2d(
            x, weight, bias, self._stride, self._padding, self._dilation, groups
        )


def divide_conv(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> tuple[nn.Module, Layout]:
    """Divide a convolution."""
    assert isinstance(layer, nn.Conv2d)
    if layer.padding_mode != "zeros":
        raise UnsupportedError(
            f"padding_mode={layer.padding_mode!r} cannot be divided: use padding_mode='zeros'"
        )
    (value,), mesh, groups = inputs, context.mesh, layer.groups
    held = Layout(
        mesh,
        (
            even(out[0], mesh, CHANNEL_AXES if groups > 1 else ("cout",)),
            even(out[1], mesh, ("rows",)),
            even(out[2], mesh, ("cols",)),
        ),
    )
    windows, padding = _windows(layer, value.shape, held)
    per_group, inputs_per_group = out[0] // groups, value.shape[0] // groups
    shares = even(value.shape[0], mesh, ("cin",))

    def channels(rank: int, outputs: Interval) -> Interval:
        if groups == 1:
            place = mesh.place(rank, shares.axes)
            return shares.cuts[place], shares.cuts[place + 1]
        first, last = outputs[0] // per_group, -(-outputs[1] // per_group)
        return first * inputs_per_group, last * inputs_per_group

    fetch = context.fetch_windows(value, held, windows, channels)
    target = context.target(maps(mesh, out))
    summed = frozenset(shares.axes if groups == 1 else ())
    total = context.total(held, target, summed)
    return LocalConv(context.rank, layer, fetch, total, held, target, padding), target


def _windows(
    layer: nn.Conv2d, shape: Shape, held: Layout
) -> tuple[list[Window | None], tuple[int, int]]:
    """How rows and columns are looked at, and what the convolution itself pads."""
    windows: list[Window | None] = [None]
    native = []
    for dim in (0, 1):
        dilation, kernel = layer.dilation[dim], layer.kernel_size[dim]
        if isinstance(layer.padding, str):
            total = dilation * (kernel - 1) if layer.padding == "same" else 0
            before, after = total // 2, total - total // 2
        else:
            before = after = int(layer.padding[dim])
        if not held.splits[dim + 1].axes and before == after:
            windows.append(None)
            native.append(before)
            continue
        native.append(0)
        windows.append(
            Window(
                length=shape[dim + 1],
                kernel=kernel,
                stride=layer.stride[dim],
                before=before,
                dilation=dilation,
            )
        )
    return windows, (native[0], native[1])
