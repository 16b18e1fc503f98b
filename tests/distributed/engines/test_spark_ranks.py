"""How ranks on Spark are started, replaced and given up, against a cluster that is made of threads.

Everything is real but Spark: jobs, their threads, sockets, the coordinator.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.distributed.engines.test_elastic import STEPS, Counter

from sixfold.core.errors import PeerLostError, RunError, UnfitRankError, UserError
from sixfold.distributed.engines.engine import GroupCall
from sixfold.distributed.engines.group_run import GroupRun
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.membership import Place, run_rank
from sixfold.distributed.process_group.rendezvous import Rendezvous

pytest.importorskip("pyspark")

from sixfold.distributed.engines import spark_ranks
from sixfold.distributed.engines.spark_job import Job
from sixfold.distributed.engines.spark_ranks import SparkProcesses

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

Function = Callable[[Communicator], Any]


class Cluster:
    """A session whose tasks are threads of this process; it has so many slots."""

    def __init__(self, slots: int, *, copies: int = 1) -> None:
        self.free = threading.Semaphore(slots)
        self.count, self.copies = slots, copies  # how often a task is run at a time
        self.hosts: Iterator[str] = itertools.repeat("there")  # on which tasks begin
        self.master = self  # all that is asked of it is its URL
        self.url = "threads"
        self.allocates = False
        self.groups: dict[int, str] = {}  # thread -> group of its job
        self.cancelled: set[str] = set()
        self.ending = "[SPARK_JOB_CANCELLED] cancelled"  # what Spark says of them

    # What ranks ask of a session.

    def start(self, action: Any, title: str, on_end: Any) -> Job:
        """A real job."""
        context: Any = self
        return Job(context, action, title, on_end)

    def map_tasks(self, _: int, task: Any) -> list[str]:
        """Run a task once there is a slot."""
        group, ended = self.groups[threading.get_ident()], threading.Event()

        def attempt() -> None:
            try:
                task()
            finally:
                ended.set()  # the first to end ends the job
                self.free.release()

        def go_on() -> None:
            if group in self.cancelled:
                raise RuntimeError(self.ending)

        for _copy in range(self.copies):
            while not self.free.acquire(timeout=0.01):
                go_on()
            threading.Thread(target=attempt, daemon=True).start()
        while not ended.wait(0.01):
            go_on()
        return []

    def most_slots(self) -> int | None:
        return None

    def slots(self) -> int:
        return self.count

    def check_alive(self, patience_s: float) -> None:
        pass

    # What a job asks of its context.

    def setJobGroup(self, group: str, title: str, *, interruptOnCancel: bool) -> None:  # noqa: N802
        assert interruptOnCancel
        assert title.startswith("sixfold: rank ")
        self.groups[threading.get_ident()] = group

    def getLocalProperty(self, _: str) -> None:  # noqa: N802
        """No group of the caller's: a job's group has the name of its tag."""

    def getJobTags(self) -> set[str]:  # noqa: N802
        return set()

    def addJobTag(self, tag: str) -> None:  # noqa: N802
        assert tag == self.groups[threading.get_ident()]

    def cancelJobsWithTag(self, tag: str) -> None:  # noqa: N802
        self.cancelled.add(tag)

    @property
    def _jsc(self) -> Cluster:
        return self

    def sc(self) -> Cluster:
        return self

    def statusTracker(self) -> Cluster:  # noqa: N802
        return self

    def getJobIdsForTag(self, _: str) -> list[int]:  # noqa: N802
        return []


def run(
    cluster: Any,
    function: Function,
    size: int,
    *,
    least: int | None = 1,
    max_restarts: int = 0,
    notes: list[str] | None = None,
) -> tuple[GroupRun, Rendezvous]:
    """Run a group on it to its end, which is a good one."""

    def on_event(_: int, event: Any) -> None:
        if notes is not None and event.get("kind") == "note":
            notes.append(event["text"])

    def task_at(place: Place) -> Any:
        def task() -> None:
            with contextlib.suppress(PeerLostError):
                run_rank(function, place, host=next(cluster.hosts))

        return task

    call = GroupCall(function, size, least, max_restarts, None, on_event, None)
    with contextlib.closing(Rendezvous(size, least=least, on_event=on_event)) as rendezvous:
        processes = SparkProcesses(cluster, call, rendezvous, rendezvous.address, task_at)
        group = GroupRun(rendezvous, processes, max_restarts)
        fault = group.run()
        if fault is not None:
            raise fault.exception(group.restarts)
        return group, rendezvous


def lose(comm: Communicator) -> None:
    """Cut this rank off, as if its process had been killed."""
    transport: Any = comm.transport
    transport._control.connection.shut()
    raise PeerLostError(-1, "killed")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gather for a fraction of a second."""
    monkeypatch.setattr(spark_ranks, "GATHER_S", 0.2)
    monkeypatch.setattr("sixfold.distributed.engines.group_run.POLL_S", 0.05)


def counts(rendezvous: Rendezvous) -> list[int]:
    return [found["count"] for found in rendezvous.now.results if found is not None]


def test_ranks_without_a_slot_do_not_keep_the_others_and_join_when_one_is_free() -> None:
    cluster, notes = Cluster(2), list[str]()

    def at(comm: Communicator, step: int) -> None:
        if comm.view == 1 and comm.rank == 0 and step == 3:
            cluster.free.release()  # another executor has come
        time.sleep(0.02)

    _, rendezvous = run(cluster, Counter(at), 4, notes=notes)
    assert notes == ["2 of 4 ranks have come: they begin, others join later"]
    assert [size for _, size, _ in rendezvous.now.results[0]["firsts"]] == [2, 3]
    assert counts(rendezvous) == [STEPS] * 3


def test_a_lost_rank_is_replaced_by_another_job() -> None:
    def at(comm: Communicator, step: int) -> None:
        if comm.view == 1 and comm.rank == 1 and step == 3:
            lose(comm)
        time.sleep(0.05)

    group, rendezvous = run(Cluster(3), Counter(at), 3, max_restarts=2)
    assert group.restarts == 1
    assert counts(rendezvous) == [STEPS] * 3


def test_what_comes_from_an_excluded_host_holds_its_slot_until_another_host_has_room() -> None:
    cluster, notes = Cluster(4), list[str]()
    cluster.hosts = iter(["good", "bad", "bad", "bad", "good"])

    def at(comm: Communicator, step: int) -> None:
        if comm.view == 1 and comm.host == "bad" and step == 3:
            raise UnfitRankError(0, "it has computed it wrongly")
        time.sleep(0.05)

    group, rendezvous = run(cluster, Counter(at), 2, max_restarts=9, notes=notes)
    assert group.restarts == 3
    assert counts(rendezvous) == [STEPS] * 2
    (note,) = notes
    assert note.endswith("it has computed it wrongly): 1 go on; bad gets no rank any more")


@pytest.mark.parametrize("least", [1, None])
def test_a_second_attempt_at_the_same_task_is_not_heard(least: int | None) -> None:
    """A speculative copy for example; Spark ends it when the first has ended."""
    group, rendezvous = run(Cluster(6, copies=3), Counter(), 2, least=least)
    assert [found["firsts"] for found in rendezvous.now.results] == [[[1, 2, 0]]] * 2
    assert group.restarts == 0


def test_a_group_that_may_not_change_starts_again_as_a_whole() -> None:
    attempts: list[int] = []

    def work(comm: Communicator) -> int:
        attempts.append(comm.attempt)
        comm.barrier()
        if comm.attempt == 0 and comm.rank == 1:
            lose(comm)
        comm.barrier()
        return comm.attempt

    group, rendezvous = run(Cluster(2), work, 2, least=None, max_restarts=1)
    assert rendezvous.now.results == [1, 1]
    assert group.restarts == 1
    assert sorted(attempts) == [0, 0, 1, 1]


@pytest.mark.parametrize("ending", ["SPARK_JOB_CANCELLED", "NO_ACTIVE_SESSION"])
def test_a_cancelled_job_and_a_closed_session_end_the_run_in_one_line(ending: str) -> None:
    cluster = Cluster(1)
    cluster.ending = f"[{ending}] it has ended"

    def at(_: Communicator, step: int) -> None:
        if step == 2:
            cluster.cancelled.update(cluster.groups.values())  # by somebody else
        time.sleep(0.02)

    with pytest.raises(RunError, match=r"^Spark could not run the ranks: .*it has ended$"):
        run(cluster, Counter(at), 2, max_restarts=3)


def test_too_few_slots_for_the_least_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_ranks, "SCHEDULE_S", 0.3)
    for least in (2, None):
        with pytest.raises(UserError, match=r"has not started 1 of 2 ranks .* threads has 1 task"):
            run(Cluster(1), lambda comm: comm.barrier(), 2, least=least)


@pytest.mark.parametrize("seed", range(4))
def test_executors_come_and_go_at_random(seed: int) -> None:
    random = np.random.default_rng(seed)
    cluster = Cluster(2)

    def at(comm: Communicator, _: int) -> None:
        time.sleep(0.002)
        if random.random() < 0.04:
            lose(comm)
        if random.random() < 0.05:
            cluster.free.release()

    group, rendezvous = run(cluster, Counter(at), 5, max_restarts=100)
    assert rendezvous.now.results[0]["count"] == STEPS
    assert group.restarts <= 100
