"""The critical path of traces whose path is known, and what is overlapped in them."""

import dataclasses
import random
from itertools import pairwise
from typing import Any

import pytest

from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.perf.profile.critical_path import (
    RankTrace,
    Segment,
    critical_path,
    overlap_of,
    path_figures,
    paths_of,
)
from sixfold.perf.profile.exchanges import Exchanged, NotedTransport
from sixfold.perf.profile.results import (
    CriticalPath,
    LayerShare,
    Memory,
    RankFigures,
    RankShare,
    WatchedExchanges,
    WatchedStep,
)
from sixfold.perf.profile.timelines import RankLine, RankStep, Timelines


def meeting(begun: float, done: float, *peers: int, ended: float | None = None) -> Exchanged:
    """With each peer; the rank waits at once, or computes until `ended`."""
    return Exchanged(
        begun=begun,
        started=begun,
        ended=begun if ended is None else ended,
        done=done,
        sends=peers,
        receives=peers,
    )


def trace(rank: int, end: float, *exchanges: Exchanged, **more: Any) -> RankTrace:
    return RankTrace(rank=rank, begin=0.0, end=end, exchanges=exchanges, **more)


def test_the_path_goes_through_the_rank_that_came_last() -> None:
    ranks = [
        trace(0, 10.0, meeting(4.0, 7.0, 1)),
        trace(1, 9.0, meeting(6.0, 7.0, 0), layers=(("conv", 1.0, 3.0), ("late", 8.0, 9.0))),
    ]
    assert critical_path(ranks) == [
        Segment(1, 0.0, 6.0, False),
        Segment(0, 6.0, 7.0, True),
        Segment(0, 7.0, 10.0, False),
    ]
    assert path_figures(ranks) == CriticalPath(
        seconds=10.0,
        work_s=[RankShare(rank=0, seconds=3.0), RankShare(rank=1, seconds=6.0)],
        transfer_s=1.0,
        handovers=1,
        layers=[LayerShare(layer="conv", seconds=2.0)],
    )


def test_a_message_that_came_while_its_receiver_computed_is_not_on_the_path() -> None:
    ranks = [
        trace(0, 10.0, meeting(4.0, 8.5, 1, ended=8.0)),
        trace(1, 6.0, meeting(5.0, 5.5, 0)),
    ]
    assert critical_path(ranks) == [
        Segment(0, 0.0, 8.0, False),
        Segment(0, 8.0, 8.5, True),
        Segment(0, 8.5, 10.0, False),
    ]
    assert overlap_of(ranks[0].exchanges) == pytest.approx(4.0 / 4.5)
    assert overlap_of(ranks[1].exchanges) == 0
    assert overlap_of([]) is None


def test_the_path_passes_from_rank_to_rank() -> None:
    # 2 keeps 1 waiting, which so keeps 0 waiting; 0 had kept 2 waiting before.
    ranks = [
        trace(0, 9.0, meeting(2.0, 2.5, 2), meeting(3.0, 8.0, 1)),
        trace(1, 8.0, meeting(1.0, 6.0, 2), meeting(7.0, 7.5, 0)),
        trace(2, 7.0, meeting(1.0, 2.5, 0), meeting(5.0, 5.5, 1)),
    ]
    found = path_figures(ranks)
    assert [segment.rank for segment in critical_path(ranks)] == [0, 2, 2, 1, 1, 0, 0]
    assert [own.seconds for own in found.work_s] == [2.0 + 1.0, 1.0, 2.5]
    assert found.transfer_s == 0.5 + 1.0 + 1.0
    assert found.handovers == 3


def test_the_path_has_no_gap_and_is_as_long_as_the_step() -> None:
    for seed in range(50):
        drawn = random.Random(seed)
        clocks = [0.0] * 3
        found: list[list[Exchanged]] = [[], [], []]
        for _ in range(8):
            one, other = drawn.sample(range(3), 2)
            begun = {rank: clocks[rank] + drawn.random() for rank in (one, other)}
            for rank, peer in ((one, other), (other, one)):
                ended = begun[rank] + drawn.choice([0.0, drawn.random()])
                done = max(ended, begun[peer]) + 0.1
                found[rank].append(meeting(begun[rank], done, peer, ended=ended))
                clocks[rank] = done
        path = critical_path([trace(r, clocks[r] + 0.1, *own) for r, own in enumerate(found)])
        assert all(one.end == other.begin for one, other in pairwise(path))
        assert path[0].begin == 0.0
        assert path[-1].end == max(clocks) + 0.1


def rank_file(rank: int, begin: float, *exchanges: Exchanged) -> RankFigures:
    plain = [own.as_plain() for own in exchanges]
    phases = ("data_s", "compute_s", "communication_s", "waiting_s", "update_s")
    nothing: dict[str, Any] = dict.fromkeys(phases, 0.0)
    step = WatchedStep(step=5, kind="clock", begin=begin, whole_s=10.0, samples=0, **nothing)
    watched = WatchedExchanges(step=5, exchanges=plain, layers=[])
    held: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(Memory)}
    return RankFigures(
        rank=rank,
        host="",
        steps=[step],
        shards={},
        memory=Memory(**held),
        layers=[],
        exchanges=[watched] if exchanges else [],
    )


def line(rank: int, begin: float) -> RankLine:
    step = RankStep(step=5, begin=begin, arrived_s=None, exchanges=1, phases={}, cpu_s=None)
    return RankLine(rank=rank, host="", pid=0, entered=None, ready=None, steps=(step,))


def test_hosts_are_put_on_one_clock() -> None:
    ranks = [
        rank_file(0, 0.0, meeting(4.0, 7.0, 1)),
        rank_file(1, 100.0, meeting(106.0, 107.0, 0)),
    ]
    lines = Timelines(
        launched=None,
        called=None,
        launcher_pid=0,
        ranks=(line(0, 0.0), line(1, 0.0)),
        evaluations=(),
        skipped=0,
    )
    path, overlap = paths_of(ranks, lines)
    assert path is not None
    assert path.step == 5
    assert path.transfer_s == 1.0
    assert overlap == 0.0
    assert paths_of([rank_file(0, 0.0)], lines) == (None, None)


def test_exchanges_are_noted_while_that_is_asked_for() -> None:
    def compute(comm: Communicator) -> list[tuple[tuple[int, ...], bool]]:
        noting = comm.transport = NotedTransport(comm.transport)
        comm.barrier()
        noted: list[Exchanged] = []
        noting.noted = noted
        part = comm.subgroup([2, 0]) if comm.rank != 1 else None
        if part is not None:
            part.barrier()
        noting.noted = None
        comm.barrier()
        return [(own.sends, own.begun <= own.ended <= own.done) for own in noted]

    with InlineEngine() as engine:
        found = engine.run_ranks(compute, 3).results
    assert found == [[[[2], True]], [], [[[0], True]]]
