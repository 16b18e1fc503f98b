"""Exchanges of tensors between the ranks of a tile, with their adjoints.

Every activation is held as (n, C, H, W), features as (n, F, 1, 1); n samples are never divided
here. `gather` and `add` are transposes of each other (see
`sixfold.training.strategies.model_parallel.move`), so each is the other's backward pass. On the
wire a box travels as (n, H, W, C), the order in which networks are computed, so that a halo of rows
is a few long stretches of memory.

Exchanges are operations like any other (`sixfold.training.layers.explicit`): the executor that runs
undivided networks runs them between the layers of a divided one. All ranks of a tile run the same
operations in the same order, forward and backward, also a rank that holds nothing, so they meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sixfold.distributed.collectives import rank_all_reduce
from sixfold.distributed.logical_shards import Node
from sixfold.distributed.process_group import Communicator
from sixfold.models.graph.operations import Operation, register_operation
from sixfold.training.layers.explicit import EXPLICIT
from sixfold.training.strategies.model_parallel.layout import Box, Interval, Layout, sizes, slices
from sixfold.training.strategies.model_parallel.move import Move, plan

Padding = tuple[Interval, ...]
"""For every dim (C, H, W), how much is added in front of it and behind it."""

NO_PADDING: Padding = ((0, 0), (0, 0), (0, 0))


def gather(
    comm: Communicator, x: Tensor, move: Move, padding: Padding = NO_PADDING, fill: float = 0.0
) -> Tensor:
    """Fetch what this rank needs from its owners.

    Args:
        comm: the tile.
        x: (n, *sizes of `move.own`).
        move: this rank's part in the exchange.
        padding: cells added around what is needed.
        fill: their value.

    Returns:
        (n, *sizes of `move.need` and padding), in the memory format of `x`.
    """
    me, n = comm.rank, len(x)
    sends = {peer: _pack(x, move.own, box) for peer, box in move.gives if peer != me}
    receives = {peer: _buffer(n, box, x.dtype) for peer, box in move.takes if peer != me}
    comm.exchange(sends, receives)
    inner = sizes(move.need)
    padded = [size + before + after for size, (before, after) in zip(inner, padding, strict=True)]
    y = torch.empty((n, *padded), dtype=x.dtype, memory_format=_format_of(x))
    _fill_edges(y, inner, padding, fill)
    core = _core(y, inner, padding)
    for peer, box in move.takes:
        piece = _cut(x, move.own, box) if peer == me else _unpack(receives[peer])
        _cut(core, move.need, box).copy_(piece)
    return y


def add(comm: Communicator, y: Tensor, move: Move, padding: Padding = NO_PADDING) -> Tensor:
    """Add up, in the order of the ranks, what all hold of this rank's box.

    Args:
        comm: the tile.
        y: (n, *sizes of `move.need` and padding); the padding is left out.
        move: this rank's part in the exchange.
        padding: as for `gather`.

    Returns:
        (n, *sizes of `move.own`); zero where nobody holds anything.
    """
    me, n = comm.rank, len(y)
    core = _core(y, sizes(move.need), padding)
    sends = {peer: _pack(core, move.need, box) for peer, box in move.contributes if peer != me}
    receives = {peer: _buffer(n, box, y.dtype) for peer, box in move.collects if peer != me}
    comm.exchange(sends, receives)
    pieces = [
        (box, _cut(core, move.need, box) if peer == me else _unpack(receives[peer]))
        for peer, box in move.collects
    ]
    if len(pieces) == 1 and pieces[0][0] == move.own:
        return pieces[0][1].contiguous(memory_format=_format_of(y))
    x = torch.zeros((n, *sizes(move.own)), dtype=y.dtype).contiguous(memory_format=_format_of(y))
    for box, piece in pieces:
        _cut(x, move.own, box).add_(piece)
    return x


class Gather(nn.Module):
    """What a divided layer does to its input first: a halo exchange or an all-gather, and padding.

    Args:
        comm: the tile.
        owned: layout of the input.
        needs: box of every rank.
        duplicated: see `sixfold.training.strategies.model_parallel.move.plan`.
        padding: of this rank.
        fill: value of the padding.

    Attributes:
        move: this rank's part in the exchange.
    """

    def __init__(
        self,
        comm: Communicator,
        owned: Layout,
        needs: list[Box],
        *,
        duplicated: Iterable[str] = (),
        padding: Padding = NO_PADDING,
        fill: float = 0.0,
    ) -> None:
        super().__init__()
        self.comm, self.padding, self.fill = comm, padding, fill
        self.move = plan(comm.rank, owned, needs, duplicated)

    @property
    def is_trivial(self) -> bool:
        """Whether this rank has what it needs, and nobody needs anything of it."""
        return self.padding == NO_PADDING and self.move.is_trivial(self.comm.rank)

    def hold(self, box: Box) -> None:
        """Say that this rank holds `box` of the network's input, in which all it needs lies.

        The input has no gradient, so nothing comes back.
        """
        self.move = dataclasses.replace(self.move, own=box, collects=(), contributes=())

    def forward(self, x: Tensor) -> Tensor:
        """(n, *own) -> (n, *need and padding)."""
        return gather(self.comm, x, self.move, self.padding, self.fill)


class ReduceScatter(nn.Module):
    """What a divided layer does to partial sums: add them up into the layout of its output.

    Args:
        comm: the tile.
        held: box of the output for which each rank holds partial sums.
        target: layout of the output.
        duplicated: axes along which ranks hold the same sums, not summands.
    """

    def __init__(
        self, comm: Communicator, held: list[Box], target: Layout, *, duplicated: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.comm = comm
        self.move = plan(comm.rank, target, held, duplicated)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *held) -> (n, *own)."""
        return add(self.comm, x, self.move)


class GatherOp:
    """`Gather`; what was fetched is sent back and added in the backward pass."""

    has_weights = False

    def __init__(self, layer: Gather) -> None:
        self._layer = layer

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - costs nothing
        """(n, *own) -> (n, *need and padding)."""
        return self._layer(x), None

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """(n, *need and padding) -> (n, *own)."""
        return add(self._layer.comm, grad, self._layer.move, self._layer.padding)


class ReduceScatterOp:
    """`ReduceScatter`; its backward pass gathers the gradient of all that was added."""

    has_weights = False

    def __init__(self, layer: ReduceScatter) -> None:
        self._layer = layer

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - costs nothing
        """(n, *held) -> (n, *own)."""
        return self._layer(x), None

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """(n, *own) -> (n, *held)."""
        return gather(self._layer.comm, grad, self._layer.move)


GATHER = register_operation(Operation(name="halo_exchange", modules=(Gather,)))
REDUCE_SCATTER = register_operation(Operation(name="reduce_scatter", modules=(ReduceScatter,)))
EXPLICIT[GATHER] = lambda layer, _weights: GatherOp(layer)
EXPLICIT[REDUCE_SCATTER] = lambda layer, _weights: ReduceScatterOp(layer)


class RankSum:
    """Sums of vectors over some of a tile's ranks, in the order of the ranks.

    Args:
        group: the ranks that have a summand each, as a world of their own.
    """

    def __init__(self, group: Communicator) -> None:
        self._group = group

    def __call__(self, values: Tensor) -> Tensor:
        """(k,) -> (k,), the same bits on every rank of the group; the argument is kept."""
        group = self._group
        if group.size == 1:
            return values
        own = values.detach().contiguous().clone().numpy()
        total = rank_all_reduce(group, [(Node(0, group.rank), own)], group.size)
        return torch.from_numpy(total)


def _cut(x: Tensor, origin: Box, box: Box) -> Tensor:
    return x[(slice(None), *slices(box, origin))]


def _pack(x: Tensor, origin: Box, box: Box) -> NDArray[Any]:
    packed: NDArray[Any] = _cut(x.detach(), origin, box).permute(0, 2, 3, 1).contiguous().numpy()
    return packed


def _unpack(buffer: NDArray[Any]) -> Tensor:
    return torch.from_numpy(buffer).permute(0, 3, 1, 2)


def _buffer(n: int, box: Box, dtype: torch.dtype) -> NDArray[Any]:
    channels, rows, columns = sizes(box)
    return np.empty((n, rows, columns, channels), torch.empty(0, dtype=dtype).numpy().dtype)


def _format_of(x: Tensor) -> torch.memory_format:
    """The order of a tensor's dims in memory; of one channel, that which its strides tell."""
    if x.is_contiguous(memory_format=torch.channels_last):
        rows, columns = x.shape[2:]
        if not x.is_contiguous() or (x.stride(1) == 1 and rows * columns > 1):
            return torch.channels_last
    return torch.contiguous_format


def _core(y: Tensor, inner: tuple[int, ...], padding: Padding) -> Tensor:
    """The part of a padded tensor that is no padding, as a view."""
    if padding == NO_PADDING:
        return y
    for dim, (size, (before, _)) in enumerate(zip(inner, padding, strict=True), start=1):
        y = y.narrow(dim, before, size)
    return y


def _fill_edges(y: Tensor, inner: tuple[int, ...], padding: Padding, fill: float) -> None:
    for dim, (size, (before, after)) in enumerate(zip(inner, padding, strict=True), start=1):
        if before:
            y.narrow(dim, 0, before).fill_(fill)
        if after:
            y.narrow(dim, before + size, after).fill_(fill)
