"""What passes between the layers of a divided network, while it is planned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from sixfold.distributed.process_group import Communicator
from sixfold.training.layers.calls import LAYERS
from sixfold.training.strategies.model_parallel.exchange import NO_PADDING, Padding
from sixfold.training.strategies.model_parallel.exchange_ops import Gather, ReduceScatter
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import Box, Interval, Layout, everywhere
from sixfold.training.strategies.model_parallel.local import ChannelBias, EmptyPart, LocalLayer
from sixfold.training.strategies.model_parallel.window import Window

Shape = tuple[int, int, int]
"""Channels, rows and columns of one sample; features are (F, 1, 1)."""


@dataclass(frozen=True)
class Value:
    """A tensor between two layers.

    Attributes:
        layout: who holds what of its (C, H, W).
        flat: whether the network sees it as (n, C*H*W).
        raw: whether it is the network's input, of which every rank can have any part.
    """

    layout: Layout
    flat: bool = False
    raw: bool = False

    @property
    def shape(self) -> Shape:
        """(C, H, W) of the whole."""
        channels, rows, columns = self.layout.shape
        return channels, rows, columns


@dataclass(frozen=True)
class Divided:
    """What one rank computes of a layer: operations in order, exchanges among them.

    Attributes:
        layout: of the output.
        gathers: what brings the inputs, one for each.
        layers: what is computed then, in line.
        owner: has the rank's parts of parameters and buffers, if there are any.
        kind: what the inputs are joined to (`sixfold.training.layers.calls`).
    """

    layout: Layout
    gathers: list[Gather]
    layers: list[nn.Module]
    owner: LocalLayer | None = None
    kind: str = LAYERS


Division = Callable[["Context", nn.Module, Sequence[Value], Shape], Divided]
"""Divides one layer: (context, the layer, its inputs, shape of its output) -> its operations."""


@dataclass
class Context:
    """What the division of a layer needs to know.

    Attributes:
        group: the ranks that divide the network.
        mesh: their axes, as the layer that is being divided has them.
        name: of the layer that is being divided.
        divides_outputs: whether a linear layer is to divide its output features.
        is_last: whether the layer gives the network's output, which every rank must get whole.
        raw_gathers: gathers from the network's input so far.
    """

    group: Communicator
    mesh: Mesh
    name: str = ""
    divides_outputs: bool = False
    is_last: bool = False
    raw_gathers: list[Gather] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """This rank of the group."""
        return self.group.rank

    def target(self, usual: Layout) -> Layout:
        """The layout that a layer's output should have."""
        return everywhere(self.mesh, usual.shape) if self.is_last else usual

    def gather(
        self,
        value: Value,
        needs: list[Box],
        *,
        like: Layout | None = None,
        padding: Padding = NO_PADDING,
        fill: float = 0.0,
    ) -> Gather:
        """What brings every rank the box of `value` that it needs.

        `like` is a layout along whose copies ranks compute the same thing from the same box.
        """
        found = Gather(
            self.group,
            value.layout,
            needs,
            duplicated=frozenset() if like is None else like.copied,
            needed_by=self.mesh if like is None else like.mesh,
            padding=padding,
            fill=fill,
        )
        if value.raw:
            self.raw_gathers.append(found)
        return found

    def gather_as(self, value: Value, layout: Layout) -> Gather:
        """What brings a value into another layout."""
        return self.gather(value, layout.boxes(), like=layout)

    def gather_windows(
        self,
        value: Value,
        held: Layout,
        windows: Sequence[Window | None],
        channels: Callable[[int, Interval], Interval] | None = None,
        fill: float = 0.0,
    ) -> Gather:
        """What brings every rank the input of its part of a layer's output.

        Args:
            value: the input.
            held: how the output is divided while it is computed.
            windows: for C, H and W how the output follows from the input; None if the layer
                takes the whole dim and minds its borders itself.
            channels: (rank, its output channels) -> the channels it needs, where `windows[0]` is
                None.
            fill: value of the padding.
        """
        needs: list[Box] = []
        padding = NO_PADDING
        for rank, out in enumerate(held.boxes()):
            found = [
                ((0, length), (0, 0)) if window is None else window.need(interval)
                for window, interval, length in zip(windows, out, value.shape, strict=True)
            ]
            if channels is not None:
                found[0] = (channels(rank, out[0]), (0, 0))
            if any(stop <= start for start, stop in out):
                found = [((0, 0), (0, 0))] * 3
            needs.append(tuple(interval for interval, _ in found))
            if rank == self.rank:
                padding = tuple(pads for _, pads in found)
        return self.gather(value, needs, padding=padding, fill=fill)

    def scatter(self, held: Layout, target: Layout, summed: frozenset[str]) -> ReduceScatter | None:
        """What brings sums from the layout in which they were computed into another.

        Args:
            held: how the sums are divided.
            target: layout of the result.
            summed: axes along which ranks hold summands of the same sums.

        Returns:
            None if there is nothing to add and the layouts agree.
        """
        summed = summed & frozenset(self.mesh.axes)
        if held == target and not summed:
            return None
        return ReduceScatter(self.group, held.boxes(), target, duplicated=held.copied - summed)

    def finished(
        self,
        gathers: list[Gather],
        layers: list[nn.Module],
        scatter: ReduceScatter | None,
        layout: Layout,
        owner: LocalLayer | None = None,
    ) -> Divided:
        """A layer with what comes behind it: sums over ranks, and only then a bias."""
        has_bias = owner is not None and getattr(owner, "bias", None) is not None
        if scatter is not None:
            layers = [*layers, scatter]
            if has_bias:
                layers.append(ChannelBias())
        if owner is not None and has_bias:
            inner = layers[-1]
            owner.give(inner.layer if isinstance(inner, EmptyPart) else inner, "bias")
        return Divided(layout, gathers, layers, owner)

    def subgroup(self, axes: frozenset[str]) -> Communicator | None:
        """The ranks that differ from this one along `axes`; None if there are none."""
        ranks = self.mesh.group(self.rank, axes)
        return self.group.subgroup(ranks) if len(ranks) > 1 else None
