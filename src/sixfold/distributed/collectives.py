"""Sums and gathers over the ranks of a `Communicator`, in a fixed order.

All-reduce is a reduce-scatter followed by an all-gather, each rank adding one slice of the vector
for everybody. The slices are added in the fixed tree of `sixfold.distributed.logical_shards`,
element by element, so neither the number of ranks nor the place of the cuts can alter a bit. Every
rank sends about twice the vector, whatever the number of ranks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.distributed.logical_shards import Node, TreeFold, cover, owned_shards
from sixfold.distributed.process_group import Communicator

Vector = NDArray[Any]

SMALL_BYTES = 16_384
"""Up to this size one exchange of everything beats two of slices: a message between two processes
costs tens of microseconds, moving 16 KB about two."""


def goes_whole(count_bytes: int, ranks: int) -> bool:
    """Whether ranks send each other all of a vector at once, instead of slices twice.

    Small vectors do; and those of two ranks, who send as much either way.

    >>> goes_whole(1000, 8), goes_whole(1_000_000, 8), goes_whole(1_000_000, 2)
    (True, False, True)
    """
    return count_bytes <= SMALL_BYTES or ranks == 2


def tree_all_reduce(
    comm: Communicator,
    partials: Sequence[tuple[Node, Vector]],
    count: int,
    *,
    out: Vector | None = None,
) -> Vector:
    """The sum (P,) over all logical shards: the same bits on every rank, for any number of ranks.

    `partials` are this rank's nodes, the cover of its run of the step's `count` shards, as
    `TreeFold` leaves them; the result goes to `out`, if given, which a rank without shards must
    give.
    """
    runs = [owned_shards(count, comm.size, rank) for rank in range(comm.size)]
    covers = [cover(run) for run in runs]
    assert [node for node, _ in partials] == covers[comm.rank], "partials are not the rank's run"
    return _slice_all_reduce(comm, [value for _, value in partials], covers, count, out)


def rank_all_reduce(
    comm: Communicator,
    partials: Sequence[tuple[Node, Vector]],
    count: int,
    *,
    out: Vector | None = None,
) -> Vector:
    """A sum with one summand a rank: less traffic, but bits that depend on the number of ranks.

    For `--deterministic false`. Arguments as for `tree_all_reduce`; ranks are added from left to
    right.
    """
    covers = [
        [Node(0, rank)] if owned_shards(count, comm.size, rank) else [] for rank in range(comm.size)
    ]
    own = [_add_up([value for _, value in partials])] if partials else []
    return _slice_all_reduce(comm, own, covers, None, out)


def _slice_all_reduce(
    comm: Communicator,
    own: list[Vector],
    covers: list[list[Node]],
    count: int | None,
    out: Vector | None,
) -> Vector:
    """Reduce-scatter by slices, then all-gather; `count` as for `_fold`."""
    length, dtype = _agree_on_length(comm, own, out)
    result = np.empty(length, dtype) if out is None else out
    if comm.size == 1:
        result[:] = _fold(list(zip(covers[0], own, strict=True)), count)
        return result
    if [len(cover) for cover in covers] == [1, 1] and not np.may_share_memory(own[0], result):
        return _pair_sum(comm, own[0], result)
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    small = goes_whole(length * dtype.itemsize, comm.size)
    cuts = [rank * length // comm.size for rank in range(comm.size + 1)]
    slices = [slice(0, length) if small else slice(a, b) for a, b in pairwise(cuts)]
    mine = slices[comm.rank]

    sends = {}
    for rank in others:
        if len(own) == 1:
            sends[rank] = own[0][slices[rank]]
        elif own:
            sends[rank] = np.concatenate([value[slices[rank]] for value in own])
    width = mine.stop - mine.start
    receives = {
        rank: np.empty((len(covers[rank]), width), dtype) for rank in others if covers[rank]
    }
    comm.exchange(sends, receives)

    nodes: list[tuple[Node, Vector]] = []
    for rank in range(comm.size):
        values = [value[mine] for value in own] if rank == comm.rank else receives.get(rank, ())
        nodes += zip(covers[rank], values, strict=True)
    result[mine] = _fold(nodes, count)
    if not small:
        comm.exchange(
            dict.fromkeys(others, result[mine]), {rank: result[slices[rank]] for rank in others}
        )
    return result


def _pair_sum(comm: Communicator, own: Vector, result: Vector) -> Vector:
    """The sum of two ranks' vectors, without copies but the messages'.

    Two numbers have the same sum in either order, to the bit.
    """
    peer = 1 - comm.rank
    comm.exchange({peer: own}, {peer: result})
    return np.add(own, result, out=result)


def _agree_on_length(
    comm: Communicator, own: list[Vector], out: Vector | None
) -> tuple[int, np.dtype[Any]]:
    """Length and dtype of the vector; an idle rank has no summand and tells by `out`."""
    vector = own[0] if own else out
    if vector is None:
        raise ValueError(f"rank {comm.rank} owns no shard and must give `out`")
    return len(vector), vector.dtype


def _fold(nodes: list[tuple[Node, Vector]], count: int | None) -> Vector:
    """Add nodes given from left to right: in the tree over `count` shards, or plainly if None.

    The values may be overwritten.
    """
    if count is None:
        return _add_up([value for _, value in nodes])
    fold: TreeFold[Vector] = TreeFold(_add)
    for node, value in nodes:
        fold.push(node, value)
    return fold.root(count)


def _add_up(values: Sequence[Vector]) -> Vector:
    total = values[0]
    for value in values[1:]:
        total = _add(total, value)
    return total


def _add(left: Vector, right: Vector) -> Vector:
    left += right
    return left


def all_gather(comm: Communicator, array: NDArray[Any]) -> list[NDArray[Any]]:
    """Every rank's array, by rank; the arrays must have one shape and dtype."""
    array = np.ascontiguousarray(array)
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    received = {rank: np.empty_like(array) for rank in others}
    comm.exchange(dict.fromkeys(others, array), received)
    return [array if rank == comm.rank else received[rank] for rank in range(comm.size)]


def all_gather_int(comm: Communicator, value: int) -> list[int]:
    """Every rank's integer, by rank."""
    return [int(array[0]) for array in all_gather(comm, np.array([value], np.int64))]


def gather(comm: Communicator, array: NDArray[Any], *, root: int = 0) -> list[NDArray[Any]]:
    """Every rank's array at `root`, by rank; elsewhere an empty list.

    The arrays may differ in their first dimension only.
    """
    array = np.ascontiguousarray(array)
    lengths = all_gather_int(comm, len(array))
    if comm.rank != root:
        comm.exchange({root: array}, {})
        return []
    received = {
        rank: np.empty((lengths[rank], *array.shape[1:]), array.dtype)
        for rank in range(comm.size)
        if rank != root
    }
    comm.exchange({}, received)
    return [array if rank == root else received[rank] for rank in range(comm.size)]


def all_gather_data(comm: Communicator, data: Any) -> list[Any]:
    """Every rank's plain data (what JSON holds), by rank."""
    payload = np.frombuffer(json.dumps(data).encode(), np.uint8)
    lengths = all_gather_int(comm, len(payload))
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    received = {rank: np.empty(lengths[rank], np.uint8) for rank in others}
    comm.exchange(dict.fromkeys(others, payload), received)
    received[comm.rank] = payload
    return [json.loads(received[rank].tobytes()) for rank in range(comm.size)]
