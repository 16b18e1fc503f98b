"""The bytes that a rank sends, by the rules of the collectives, and the time of exchanges.

A rank sends to its peers one after another, so on one host every further peer costs what an
exchange that follows at once costs. Between hosts the ranks of a host share its link: their bytes
follow one another. Times are those of a few measured sizes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sixfold.distributed.collectives import goes_whole
from sixfold.distributed.logical_shards import cover, owned_shards
from sixfold.perf.plan.calibration import Machine
from sixfold.perf.plan.samples import Floats


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Seconds of an exchange by bytes, for one kind of link."""

    sizes: tuple[float, ...]  # bytes to each peer, rising
    first_s: tuple[float, ...]  # of an exchange after computing
    next_s: tuple[float, ...]  # of one that follows at once

    def first(self, count_bytes: ArrayLike) -> Floats:
        """Seconds of an exchange with one peer, after computing."""
        return _between(count_bytes, self.sizes, self.first_s)

    def next(self, count_bytes: ArrayLike) -> Floats:
        """Seconds of an exchange with one peer that follows at once, or of one peer more."""
        return _between(count_bytes, self.sizes, self.next_s)

    @property
    def bytes_per_s(self) -> float:
        """At large sizes."""
        rise = self.next_s[-1] - self.next_s[-2]
        return (self.sizes[-1] - self.sizes[-2]) / max(rise, 1e-12)

    @property
    def latency_s(self) -> float:
        """Of the smallest message."""
        return self.first_s[0]


def _between(at: ArrayLike, sizes: Sequence[float], seconds: Sequence[float]) -> Floats:
    """Straight lines between measured sizes; beyond the last one its bytes/s go on."""
    at = np.asarray(at, float)
    slope = max(seconds[-1] - seconds[-2], 0.0) / (sizes[-1] - sizes[-2])
    beyond = seconds[-1] + (at - sizes[-1]) * slope
    found: Floats = np.where(at > sizes[-1], beyond, np.interp(at, sizes, seconds))
    return found


def curve_of(rows: Sequence[Sequence[float]]) -> Curve:
    """A curve that never falls: more bytes take no less time, whatever the noise."""
    table = np.asarray(rows, float)
    rising = np.maximum.accumulate(table[:, 1:], axis=0)
    sizes, first, following = table[:, 0].tolist(), rising[:, 0].tolist(), rising[:, 1].tolist()
    return Curve(sizes=tuple(sizes), first_s=tuple(first), next_s=tuple(following))


def affine(latency_s: float, bytes_per_s: float) -> Curve:
    """A link of a latency and a bandwidth.

    >>> round(affine(1e-5, 1e9).first(1e6).item(), 6)
    0.00101
    """
    sizes = (0.0, 1e6)
    seconds = tuple(latency_s + size / bytes_per_s for size in sizes)
    return Curve(sizes=sizes, first_s=seconds, next_s=seconds)


@dataclass(frozen=True, kw_only=True)
class Links:
    """How the ranks of a run reach each other."""

    local: Curve | None  # between ranks of a host; None if every host has one rank
    remote: Curve | None  # between hosts; None if there is one host
    per_host: int  # ranks of a host

    def exchange_s(self, peers: int, count_bytes: ArrayLike, *, follows: bool = False) -> Floats:
        """Seconds of an exchange with so many peers, so many bytes each, the nearest first.

        `follows`: whether it follows at once on another exchange.
        """
        count_bytes = np.asarray(count_bytes, float)
        near = min(peers, self.per_host - 1)
        far = peers - near
        took = np.zeros_like(count_bytes)
        if near and self.local is not None:
            took = took + (near - 1) * self.local.next(count_bytes)
            took = took + (self.local.next if follows else self.local.first)(count_bytes)
        if far and self.remote is not None:
            shared = count_bytes * far * self.per_host
            took = took + (self.remote.next if follows else self.remote.first)(shared)
            handling = self.local.next_s[0] if self.local is not None else 0.0
            took = took + (far - 1) * handling
        return took


def links_of(machine: Machine, workers: int) -> Links:
    """The links between so many ranks of the calibrated machine."""
    per_host = -(-workers // machine.hosts)
    crowded = workers > machine.slots and machine.crowded
    tables = machine.crowded if crowded else machine.links
    return Links(local=_curve(tables, "local"), remote=_curve(tables, "remote"), per_host=per_host)


def _curve(
    tables: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], kind: str
) -> Curve | None:
    return curve_of(tables[kind]["1"]) if kind in tables else None


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

    Ranks beyond the logical shards have no summand, and help to add.

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
    return [Phase(peers, nodes * part, peers * nodes * part), Phase(peers, part, peers * part)]


def summands(shards: int, ranks: int) -> list[int]:
    """How many partial sums each rank that owns shards has to send."""
    active = min(shards, ranks)
    return [len(cover(owned_shards(shards, ranks, rank))) for rank in range(active)]


def per_shard_and_step(one: Exchanges, two: Exchanges) -> tuple[Counts, Counts]:
    """Which exchanges come once a shard and which once a step, from steps of one shard and of two.

    >>> halo, total = ((8,), (8,)), ((100,), (100,))
    >>> [sorted(c.items()) for c in per_shard_and_step([halo, total], [halo, halo, total])]
    [[(((8,), (8,)), 1)], [(((100,), (100,)), 1)]]
    """
    first, second = Counter(one), Counter(two)
    shard = second - first
    return shard, first - shard
