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

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.errors import UnsupportedError
from sixfold.models.graph.operations import Operation, register_operation
from sixfold.training.layers.convolution import ConvOp
from sixfold.training.layers.explicit import EXPLICIT, Weights, weight_and_bias
from sixfold.training.layers.operations import LayerOp
from sixfold.training.strategies.model_parallel.layout import (
    CHANNEL_AXES,
    Interval,
    Layout,
    even,
    is_empty,
    maps,
    sizes,
    whole,
)
from sixfold.training.strategies.model_parallel.local import EmptyPart, LocalLayer
from sixfold.training.strategies.model_parallel.part import Part
from sixfold.training.strategies.model_parallel.value import Context, Divided, Shape, Value
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


class LocalConv(nn.Module):
    """A rank's part of a convolution, of input that is there.

    Args:
        conv: the convolution.
        padding: of rows and columns that are not fetched with it.
        parts: runs of output channels, one call each.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, padding: tuple[int, int], parts: list[Segment]) -> None:
        super().__init__()
        self.register_parameter("bias", None)
        self.kernel_size, self.stride, self.dilation = conv.kernel_size, conv.stride, conv.dilation
        self.padding, self.groups = padding, parts[0].groups
        self.out_channels = parts[-1].outputs[1]
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, K, O, P)."""
        if len(self.parts) == 1:
            return self._convolve(x, self.weight, self.bias, self.groups)
        found = []
        for (start, stop), (low, high), groups in self.parts:
            bias = None if self.bias is None else self.bias[start:stop]
            found.append(self._convolve(x[:, low:high], self.weight[start:stop], bias, groups))
        return torch.cat(found, 1)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)


def _explicit(layer: LocalConv, weights: Weights) -> LayerOp | None:
    return ConvOp(layer, *weight_and_bias(layer, weights)) if len(layer.parts) == 1 else None


LOCAL_CONV = register_operation(Operation(name="local_conv2d", modules=(LocalConv,)))
EXPLICIT[LOCAL_CONV] = _explicit


def divide_conv(context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape) -> Divided:
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

    gather = context.gather_windows(value, held, windows, channels)
    target = context.target(maps(mesh, out))
    summed = frozenset(shares.axes if groups == 1 else ())
    scatter = context.scatter(held, target, summed)
    box = held.box(context.rank)
    kernel = [whole(size) for size in layer.kernel_size]
    weights = Layout(
        mesh, (held.splits[0], shares if groups == 1 else whole(inputs_per_group), *kernel)
    )
    owner = LocalLayer(context.rank)
    owner.hold("weight", layer.weight, Part(tuple(layer.weight.shape), weights, held.spatial))
    biases = Layout(mesh, (target.splits[0],))
    owner.hold("bias", layer.bias, Part((out[0],), biases, target.spatial))
    parts = segments(box[0], per_group, inputs_per_group)
    made = LocalConv(layer, padding, parts or [Segment((0, 0), (0, 0), 1)])
    owner.give(made, "weight")
    empty = is_empty(box) or (groups == 1 and is_empty((channels(context.rank, box[0]),)))
    layers: list[nn.Module] = [EmptyPart(made, sizes(box)) if empty else made]
    return context.finished([gather], layers, scatter, target, owner)


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
