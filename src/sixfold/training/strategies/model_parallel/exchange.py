"""Exchanges of tensors between the ranks of a model-parallel group, with their adjoints.

Every activation is held as (n, C, H, W), features as (n, F, 1, 1); n samples are never divided
here. `gather` and `add` are transposes of each other (see
`sixfold.training.strategies.model_parallel.move`), so each is the other's backward pass. On the
wire a box travels as (n, H, W, C), the order in which networks are computed, so that a halo of rows
is a few long stretches of memory.

What a divided network does with them: `sixfold.training.strategies.model_parallel.exchange_ops`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sixfold.distributed.collectives import rank_all_reduce
from sixfold.distributed.logical_shards import Node
from sixfold.distributed.process_group import Communicator
from sixfold.training.strategies.model_parallel.layout import Box, Interval, sizes
from sixfold.training.strategies.model_parallel.move import Move, Pieces

Padding = tuple[Interval, ...]
"""For every dim (C, H, W), how much is added in front of it and behind it."""

NO_PADDING: Padding = ((0, 0), (0, 0), (0, 0))


def gather(
    comm: Communicator, x: Tensor, move: Move, padding: Padding = NO_PADDING, fill: float = 0.0
) -> Tensor:
    """Fetch what this rank needs from its owners.

    Args:
        comm: the group.
        x: (n, *sizes of `move.own`).
        move: this rank's part in the exchange.
        padding: cells added around what is needed.
        fill: their value.

    Returns:
        (n, *sizes of `move.need` and padding), in the memory format of `x`.
    """
    y, end = start_gather(comm, x, move, padding, fill)
    end()
    return y


def start_gather(
    comm: Communicator, x: Tensor, move: Move, padding: Padding = NO_PADDING, fill: float = 0.0
) -> tuple[Tensor, Callable[[], None]]:
    """Begin `gather`: its result, of which the rank's own part and the padding are there already.

    Returns:
        The result, and what waits for the rest of it; until then `x` must stay as it is.
    """
    gives, takes, kept = _places(move, padding, comm.rank)
    inner = zip(sizes(move.need), padding, strict=True)
    padded = [size + before + after for size, (before, after) in inner]
    y = torch.empty((len(x), *padded), dtype=x.dtype, memory_format=_format_of(x))
    if padding != NO_PADDING:
        _fill_edges(y, sizes(move.need), padding, fill)
    own, found = _array(x), _array(y)
    sends = {peer: np.ascontiguousarray(own[box]) for peer, box in gives}
    targets = {peer: found[box] for peer, box in takes}
    receives = {peer: _room(target) for peer, target in targets.items()}
    finish = comm.start(sends, receives)
    for source, place in kept:
        found[place] = own[source]

    def end() -> None:
        finish()
        for peer, target in targets.items():
            if receives[peer] is not target:
                target[...] = receives[peer]

    return y, end


def add(comm: Communicator, y: Tensor, move: Move, padding: Padding = NO_PADDING) -> Tensor:
    """Add up, in the order of the ranks, what all hold of this rank's box.

    Args:
        comm: the group.
        y: (n, *sizes of `move.need` and padding); the padding is left out.
        move: this rank's part in the exchange.
        padding: as for `gather`.

    Returns:
        (n, *sizes of `move.own`); zero where nobody holds anything.
    """
    return start_add(comm, y, move, padding)()


def start_add(
    comm: Communicator, y: Tensor, move: Move, padding: Padding = NO_PADDING
) -> Callable[[], Tensor]:
    """Begin `add`, and return what ends it with the sums; `y` must stay as it is until then."""
    if y.dtype == torch.bfloat16:  # sums want more bits
        wide = start_add(comm, y.float(), move, padding)
        return lambda: wide().to(y.dtype)
    collects, contributes, kept = _sum_places(move, padding, comm.rank)
    held = _array(y)
    sends = {peer: np.ascontiguousarray(held[box]) for peer, box in contributes}
    shape = (len(y), *sizes(move.own))
    x = torch.empty(shape, dtype=y.dtype, memory_format=_format_of(y))
    total = _array(x)
    receives = {peer: np.empty_like(total[box], order="C") for peer, box in collects}
    finish = comm.start(sends, receives)

    def end() -> Tensor:
        finish()
        pieces = [(peer, box, receives[peer]) for peer, box in collects]
        pieces += [(comm.rank, place, held[source]) for place, source in kept]
        pieces.sort(key=lambda piece: piece[0])
        whole = next((piece for piece in pieces if piece[2].shape == total.shape), None)
        # The first of two summands may be either: two numbers have one sum.
        if whole is None or (len(pieces) > 2 and whole is not pieces[0]):
            total[...] = 0
        else:
            total[...] = whole[2]
            pieces.remove(whole)
        for _, box, piece in pieces:
            total[box] += piece
        return x

    return end


class RankSum:
    """Sums of vectors over some of a group's ranks, in the order of the ranks.

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


Index = tuple[slice, ...]
Places = tuple[list[tuple[int, Index]], list[tuple[int, Index]], list[tuple[Index, Index]]]
"""Of arrays (n, H, W, C): what goes between this rank's own and others (peer, where), both ways,
and between its own and its own (where, where)."""


@lru_cache(maxsize=4096)
def _places(move: Move, padding: Padding, rank: int) -> Places:
    """Of `gather`: what it gives of its own, where it puts what it takes, what it keeps."""
    return _placed(move.gives, move.takes, move, padding, rank)


@lru_cache(maxsize=4096)
def _sum_places(move: Move, padding: Padding, rank: int) -> Places:
    """Of `add`: where in its own sums it adds what it collects, what it contributes, and both."""
    return _placed(move.collects, move.contributes, move, padding, rank)


def _placed(own: Pieces, other: Pieces, move: Move, padding: Padding, rank: int) -> Places:
    corner = [first - before for (first, _), (before, _) in zip(move.need, padding, strict=True)]
    start = [first for first, _ in move.own]
    kept = [box for peer, box in own if peer == rank and (peer, box) in other]
    return (
        [(peer, _index(box, start)) for peer, box in own if peer != rank],
        [(peer, _index(box, corner)) for peer, box in other if peer != rank],
        [(_index(box, start), _index(box, corner)) for box in kept],
    )


def _index(box: Box, corner: Sequence[int]) -> Index:
    """Where a box (C, H, W) lies in an array (n, H, W, C) that begins at a corner."""
    channels, rows, columns = (
        slice(low - first, high - first) for (low, high), first in zip(box, corner, strict=True)
    )
    return slice(None), rows, columns, channels


def _array(x: Tensor) -> NDArray[Any]:
    """(n, C, H, W) as (n, H, W, C), the same memory; bfloat16, which NumPy lacks, as integers."""
    x = x.view(torch.int16) if x.dtype == torch.bfloat16 else x
    array: NDArray[Any] = x.permute(0, 2, 3, 1).numpy()
    return array


def _room(target: NDArray[Any]) -> NDArray[Any]:
    """Memory for a message: the target itself if it is one stretch."""
    return target if target.flags.c_contiguous else np.empty_like(target, order="C")


def _format_of(x: Tensor) -> torch.memory_format:
    """The order of a tensor's dims in memory; of one channel, that which its strides tell."""
    if x.is_contiguous(memory_format=torch.channels_last):
        rows, columns = x.shape[2:]
        if not x.is_contiguous() or (x.stride(1) == 1 and rows * columns > 1):
            return torch.channels_last
    return torch.contiguous_format


def _fill_edges(y: Tensor, inner: tuple[int, ...], padding: Padding, fill: float) -> None:
    for dim, (size, (before, after)) in enumerate(zip(inner, padding, strict=True), start=1):
        if before:
            y.narrow(dim, 0, before).fill_(fill)
        if after:
            y.narrow(dim, before + size, after).fill_(fill)
