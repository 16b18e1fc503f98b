"""The critical path of a step over its ranks, and how much of its exchanges is overlapped.

The path is followed from the end of the rank that was done last, backwards in time: a rank that
has waited for a message was held up by the rank that sent it, so the path goes on there, at the
moment at which that rank had begun to send; of several messages the one that was begun last
counts. What is on the path makes the step as long as it is; time off it may be saved in vain.

    overlap = time in which a rank computed with an exchange begun / time from begin to end of them

C.-Q. Yang, B. P. Miller, "Critical path analysis for the execution of parallel and distributed
programs", 1988.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from sixfold.perf.profile.exchanges import Exchanged
from sixfold.perf.profile.results import CriticalPath, LayerShare, RankFigures, RankShare
from sixfold.perf.profile.timelines import Timelines

LayerSpan = tuple[str, float, float]
"""Layer with its pass, begin and end."""


@dataclass(frozen=True, kw_only=True)
class RankTrace:
    """What one rank did in a step; seconds of a clock that all ranks share."""

    rank: int
    begin: float
    end: float
    exchanges: tuple[Exchanged, ...]  # in the order in which they were done
    layers: tuple[LayerSpan, ...] = ()


class Segment(NamedTuple):
    """A stretch of the path."""

    rank: int
    begin: float
    end: float
    is_transfer: bool  # else the rank's own work

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin


def critical_path(ranks: Sequence[RankTrace]) -> list[Segment]:
    """The path, in the order of time."""
    traces = {trace.rank: trace for trace in ranks}
    left = {trace.rank: list(enumerate(trace.exchanges)) for trace in ranks}
    senders = _senders(ranks)
    now = max(ranks, key=lambda trace: trace.end)
    at = now.end
    path: list[Segment] = []
    while left[now.rank]:
        place, exchange = left[now.rank].pop()  # each once, also where clocks differ
        if exchange.done > at:  # after the moment at which the path has come here
            continue
        path.append(Segment(now.rank, exchange.done, at, False))
        begun, peer = max(senders[now.rank][place], default=(exchange.ended, now.rank))
        if begun <= exchange.ended:  # it was there, and had only to be moved
            begun, peer = exchange.ended, now.rank
        at = min(begun, exchange.done)
        path.append(Segment(now.rank, at, exchange.done, True))
        now = traces[peer]
    path.append(Segment(now.rank, now.begin, at, False))
    return [segment for segment in reversed(path) if segment.seconds > 0]


def _senders(ranks: Sequence[RankTrace]) -> dict[int, list[list[tuple[float, int]]]]:
    """For every exchange of every rank: when each of its messages was begun, and by whom.

    Between two ranks messages keep their order, so the k-th that one receives is the k-th that the
    other has sent.
    """
    sent: dict[tuple[int, int], list[float]] = {}
    for trace in ranks:
        for exchange in sorted(trace.exchanges, key=lambda own: own.begun):
            for peer in exchange.sends:
                sent.setdefault((trace.rank, peer), []).append(exchange.begun)
    found: dict[int, list[list[tuple[float, int]]]] = {}
    for trace in ranks:
        seen: dict[int, int] = {}
        messages: list[list[tuple[float, int]]] = [[] for _ in trace.exchanges]
        order = sorted(range(len(messages)), key=lambda place: trace.exchanges[place].begun)
        for place in order:
            for peer in trace.exchanges[place].receives:
                number = seen[peer] = seen.get(peer, -1) + 1
                begun = sent.get((peer, trace.rank), [])
                if number < len(begun):
                    messages[place].append((begun[number], peer))
        found[trace.rank] = messages
    return found


def overlap_of(exchanges: Sequence[Exchanged]) -> float | None:
    """See above; None without exchanges."""
    whole = sum(own.done - own.begun for own in exchanges)
    return sum(own.ended - own.started for own in exchanges) / whole if whole > 0 else None


def path_figures(ranks: Sequence[RankTrace], step: int = 0) -> CriticalPath:
    """What the path of a step consists of."""
    path = critical_path(ranks)
    traces = {trace.rank: trace for trace in ranks}
    work = {trace.rank: 0.0 for trace in ranks}
    layers: dict[str, float] = {}
    for segment in path:
        if segment.is_transfer:
            continue
        work[segment.rank] += segment.seconds
        for name, begin, end in traces[segment.rank].layers:
            common = min(end, segment.end) - max(begin, segment.begin)
            if common > 0:
                layers[name] = layers.get(name, 0.0) + common
    visits = [segment.rank for segment in path]
    return CriticalPath(
        step=step,
        seconds=path[-1].end - path[0].begin if path else 0.0,
        work_s=[RankShare(rank=rank, seconds=seconds) for rank, seconds in sorted(work.items())],
        transfer_s=sum(segment.seconds for segment in path if segment.is_transfer),
        handovers=sum(one != other for one, other in pairwise(visits)),
        layers=[
            LayerShare(layer=name, seconds=seconds)
            for name, seconds in sorted(layers.items(), key=lambda item: -item[1])
        ],
    )


def paths_of(
    ranks: Sequence[RankFigures], lines: Timelines
) -> tuple[CriticalPath | None, float | None]:
    """The path of the middle one of the timed steps, and the overlap.

    Args:
        ranks: what each has written.
        lines: tell by how much the clocks of hosts differ.

    Returns:
        Path and overlap (0 to 1); None where ranks do not exchange anything.
    """
    off = {line.rank: {step.step: step.begin for step in line.steps} for line in lines.ranks}
    timed: dict[int, list[RankTrace]] = {}
    for rank in ranks:
        steps = {step.step: step for step in rank.steps}
        for watched in rank.exchanges:
            number, step = watched.step, steps[watched.step]
            by_s = off.get(rank.rank, {}).get(number, step.begin) - step.begin
            done = [Exchanged.of(plain).moved(by_s) for plain in watched.exchanges]
            timed.setdefault(number, []).append(
                RankTrace(
                    rank=rank.rank,
                    begin=step.begin + by_s,
                    end=step.begin + step.whole_s + by_s,
                    exchanges=tuple(sorted(done, key=lambda own: own.done)),
                    layers=tuple((n, a + by_s, b + by_s) for n, a, b in watched.layers),
                )
            )
    whole = {number: traces for number, traces in timed.items() if len(traces) == len(ranks)}
    everything = [own for traces in whole.values() for trace in traces for own in trace.exchanges]
    if not everything:
        return None, None
    paths = [path_figures(traces, number) for number, traces in whole.items()]
    middle = statistics.median_low(path.seconds for path in paths)
    return next(path for path in paths if path.seconds == middle), overlap_of(everything)
