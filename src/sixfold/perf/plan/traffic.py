"""Bytes: what a rank sends in a step, exactly, from the rules by which the collectives cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sixfold.distributed.collectives import goes_whole
from sixfold.distributed.logical_shards import cover, owned_shards

Bytes = tuple[int, ...]
Exchanges = Sequence[tuple[Bytes, Bytes]]
Counts = Counter[tuple[Bytes, Bytes]]


class Phase(NamedTuple):
    """One exchange of a collective: with how many peers, and the most bytes a rank has for each."""

    peers: int
    each_bytes: float
    sent_bytes: float
    """By the busiest rank, to all peers together."""


def all_reduce_phases(payload_bytes: int, shards: int, ranks: int) -> list[Phase]:
    """The exchanges of `sixfold.distributed.collectives.tree_all_reduce`.

    Args:
        payload_bytes: size of the vector.
        shards: L, the logical shards of the step.
        ranks: how many; ranks beyond L have no summand, and help to add.

    >>> all_reduce_phases(1_000_000, 4, 2)
    [Phase(peers=1, each_bytes=1000000.0, sent_bytes=1000000.0)]
    >>> [phase.sent_bytes for phase in all_reduce_phases(1_000_000, 4, 3)]
    [666666.6666666666, 666666.6666666666]
    >>> all_reduce_phases(1000, 4, 3)
    [Phase(peers=2, each_bytes=1000.0, sent_bytes=2000.0)]
    """
    if ranks == 1:
        return []
    nodes = max(summands(shards, ranks))
    peers = ranks - 1
    if goes_whole(payload_bytes, ranks):
        each = float(nodes * payload_bytes)
        return [Phase(peers, each, peers * each)]
    part = payload_bytes / ranks
    return [
        Phase(peers, nodes * part, peers * nodes * part),
        Phase(peers, part, peers * part),
    ]


def summands(shards: int, ranks: int) -> list[int]:
    """How many partial sums each rank that owns shards has to send."""
    active = min(shards, ranks)
    return [len(cover(owned_shards(shards, ranks, rank))) for rank in range(active)]


def per_shard_and_step(one: Exchanges, two: Exchanges) -> tuple[Counts, Counts]:
    """Which exchanges come once a shard and which once a step.

    Args:
        one: exchanges of a step of one shard.
        two: those of a step of two such shards.

    >>> halo, total = ((8,), (8,)), ((100,), (100,))
    >>> [sorted(c.items()) for c in per_shard_and_step([halo, total], [halo, halo, total])]
    [[(((8,), (8,)), 1)], [(((100,), (100,)), 1)]]
    """
    first, second = Counter(one), Counter(two)
    shard = second - first
    return shard, first - shard
