"""Ranks that come and go on real executors."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.marks import quick
from tests.spark_masters import CLUSTER, EngineProcess

from sixfold.core.errors import PeerLostError, RunError
from sixfold.distributed.collectives import all_gather_int
from sixfold.distributed.process_group import Communicator

pytestmark = pytest.mark.spark

LONGEST_S = 100.0


def until(size: int, *, views: int = 1) -> Callable[[Communicator], list[int]]:
    """Ranks that go on until there are so many of them, for the so manieth time."""

    def work(comm: Communicator) -> list[int]:
        deadline = time.monotonic() + LONGEST_S
        sizes: list[int] = []
        if comm.view == 0:
            comm.renew()
        while True:
            try:
                sizes.append(comm.size)
                while comm.size != size or max(all_gather_int(comm, sizes.count(size))) < views:
                    assert time.monotonic() < deadline, sizes
                    asked = all_gather_int(comm, int(comm.should_renew()))
                    comm.report({"rank": comm.rank, "pid": os.getpid(), "view": comm.view})
                    if any(asked):
                        break
                    time.sleep(0.02)
                else:
                    comm.barrier()
                    return sizes
            except PeerLostError:
                pass
            comm.renew()

    return work


class Striker:
    """Kills the Python worker of rank 1, or its executor, as soon as it works."""

    def __init__(self, *, executor: bool = False) -> None:
        self.executor, self.has_killed = executor, False
        self.notes: list[str] = []

    def __call__(self, _: int, event: Any) -> None:
        if event.get("kind") == "note":
            self.notes.append(event["text"])
        elif event["rank"] == 1 and not self.has_killed:
            worker = psutil.Process(event["pid"])
            victim = worker.parents()[1] if self.executor else worker  # worker, daemon, executor
            self.has_killed = True
            os.kill(victim.pid, signal.SIGKILL)


def engine_named(request: pytest.FixtureRequest, name: str) -> EngineProcess:
    engine = request.getfixturevalue(f"spark_{name}")
    assert isinstance(engine, EngineProcess)
    return engine


@pytest.mark.parametrize("master", quick(["local", "connect", "cluster"], "local"))
def test_a_killed_python_worker_is_replaced_while_the_other_goes_on(
    request: pytest.FixtureRequest, master: str
) -> None:
    striker = Striker()
    group = engine_named(request, master).run_ranks(
        until(2, views=2), 2, least=1, max_restarts=2, on_event=striker
    )
    assert group.restarts == 1
    sizes = max(group.results, key=len)
    assert sizes[-3:] == [2, 1, 2] or sizes[-2:] == [2, 2]  # it may come before it is missed
    assert "rank 1" in striker.notes[-1]


@pytest.mark.full
@pytest.mark.parametrize("master", ["cluster", "standalone"])
def test_a_killed_executor_costs_its_rank_alone(
    request: pytest.FixtureRequest, master: str
) -> None:
    striker = Striker(executor=True)
    group = engine_named(request, master).run_ranks(
        until(2, views=2), 2, least=1, max_restarts=2, on_event=striker
    )
    assert group.restarts == 1
    assert max(group.results, key=len)[-3:] == [2, 1, 2]


def hold_a_slot_and_run(engine: Any, function: Any, seconds: float) -> Any:
    """A group of two, of which one has no slot at first."""
    from sixfold.distributed.engines import spark_ranks
    from sixfold.distributed.engines.spark_job import Job

    context = engine.session.context
    begun = Path(tempfile.mkdtemp()) / "begun"  # both slots are on this host

    def hold(_: int) -> None:
        begun.touch()
        time.sleep(seconds)

    slow = context.parallelize([0], 1).map(hold)
    other = Job(context, slow.count, "a job of somebody else")
    notes: list[str] = []
    patience_s, spark_ranks.GATHER_S = spark_ranks.GATHER_S, 0.5
    try:
        while not begun.exists():
            assert other.running, other.error
            time.sleep(0.05)
        group = engine.run_ranks(
            function,
            2,
            least=1,
            on_event=lambda _, event: notes.extend([event["text"]] if "text" in event else []),
        )
        return group.results, notes
    finally:
        spark_ranks.GATHER_S = patience_s
        other.end(patience_s=0.0)


def test_a_rank_without_a_slot_joins_when_there_is_one(spark_local: EngineProcess) -> None:
    results, notes = spark_local.call(hold_a_slot_and_run, until(2), 3.0)
    assert sorted(results) == [[1, 2], [2]]  # by its place in the view, whoever came first
    assert notes == ["1 of 2 ranks have come: they begin, others join later"]


@pytest.mark.full
def test_a_run_that_ends_leaves_no_rank_waiting_for_a_slot(spark_local: EngineProcess) -> None:
    results, _ = spark_local.call(hold_a_slot_and_run, until(1), 1000.0)
    assert results == [[1]]
    assert spark_local.run_ranks(until(2), 2, least=2).results == [[2], [2]]


@pytest.mark.full
def test_executors_that_cannot_call_the_client_do_so_through_the_run_directory(
    spark_connect: EngineProcess, tmp_path: Path
) -> None:
    def work(engine: Any, function: Any, log: Path) -> Any:
        engine.session.driver_host = lambda: ("127.0.0.1", "192.0.2.1")
        try:
            return engine.run_ranks(function, 2, least=1, log=log).results
        finally:
            del engine.session.driver_host

    results = spark_connect.call(work, until(2), tmp_path / "log.txt")
    assert [sizes[-1] for sizes in results] == [2, 2]
    assert not (tmp_path / "relay").exists()


@pytest.mark.full
def test_executors_are_allocated_as_ranks_wait_for_them(tmp_path: Path) -> None:
    conf = ["spark.dynamicAllocation.enabled=true", "spark.dynamicAllocation.initialExecutors=0"]
    with contextlib.closing(EngineProcess(CLUSTER, tmp_path, *conf)) as engine:
        assert engine.run_ranks(until(2), 2, least=1).results[0][-1] == 2
        assert engine.run_ranks(lambda comm: comm.size, 2).results == [2, 2]


@pytest.mark.full
def test_a_stage_that_somebody_kills_ends_the_run_in_one_line(spark_local: EngineProcess) -> None:
    def work(engine: Any) -> str:
        context = engine.session.context

        def kill() -> None:
            for stage in context.statusTracker().getActiveStageIds():
                context._jsc.sc().cancelStage(stage)

        threading.Timer(2.0, kill).start()
        try:
            engine.run_ranks(until(9), 2, least=1, max_restarts=3)
        except RunError as error:
            return str(error)
        return ""

    told = spark_local.call(work)
    assert "cancelled" in told
    assert "\n" not in told
