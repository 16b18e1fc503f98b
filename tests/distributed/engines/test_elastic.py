"""Groups that go on when ranks are lost, and take in others, on the engines of this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sixfold.core.errors import PeerLostError, RankLostError, RankRaisedError, UnfitRankError
from sixfold.distributed.collectives import all_gather_int
from sixfold.distributed.engines.engine import Engine
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.engines.local import LocalEngine
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.views import holder

STEPS = 12


class Counter:
    """Counts to STEPS together; `at` each step happens what a test wants."""

    def __init__(self, at: Callable[[Communicator, int], None] | None = None) -> None:
        self.at = at

    def __call__(self, comm: Communicator) -> Any:
        count, firsts = -1, []
        if comm.view == 0:
            comm.renew()
        while True:
            try:
                counts = all_gather_int(comm, count)
                source = holder(counts)
                count = 0 if source is None else counts[source]
                firsts.append([comm.view, comm.size, count])
                while count < STEPS:
                    wishes = all_gather_int(comm, int(comm.should_renew()))
                    comm.report({"step": count, "rank": comm.rank, "pid": os.getpid()})
                    if any(wishes):
                        break
                    count += 1
                    if self.at is not None:
                        self.at(comm, count)
                else:
                    comm.barrier()
                    return {"count": count, "rank": comm.rank, "firsts": firsts}
            except PeerLostError as error:
                if not comm.elastic or isinstance(error, UnfitRankError):
                    raise
            comm.renew()


def dies_at(*deaths: tuple[int, int]) -> Callable[[Communicator, int], None]:
    """Lets the rank of a number, in the first view, kill itself at a step."""

    def at(comm: Communicator, step: int) -> None:
        if comm.view == 1 and (comm.rank, step) in deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)

    return at


def test_nothing_changes_while_nothing_happens(local: LocalEngine) -> None:
    for engine in (local, InlineEngine()):
        claims = iter(range(5, 9))
        group = engine.run_ranks(Counter(), 3, least=1, claim=lambda c=claims: next(c))  # type: ignore[misc]
        assert [found["rank"] for found in group.results] == [0, 1, 2]
        assert group.results[0]["firsts"] == [[1, 3, 0]]
        assert group.restarts == 0
        assert next(claims) == 6  # one view, one attempt


@pytest.mark.parametrize("rank", [0, 2])
def test_the_others_go_on_at_once_without_the_lost_one(local: LocalEngine, rank: int) -> None:
    group = local.run_ranks(Counter(dies_at((rank, 5))), 3, least=1)
    assert len(group.results) == 2
    assert all(found["count"] == STEPS for found in group.results)
    (_, before, start), (view, size, first) = group.results[0]["firsts"]
    assert (before, start, view, size) == (3, 0, 2, 2)
    assert first in (4, 5)
    assert group.restarts == 0


def test_a_replacement_gets_the_state_from_a_survivor(local: LocalEngine) -> None:
    notes: list[str] = []

    def slow(comm: Communicator, step: int) -> None:
        dies_at((1, 3))(comm, step)
        time.sleep(0.1)

    group = local.run_ranks(
        Counter(slow),
        3,
        least=1,
        max_restarts=1,
        on_event=lambda _, event: notes.append(event.get("text", "")),
    )
    assert [found["count"] for found in group.results] == [STEPS] * 3
    assert group.restarts == 1
    sizes = [size for _, size, _ in group.results[0]["firsts"]]
    assert sizes in ([3, 2, 3], [3, 3])  # it may be there before the others have noticed
    newcomer = group.results[1]["firsts"]
    assert newcomer[0][0] == len(sizes)
    assert newcomer[0][2] >= 2
    assert "killed by signal 9 (SIGKILL)" in next(filter(None, notes))


def test_fewer_than_the_least_wait_for_a_replacement(local: LocalEngine) -> None:
    group = local.run_ranks(Counter(dies_at((1, 5))), 2, least=2, max_restarts=1)
    assert [found["count"] for found in group.results] == [STEPS] * 2
    assert [size for _, size, _ in group.results[0]["firsts"]] == [2, 2]


def test_with_too_few_left_and_no_restart_the_run_ends_with_the_cause(local: LocalEngine) -> None:
    with pytest.raises(RankLostError, match=r"rank 1 .*SIGKILL"):
        local.run_ranks(Counter(dies_at((1, 5))), 2, least=2)

    def at(_: Communicator, step: int) -> None:
        if step == 5:  # in whatever view: one may be left for a moment
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RankLostError, match="SIGKILL"):
        local.run_ranks(Counter(at), 2, least=1)


def test_all_may_die_and_be_replaced(local: LocalEngine) -> None:
    first_view: list[int] = []

    def at(comm: Communicator, step: int) -> None:
        first_view.append(comm.view)
        if first_view[0] == 1 and step >= 5:  # in whatever view: the other one may be lost first
            os.kill(os.getpid(), signal.SIGKILL)

    group = local.run_ranks(Counter(at), 2, least=1, max_restarts=2)
    assert group.results[0]["count"] == STEPS
    assert group.restarts == 2


def test_a_rank_that_is_unfit_has_no_successor_where_there_is_one_host(local: LocalEngine) -> None:
    def at(comm: Communicator, step: int) -> None:
        if step == 5 and comm.rank == 1:
            raise UnfitRankError(0, "it computes other bits")

    for engine in (local, InlineEngine()):
        group = engine.run_ranks(Counter(at), 2, least=1, max_restarts=5)
        assert [size for _, size, _ in group.results[0]["firsts"]] == [2, 1]
        assert group.restarts == 0
        with pytest.raises(RankLostError, match="it computes other bits"):
            engine.run_ranks(Counter(at), 2, least=2, max_restarts=5)


def test_an_exception_is_no_loss(local: LocalEngine) -> None:
    def at(_: Communicator, step: int) -> None:
        if step == 5:
            raise ValueError("no")

    for engine in (local, InlineEngine()):
        with pytest.raises(RankRaisedError, match="ValueError: no"):
            engine.run_ranks(Counter(at), 2, least=1, max_restarts=5)


@pytest.mark.full
def test_a_stopped_process_is_given_up_and_killed(local: LocalEngine) -> None:
    pids: dict[int, int] = {}
    told: list[str] = []

    def at(comm: Communicator, step: int) -> None:
        # Long enough for a sign of life, then slow enough for the signal to come in time.
        time.sleep(1.5 if step == 2 and comm.rank == 1 else 0.01)

    def on_event(_: int, event: Any) -> None:
        told.append(str(event.get("text", "")))
        if event.get("step") == 3 and event["rank"] == 1 and not pids:
            pids[1] = event["pid"]
            os.kill(event["pid"], signal.SIGSTOP)

    group = local.run_ranks(Counter(at), 2, least=1, on_event=on_event)
    assert group.results[0]["count"] == STEPS
    assert group.results[0]["firsts"][1][1] == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pids[1], 0)
    (loss,) = [text for text in told if "was lost" in text]
    assert f"(process {pids[1]}: stopped)" in loss, "not the signal by which it was killed then"
    assert "\n  where it was at its last sign of life:\n" in loss
    assert ", in at" in loss


@pytest.mark.parametrize("restarts", [0, 1, 3])
@pytest.mark.parametrize("exchange", [1, 2, 9, 13, 14])
@pytest.mark.parametrize("slot", [0, 1, 2])
def test_inline_a_rank_dies_at_any_exchange(slot: int, exchange: int, restarts: int) -> None:
    engine: Engine = InlineEngine(
        strike=lambda where, life, count: (where, life, count) == (slot, 0, exchange)
    )
    group = engine.run_ranks(Counter(), 3, least=1, max_restarts=restarts)
    assert group.results[0]["count"] == STEPS
    assert group.restarts <= min(restarts, 1)


def test_inline_everybody_is_struck_now_and_then() -> None:
    random = np.random.default_rng(3)
    engine = InlineEngine(strike=lambda *_: bool(random.random() < 0.02))
    for _ in range(20):
        group = engine.run_ranks(Counter(), 4, least=2, max_restarts=100)
        assert group.results[0]["count"] == STEPS


def test_inline_too_few_are_told_as_a_loss() -> None:
    engine = InlineEngine(strike=lambda slot, _, count: slot == 1 and count == 4)
    with pytest.raises(RankLostError, match="it was struck"):
        engine.run_ranks(Counter(), 2, least=2)
