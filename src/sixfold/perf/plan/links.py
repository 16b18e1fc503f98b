"""The time of exchanges, from the measured times of a few sizes.

A rank sends to its peers one after another, so on one host every further peer costs what an
exchange that follows at once costs. Between hosts the ranks of a host share its link: their bytes
follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

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

        Args:
            peers: how many.
            count_bytes: to each of them.
            follows: whether it follows at once on another exchange.
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
