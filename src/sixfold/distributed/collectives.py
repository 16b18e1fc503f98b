"""Sums and gathers over the ranks of a `Communicator`, in a fixed order.

All-reduce is a reduce-scatter followed by an all-gather, each rank adding one slice of the vector
for everybody, element by element in the tree of `logical_shards`: neither the number of ranks nor
the place of the cuts can alter a bit. Every rank sends about twice the vector.
"""

import functools
import json
import operator
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

    `partials` are this rank's nodes, the cover of its run of the `count` shards, as `TreeFold`
    leaves them. A rank without shards must give `out`, for the result.
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
    """The same with one summand a rank: less traffic, other bits for another number of ranks."""
    covers = [
        [Node(0, rank)] if owned_shards(count, comm.size, rank) else [] for rank in range(comm.size)
    ]
    own = [_fold(list(partials), None)] if partials else []
    return _slice_all_reduce(comm, own, covers, None, out)


def _slice_all_reduce(
    comm: Communicator,
    own: list[Vector],
    covers: list[list[Node]],
    count: int | None,
    out: Vector | None,
) -> Vector:
    """Reduce-scatter by slices, then all-gather; `count` as for `_fold`."""
    vector = own[0] if own else out  # an idle rank has no summand
    if vector is None:
        raise ValueError(f"rank {comm.rank} owns no shard and must give `out`")
    length, dtype = len(vector), vector.dtype
    result = np.empty(length, dtype) if out is None else out
    if comm.size == 1:
        result[:] = _fold(list(zip(covers[0], own, strict=True)), count)
        return result
    if [len(cover) for cover in covers] == [1, 1] and not np.may_share_memory(own[0], result):
        # Without copies: two numbers have the same sum in either order, to the bit.
        comm.exchange({1 - comm.rank: own[0]}, {1 - comm.rank: result})
        return np.add(own[0], result, out=result)
    small = goes_whole(length * dtype.itemsize, comm.size)
    cuts = [rank * length // comm.size for rank in range(comm.size + 1)]
    slices = [slice(0, length) if small else slice(a, b) for a, b in pairwise(cuts)]
    mine = slices[comm.rank]

    sends = {}
    for rank in comm.others:
        if len(own) == 1:
            sends[rank] = own[0][slices[rank]]
        elif own:
            sends[rank] = np.concatenate([value[slices[rank]] for value in own])
    width = mine.stop - mine.start
    receives = {
        rank: np.empty((len(covers[rank]), width), dtype) for rank in comm.others if covers[rank]
    }
    comm.exchange(sends, receives)

    nodes: list[tuple[Node, Vector]] = []
    for rank in range(comm.size):
        values = [value[mine] for value in own] if rank == comm.rank else receives.get(rank, ())
        nodes += zip(covers[rank], values, strict=True)
    result[mine] = _fold(nodes, count)
    if not small:
        _to_all(comm, result[mine], {rank: result[slices[rank]] for rank in comm.others})
    return result


def _fold(nodes: list[tuple[Node, Vector]], count: int | None) -> Vector:
    """Add nodes given from left to right: in the tree over `count` shards, or plainly if None.

    The values may be overwritten.
    """
    if count is None:
        return functools.reduce(operator.iadd, [value for _, value in nodes])
    fold: TreeFold[Vector] = TreeFold(operator.iadd)
    for node, value in nodes:
        fold.push(node, value)
    return fold.root(count)


def _to_all(
    comm: Communicator, own: NDArray[Any], received: dict[int, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Send one array to all others and fill theirs; all arrays, by rank."""
    comm.exchange(dict.fromkeys(comm.others, own), received)
    return [own if rank == comm.rank else received[rank] for rank in range(comm.size)]


def all_gather(comm: Communicator, array: NDArray[Any]) -> list[NDArray[Any]]:
    """Every rank's array, by rank; the arrays must have one shape and dtype."""
    array = np.ascontiguousarray(array)
    return _to_all(comm, array, {rank: np.empty_like(array) for rank in comm.others})


def all_gather_int(comm: Communicator, value: int) -> list[int]:
    """Every rank's integer, by rank."""
    return [int(array[0]) for array in all_gather(comm, np.array([value], np.int64))]


def gather(comm: Communicator, array: NDArray[Any], *, root: int = 0) -> list[NDArray[Any]]:
    """Every rank's array at `root`, by rank; they may differ in their first dimension only."""
    array = np.ascontiguousarray(array)
    lengths = all_gather_int(comm, len(array))
    if comm.rank != root:
        comm.exchange({root: array}, {})
        return []
    received = {
        rank: np.empty((lengths[rank], *array.shape[1:]), array.dtype) for rank in comm.others
    }
    comm.exchange({}, received)
    return [array if rank == root else received[rank] for rank in range(comm.size)]


def all_gather_data(comm: Communicator, data: Any) -> list[Any]:
    """Every rank's plain data (what JSON holds), by rank."""
    payload = np.frombuffer(json.dumps(data).encode(), np.uint8)
    lengths = all_gather_int(comm, len(payload))
    received = {rank: np.empty(lengths[rank], np.uint8) for rank in comm.others}
    return [json.loads(found.tobytes()) for found in _to_all(comm, payload, received)]
