from __future__ import annotations

import importlib
import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.marks import quick
from tests.spark_masters import EngineProcess

from sixfold.core.errors import (
    NonFiniteLossError,
    RankLostError,
    RankRaisedError,
    RunError,
    UserError,
)
from sixfold.distributed.process_group import Communicator, PlainData
from sixfold.distributed.process_group.generation import Patience

pytestmark = pytest.mark.spark


def swap(comm: Communicator) -> dict[str, Any]:
    """Tell the neighbour who we are."""
    other = 1 - comm.rank
    mine, theirs = np.array([comm.rank, 10.0]), np.empty(2)
    comm.exchange({other: mine}, {other: theirs})
    comm.barrier()
    return {"rank": comm.rank, "heard": theirs.tolist(), "attempt": comm.attempt}


def last_until(attempt: int) -> Callable[[Communicator], int]:
    """Ranks that go on for ever, except in one attempt."""

    def work(comm: Communicator) -> int:
        comm.report({"pid": os.getpid(), "parent": os.getppid(), "attempt": comm.attempt})
        while comm.attempt != attempt:
            comm.barrier()
            time.sleep(0.005)
        return comm.attempt

    return work


class Killer:
    """Kills a rank of every attempt up to some number, soon after it began."""

    def __init__(self, attempts: int, *, executor: bool = False) -> None:
        self.attempts = attempts
        self.executor = executor
        self.killed_at: list[float] = []
        self.started_at: list[float] = []
        self._numbers = itertools.count()

    def claim(self) -> int:
        self.started_at.append(time.monotonic())
        return next(self._numbers)

    def on_event(self, rank: int, event: PlainData) -> None:
        if rank == 1 and event.get("attempt", self.attempts) < self.attempts:  # no note
            pid = event["pid"]
            if self.executor:  # JVM -> daemon -> worker
                pid = psutil.Process(event["parent"]).ppid()
            threading.Timer(0.1, self._kill, [pid]).start()

    def _kill(self, pid: int) -> None:
        self.killed_at.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    def restart_s(self) -> list[float]:
        return [
            started - killed
            for killed, started in zip(self.killed_at, self.started_at[1:], strict=True)
        ]


@pytest.fixture(params=quick(["local", "cluster", "standalone"], "local"))
def spark(request: pytest.FixtureRequest) -> EngineProcess:
    engine = request.getfixturevalue(f"spark_{request.param}")
    assert isinstance(engine, EngineProcess)
    return engine


def test_ranks_talk_to_each_other_and_return_plain_data(spark: EngineProcess) -> None:
    group = spark.run_ranks(swap, 2)
    assert group.results == [
        {"rank": 0, "heard": [1.0, 10.0], "attempt": 0},
        {"rank": 1, "heard": [0.0, 10.0], "attempt": 0},
    ]
    assert group.restarts == 0
    assert group.startup_s > 0.0
    assert group.engine_s > 0.0


def test_a_group_may_be_smaller_than_the_cluster(spark_local: EngineProcess) -> None:
    assert spark_local.run_ranks(lambda comm: comm.size, 1).results == [1]


def test_slots_are_counted(spark: EngineProcess) -> None:
    assert spark.slots() == 2


def test_too_many_ranks_are_refused_at_once_with_the_count(spark_local: EngineProcess) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"3 ranks need 3 Spark task slots .* local\[2\] has 2"):
        spark_local.run_ranks(swap, 3)
    assert time.monotonic() - began < 2.0


@pytest.mark.full
def test_too_many_ranks_for_a_cluster_of_unknown_size_are_refused_in_seconds(
    spark_standalone: EngineProcess,
) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match="has 2: use --workers 2 or fewer"):
        spark_standalone.run_ranks(swap, 3)
    assert time.monotonic() - began < 15.0


def test_a_killed_python_worker_restarts_the_group(spark: EngineProcess) -> None:
    killer = Killer(1)
    group = spark.run_ranks(
        last_until(1), 2, max_restarts=3, claim=killer.claim, on_event=killer.on_event
    )
    assert group.results == [1, 1]
    assert group.restarts == 1
    assert max(killer.restart_s()) < 30.0


@pytest.mark.full
@pytest.mark.parametrize("master", ["standalone", "cluster"])
def test_a_killed_executor_restarts_the_group(master: str, request: pytest.FixtureRequest) -> None:
    engine: EngineProcess = request.getfixturevalue(f"spark_{master}")
    killer = Killer(1, executor=True)
    group = engine.run_ranks(
        last_until(1), 2, max_restarts=1, claim=killer.claim, on_event=killer.on_event
    )
    assert group.results == [1, 1]
    assert group.restarts == 1


@pytest.mark.full
def test_without_restarts_left_the_first_to_die_is_told(
    spark_local: EngineProcess, tmp_path: Path
) -> None:
    killer = Killer(2)

    def work(comm: Communicator) -> None:
        print(f"last words of {comm.rank}")
        last_until(9)(comm)

    with pytest.raises(RankLostError) as caught:
        spark_local.run_ranks(work, 2, max_restarts=1, claim=killer.claim, on_event=killer.on_event)
    error = caught.value
    assert type(error) is RankLostError
    assert (error.failure.rank, error.restarts) == (1, 1)
    assert error.failure.log_tail[-1] == "last words of 1"
    assert len(killer.started_at) == 2  # claimed twice, and never a third time
    assert spark_local.run_ranks(swap, 2).restarts == 0  # all slots are free again


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("oops"), RankRaisedError),
        (UserError(["first", "second"]), UserError),
        (NonFiniteLossError("step 7"), NonFiniteLossError),
        pytest.param(RunError("broken"), RunError, marks=pytest.mark.full),
        pytest.param(SystemExit(3), RankRaisedError, marks=pytest.mark.full),
    ],
)
def test_what_a_rank_raises_is_raised_here_and_not_tried_again(
    spark_local: EngineProcess, error: BaseException, expected: type[Exception]
) -> None:
    killer = Killer(0)

    def work(comm: Communicator) -> None:
        if comm.rank == 1:
            raise error
        comm.barrier()

    with pytest.raises(expected) as caught:
        spark_local.run_ranks(work, 2, max_restarts=3, claim=killer.claim)
    assert type(caught.value) is expected
    assert len(killer.started_at) == 1
    if isinstance(caught.value, RankRaisedError):
        assert caught.value.failure.rank == 1
        assert "raise error" in str(caught.value)


def test_a_result_that_is_no_plain_data_is_explained(spark_local: EngineProcess) -> None:
    with pytest.raises(RankRaisedError, match="plain data"):
        spark_local.run_ranks(lambda comm: {1, 2}, 1)


def test_a_module_that_an_executor_lacks_is_told_with_host_and_remedy(
    spark_local: EngineProcess,
) -> None:
    def work(comm: Communicator) -> None:
        importlib.import_module("no_such_module")

    with pytest.raises(UserError, match=r"'no_such_module' is missing on the executor .*install"):
        spark_local.run_ranks(work, 2)


def test_a_function_that_cannot_be_unpickled_is_told(spark_local: EngineProcess) -> None:
    def run(engine: Any) -> None:
        import types

        module = types.ModuleType("only_here")
        exec("def work(world): return 1", module.__dict__)
        sys.modules["only_here"] = module
        engine.run_ranks(module.work, 1)

    with pytest.raises(UserError, match="'only_here' is missing on the executor"):
        spark_local.call(run)


def test_what_ranks_print_is_in_the_log_with_their_numbers(
    spark_local: EngineProcess, tmp_path: Path
) -> None:
    def work(comm: Communicator) -> None:
        import warnings

        print("to stdout")
        print("to stderr", file=sys.stderr)
        warnings.warn("careful", stacklevel=1)
        sys.stdout.write("without an end")

    log = tmp_path / "log.txt"
    spark_local.run_ranks(work, 2, log=log)
    lines = log.read_text().splitlines()
    for rank in (0, 1):
        mine = [line for line in lines if line.startswith(f"[rank {rank}] ")]
        assert f"[rank {rank}] to stdout" in mine
        assert f"[rank {rank}] to stderr" in mine
        assert any("careful" in line for line in mine)
        assert mine[-1] == f"[rank {rank}] without an end"


def test_what_java_writes_is_in_the_log(spark_local: EngineProcess, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    killer = Killer(1)
    with pytest.raises(RankLostError):
        spark_local.run_ranks(
            last_until(9), 2, claim=killer.claim, on_event=killer.on_event, log=log
        )
    assert "[spark] " in log.read_text()
    assert "Python worker exited unexpectedly" in log.read_text()


def test_events_come_while_the_group_runs(spark_local: EngineProcess) -> None:
    events = []
    spark_local.run_ranks(
        lambda comm: comm.report({"rank": comm.rank}),
        2,
        on_event=lambda rank, event: events.append((rank, event)),
    )
    assert sorted(events, key=str) == [(0, {"rank": 0}), (1, {"rank": 1})]


@pytest.mark.full
def test_slots_held_by_another_job_are_told(spark_local: EngineProcess) -> None:
    def run(engine: Any) -> str:
        from sixfold.distributed.engines import spark_ranks
        from sixfold.distributed.engines.spark_job import Job

        context = engine.session.context
        slow = context.parallelize([0], 1).map(lambda _: time.sleep(60))
        other = Job(context, slow.count, "a job of somebody else")
        patience_s, spark_ranks.SCHEDULE_S = spark_ranks.SCHEDULE_S, 1.0
        try:
            while other.active_tasks() == 0:
                time.sleep(0.05)
            engine.run_ranks(swap, 2)
        except UserError as error:
            return str(error)
        finally:
            spark_ranks.SCHEDULE_S = patience_s
            other.end(patience_s=0.0)
        return ""

    message = spark_local.call(run)
    assert "has 2 task slots, and other jobs of this application may hold them" in message


@pytest.mark.full
def test_a_job_that_somebody_cancels_is_not_started_again(spark_local: EngineProcess) -> None:
    def run(engine: Any) -> str:
        context = engine.session.context
        threading.Timer(1.0, context.cancelAllJobs).start()
        try:
            engine.run_ranks(last_until(9), 2, max_restarts=3)
        except RunError as error:
            return str(error)
        return ""

    assert "cancelled" in spark_local.call(run)


def state_of_process(comm: Communicator) -> dict[str, Any]:
    """Everything that a rank could leave behind in its process."""
    import torch

    time.sleep(0.2)  # for the system to clear up threads that have just ended
    return {
        "pid": os.getpid(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": len(list(Path("/proc/self/task").iterdir())),
        "children": len(psutil.Process().children()),
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "path": list(sys.path),
        "torch threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random": [random.random(), float(np.random.rand()), float(torch.rand(()))],
        "handlers": [str(signal.getsignal(number)) for number in (2, 15)],
        "logging": [logging.root.level, len(logging.root.handlers)],
    }


def make_a_mess(comm: Communicator) -> int:
    import multiprocessing

    import torch

    os.environ["LEFT_BEHIND"] = "1"
    del os.environ["PATH"]
    os.chdir("/")
    sys.path.insert(0, "/nowhere")
    torch.set_num_threads(5)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    logging.basicConfig(level=logging.DEBUG)
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
    comm.exchange({1 - comm.rank: np.ones(9)}, {1 - comm.rank: np.empty(9)})
    return os.getpid()


def test_nothing_stays_behind_in_a_worker_that_is_used_again(spark_local: EngineProcess) -> None:
    def by_pid(states: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        return {state["pid"]: state for state in states}

    spark_local.run_ranks(state_of_process, 2)  # imports torch
    before = by_pid(spark_local.run_ranks(state_of_process, 2).results)
    messy = spark_local.run_ranks(make_a_mess, 2).results
    after = by_pid(spark_local.run_ranks(state_of_process, 2).results)
    assert set(messy) == set(before) == set(after), "other workers: nothing was compared"
    for pid, state in before.items():
        changed = {key for key in state if state[key] != after[pid][key]} - {"random"}
        assert not changed, {key: (state[key], after[pid][key]) for key in changed}
    numbers = [sorted(state["random"] for state in group.values()) for group in (before, after)]
    assert numbers[0] == numbers[1]


@pytest.mark.full
def test_the_end_of_a_rank_costs_no_imports(spark_local: EngineProcess) -> None:
    """Some of torch's settings import hundreds of modules when they are put back."""

    def work(comm: Communicator) -> list[int]:
        import torch

        return [os.getpid(), len(sys.modules), torch.get_num_threads()]

    killer = Killer(1)  # so that the workers are new
    spark_local.run_ranks(
        last_until(1), 2, max_restarts=1, claim=killer.claim, on_event=killer.on_event
    )
    first, second = (sorted(spark_local.run_ranks(work, 2).results) for _ in range(2))
    assert first == second


def test_a_process_group_left_open_does_not_break_the_next_group(
    spark_local: EngineProcess,
) -> None:
    def work(comm: Communicator) -> int:
        import torch

        torch.distributed.init_process_group(
            "gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1
        )
        return os.getpid()

    assert {*spark_local.run_ranks(work, 2).results} == {*spark_local.run_ranks(work, 2).results}


def test_the_users_module_travels_and_is_never_stale(
    spark_local: EngineProcess, tmp_path: Path
) -> None:
    source = tmp_path / "users_module.py"

    def run(engine: Any, source: Path) -> list[Any]:
        """In the session that is active, an engine for each version of the file."""
        from sixfold.distributed.engines.spark import SparkEngine

        def work(comm: Communicator) -> list[Any]:
            module = importlib.import_module("users_module")
            return [os.getpid(), module.VALUE, module.__file__]

        found = []
        for version in ("first", "second"):
            source.write_text(f"VALUE = {version!r}\n")
            with SparkEngine(ship=[source]) as other:
                found.append(other.run_ranks(work, 2).results)
        assert engine.session.slots() == 2  # closing the others did not end the session
        return found

    first, second = spark_local.call(run, source)
    assert {value for _, value, _ in first} == {"first"}
    assert {value for _, value, _ in second} == {"second"}
    assert {pid for pid, _, _ in first} == {pid for pid, _, _ in second}
    assert str(tmp_path) not in second[0][2]


def test_variables_that_the_users_code_reads_travel_and_stay_nowhere(
    spark_local: EngineProcess,
) -> None:
    def run(engine: Any) -> list[Any]:
        from sixfold.distributed.engines.spark import SparkEngine

        def work(_: object) -> list[Any]:
            return [os.environ.get("MY_WIDTH"), os.environ.get("MY_UNSET"), hash("text")]

        found = []
        first: dict[str, str | None] = {"MY_WIDTH": "7"}
        for values in (first, dict.fromkeys(("MY_WIDTH", "MY_UNSET")), first.fromkeys(())):
            with SparkEngine(read=values.copy) as other:
                found += other.run_ranks(work, 2).results
                found += other.pool(work, [0], workers=1)
        assert engine.session.environment["PYTHONHASHSEED"] == "0"
        return found

    found = spark_local.call(run)
    assert [one[0] for one in found] == ["7"] * 3 + [None] * 6
    assert {(one[1], one[2]) for one in found} == {(None, found[0][2])}


@pytest.mark.full
def test_a_rank_that_hangs_is_given_up_and_replaced(spark_local: EngineProcess) -> None:
    def run(engine: Any) -> Any:
        from sixfold.distributed.engines.spark import SparkEngine

        def work(comm: Communicator) -> int:
            if comm.rank == 0 and comm.attempt == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            comm.barrier()
            return comm.attempt

        with SparkEngine(patience=Patience(hang_s=2.0)) as other:
            return other.run_ranks(work, 2, max_restarts=1)

    group = spark_local.call(run)
    assert group.results == [1, 1]
    assert group.restarts == 1
