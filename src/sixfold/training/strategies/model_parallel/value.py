"""What passes between the layers of a divided network, while it is planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from sixfold.distributed.process_group import Communicator
from sixfold.training.strategies.model_parallel.exchange import (
    NO_PADDING,
    Fetch,
    Padding,
    RankSum,
    Total,
)
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import Box, Interval, Layout, everywhere
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


Division = Callable[["Context", nn.Module, Sequence[Value], Shape], tuple[nn.Module, Layout]]
"""Divides one layer: (context, the layer, its inputs, shape of its output) -> what one rank
computes, and the layout of the output."""


@dataclass
class Context:
    """What the division of a layer needs to know.

    Attributes:
        tile: the ranks that divide the network.
        mesh: their axes.
        name: of the layer that is being divided.
        is_last: whether the layer gives the network's output, which every rank must get whole.
        raw_fetches: fetches from the network's input so far.
    """

    tile: Communicator
    mesh: Mesh
    name: str = ""
    is_last: bool = False
    raw_fetches: list[Fetch] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """This rank of the tile."""
        return self.tile.rank

    def target(self, usual: Layout) -> Layout:
        """The layout that a layer's output should have."""
        return everywhere(self.mesh, usual.shape) if self.is_last else usual

    def fetch(
        self,
        value: Value,
        needs: list[Box],
        *,
        duplicated: frozenset[str] = frozenset(),
        padding: Padding = NO_PADDING,
        fill: float = 0.0,
    ) -> Fetch:
        """What brings every rank the box of `value` that it needs."""
        fetch = Fetch(
            self.tile, value.layout, needs, duplicated=duplicated, padding=padding, fill=fill
        )
        if value.raw:
            self.raw_fetches.append(fetch)
        return fetch

    def fetch_as(self, value: Value, layout: Layout) -> Fetch:
        """What brings a value into another layout."""
        return self.fetch(value, layout.boxes(), duplicated=layout.copied)

    def fetch_windows(
        self,
        value: Value,
        held: Layout,
        windows: Sequence[Window | None],
        channels: Callable[[int, Interval], Interval] | None = None,
        fill: float = 0.0,
    ) -> Fetch:
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
        return self.fetch(value, needs, padding=padding, fill=fill)

    def total(self, held: Layout, target: Layout, summed: frozenset[str]) -> Total | None:
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
        return Total(self.tile, held.boxes(), target, duplicated=held.copied - summed)

    def rank_sum(self, axes: frozenset[str]) -> RankSum | None:
        """Sums over the ranks that differ from this one along `axes`; None if there are none."""
        ranks = self.mesh.group(self.rank, axes)
        return RankSum(self.tile.subgroup(ranks)) if len(ranks) > 1 else None
