"""The slow reference of the simulation: synchronous steps event by event.

Every rank draws the time of its part, then sends its slices, one message after another, through
its host's link, which carries one message at a time; a rank goes on when it has all of its own.
Failures come at random, and throw the run back to its last checkpoint. Quadratic in the ranks: for
tests, and for believing the formulas.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from sixfold.perf.plan.samples import Spread


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What takes part.

    Attributes:
        ranks: how many.
        per_host: of a host; messages between ranks of a host take no time here.
        own_s: median of a rank's part.
        spread: of that time, around its median.
        phases: bytes to each peer, one number for each exchange of the all-reduce.
        bytes_per_s: of a host's link.
        latency_s: of a message.
    """

    ranks: int
    per_host: int
    own_s: float
    spread: Spread
    phases: tuple[float, ...]
    bytes_per_s: float
    latency_s: float


def simulate_steps(fleet: Fleet, steps: int, *, seed: int = 0) -> list[float]:
    """Seconds of each of some steps."""
    random = np.random.default_rng(seed)
    levels = np.linspace(0, 1, len(fleet.spread.quantiles))
    found = []
    for _ in range(steps):
        draws = np.interp(random.random(fleet.ranks), levels, fleet.spread.quantiles)
        ready = fleet.own_s * draws
        for count_bytes in fleet.phases:
            ready = _exchange(fleet, ready, count_bytes)
        found.append(float(ready.max()))
    return found


def _exchange(
    fleet: Fleet, ready: np.ndarray[tuple[int], np.dtype[np.float64]], count_bytes: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """When every rank has the messages of all others, given when each is ready to send."""
    hosts = np.arange(fleet.ranks) // fleet.per_host
    free = dict.fromkeys(hosts.tolist(), 0.0)
    done = ready.copy()
    waiting = [(float(ready[rank]), rank, 1) for rank in range(fleet.ranks)]
    heapq.heapify(waiting)
    while waiting:
        now, rank, offset = heapq.heappop(waiting)
        peer = (rank + offset) % fleet.ranks
        host, sent = int(hosts[rank]), now
        if hosts[peer] != host:
            start = max(now, free[host])
            sent = free[host] = start + count_bytes / fleet.bytes_per_s
            arrival = sent + fleet.latency_s
        else:
            arrival = now
        done[peer] = max(done[peer], arrival)
        if offset + 1 < fleet.ranks:
            heapq.heappush(waiting, (sent, rank, offset + 1))
    return done


def simulate_failures(
    work_s: float, *, rate: float, checkpoint_s: float, restart_s: float, seed: int = 0
) -> float:
    """Seconds of work with failures at `rate` per second, one random run of it."""
    random = np.random.default_rng(seed)
    clock = saved = 0.0
    next_failure = random.exponential(1 / rate)
    while saved < work_s:
        stretch = min(checkpoint_s, work_s - saved)
        if next_failure > stretch:
            next_failure -= stretch
            clock, saved = clock + stretch, saved + stretch
        else:
            clock += next_failure + restart_s
            next_failure = random.exponential(1 / rate)
    return clock
