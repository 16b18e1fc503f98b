from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sixfold.core.errors import NonFiniteLossError, RankLostError, RankRaisedError, UserError
from sixfold.distributed.engines.forks import Child, ForkServer
from sixfold.distributed.engines.local import LocalEngine
from sixfold.distributed.process_group import Communicator, PlainData
from sixfold.distributed.process_group.generation import Patience

Vanish = Callable[..., None]

BAR_S = 10.0
"""Within which a run must end after a rank has died."""


def total(comm: Communicator) -> int:
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    received = {rank: np.zeros(1, np.int64) for rank in others}
    comm.exchange(dict.fromkeys(others, np.array([comm.rank + 1])), received)
    return comm.rank + 1 + int(sum(array[0] for array in received.values()))


def ring_for_ever(comm: Communicator) -> int:
    comm.report({"pid": os.getpid()})
    mine, theirs = np.zeros(500_000, np.uint8), np.zeros(500_000, np.uint8)
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    count = 0
    while True:
        comm.exchange({right: mine}, {left: theirs})
        count += 1


def compute_for_ever(comm: Communicator) -> None:
    comm.report({"pid": os.getpid()})
    while True:
        time.sleep(1.0)


class Pids:
    """Collects the processes of ranks from their first events, and acts when all are there."""

    def __init__(self, size: int, act: Callable[[list[int]], None], delay_s: float = 0.1) -> None:
        self.pids: dict[int, int] = {}
        self._size = size
        self._act = act
        self._delay_s = delay_s

    def __call__(self, rank: int, event: PlainData) -> None:
        if "pid" in event:  # no note on a loss
            self.pids[rank] = event["pid"]
        if len(self.pids) == self._size:
            pids = [self.pids[number] for number in range(self._size)]
            self.pids = {}
            threading.Timer(self._delay_s, self._act, [pids]).start()


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit_s


# When all is well.


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ranks_meet_and_return_results(local: LocalEngine, size: int) -> None:
    group = local.run_ranks(total, size)
    assert group.results == [size * (size + 1) // 2] * size
    assert group.restarts == 0
    assert 0.0 < group.engine_s <= group.startup_s < 30.0


def test_ranks_are_processes_of_their_own_with_one_thread(local: LocalEngine) -> None:
    def look(comm: Communicator) -> list[Any]:
        return [os.getpid(), os.environ["OMP_NUM_THREADS"], os.getsid(0), os.getpgid(0)]

    rows = local.run_ranks(look, 3).results
    assert len({row[0] for row in rows}) == 3
    assert {row[1] for row in rows} == {"1"}
    assert os.getsid(0) not in {row[2] for row in rows}
    assert [row[3] for row in rows] == [row[0] for row in rows]


def test_one_server_serves_groups_and_pools_in_a_row(local: LocalEngine) -> None:
    first = local.warm_up().pid
    assert local.run_ranks(total, 2).results == [3, 3]
    assert local.pool(abs, [-1, -2, -3], workers=2) == [1, 2, 3]
    assert local.run_ranks(total, 3).results == [6, 6, 6]
    assert local.warm_up().pid == first


def test_attempts_are_claimed_before_ranks_start(local: LocalEngine) -> None:
    group = local.run_ranks(lambda comm: comm.attempt, 2, claim=lambda: 41)
    assert group.results == [41, 41]


def test_events_reach_the_launcher_in_order(local: LocalEngine) -> None:
    def work(comm: Communicator) -> None:
        for step in range(50):
            comm.report({"step": step})

    events: list[tuple[int, Any]] = []
    local.run_ranks(work, 2, on_event=lambda rank, event: events.append((rank, event["step"])))
    assert [step for rank, step in events if rank == 1] == list(range(50))
    assert len(events) == 100


def test_what_ranks_print_is_logged_a_line_at_a_time(local: LocalEngine, tmp_path: Path) -> None:
    def work(comm: Communicator) -> None:
        print("hello ü")
        print("trouble", file=sys.stderr)
        os.write(1, b"from C\n")
        print("no end of line", end="")

    log = tmp_path / "log.txt"
    log.write_text("before\n")
    local.run_ranks(work, 2, log=log)
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    for rank in (0, 1):
        mine = [line for line in lines if line.startswith(f"[rank {rank}] ")]
        assert mine == [
            f"[rank {rank}] {text}" for text in ("hello ü", "trouble", "from C", "no end of line")
        ]


def test_modules_beside_the_launcher_can_be_imported(
    local: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.run_ranks(total, 1)  # the server runs already, elsewhere and without it
    (tmp_path / "users_own.py").write_text("def work(world):\n    return world.rank * 10\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.setenv("USERS_VARIABLE", "7")
    import users_own  # type: ignore[import-not-found]

    def work(comm: Communicator) -> list[Any]:
        return [users_own.work(comm), os.environ["USERS_VARIABLE"], str(Path.cwd())]

    assert local.run_ranks(work, 2).results[1] == [10, "7", str(tmp_path)]
    assert local.run_ranks(users_own.work, 2).results == [0, 10]


def test_texts_have_the_hash_that_they_have_on_spark(local: LocalEngine) -> None:
    code = "print(hash('text'))"
    on_spark = {**os.environ, "PYTHONHASHSEED": "0"}
    wanted = subprocess.run(
        [sys.executable, "-c", code], env=on_spark, capture_output=True, check=True
    )
    assert local.run_ranks(lambda _: hash("text"), 2).results == [int(wanted.stdout)] * 2


def test_random_numbers_start_from_the_rank(local: LocalEngine) -> None:
    def work(comm: Communicator) -> list[float]:
        return [random.random(), float(np.random.rand())]

    first = local.run_ranks(work, 2).results
    assert first[0] != first[1]
    assert local.run_ranks(work, 2).results == first


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from sixfold.distributed.engines import open_engine
        print("run")
        def work(world):
            world.barrier()
            return world.rank
        with open_engine("local", preload=()) as engine:
            print(engine.run_ranks(work, 2).results)
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "run\n[0, 1]\n"


@pytest.mark.parametrize("size", [2, 3])
def test_patterns_of_exchanges_over_processes(local: LocalEngine, size: int) -> None:
    sizes = [0, 1, 100, 70_000, 1_000_000]

    def work(comm: Communicator) -> bool:
        for count, shift in itertools.product(sizes, range(1, comm.size)):
            to, source = (comm.rank + shift) % comm.size, (comm.rank - shift) % comm.size
            received = np.zeros(count, np.uint8)
            comm.exchange({to: np.full(count, comm.rank, np.uint8)}, {source: received})
            assert np.all(received == source)
        return True

    assert local.run_ranks(work, size).results == [True] * size


# When a rank fails.


def test_an_exception_is_told_with_its_traceback(local: LocalEngine, tmp_path: Path) -> None:
    def work(comm: Communicator) -> None:
        if comm.rank == 1:
            raise LookupError("no such layer\nsecond line")
        comm.barrier()

    log = tmp_path / "log.txt"
    with within(BAR_S), pytest.raises(RankRaisedError) as info:
        local.run_ranks(work, 3, max_restarts=5, log=log)
    assert info.value.failure.rank == 1
    assert info.value.failure.cause == "LookupError: no such layer"
    assert any("in work" in line for line in info.value.failure.log_tail)
    assert info.value.restarts == 0
    assert "[rank 1] LookupError: no such layer" in log.read_text()


def test_errors_of_our_own_arrive_as_they_were(local: LocalEngine) -> None:
    def wrong(comm: Communicator) -> None:
        raise UserError(["one", "two"])

    def diverged(comm: Communicator) -> None:
        if comm.rank == 0:
            raise NonFiniteLossError("step 7: the loss is nan")
        comm.barrier()

    with pytest.raises(UserError) as info:
        local.run_ranks(wrong, 2)
    assert info.value.problems == ("one", "two")
    with pytest.raises(NonFiniteLossError, match=r"^step 7: the loss is nan$"):
        local.run_ranks(diverged, 2, max_restarts=3)


def test_a_function_that_cannot_be_loaded_is_an_error_of_the_rank(
    local: LocalEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vanishing.py").write_text("def work(world): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import vanishing  # type: ignore[import-not-found]

    (tmp_path / "vanishing.py").unlink()
    with pytest.raises(RankRaisedError, match="No module named 'vanishing'"):
        local.run_ranks(vanishing.work, 1)


@pytest.mark.parametrize("status", [0, 3])
def test_leaving_by_the_back_door_is_death(local: LocalEngine, status: int) -> None:
    def work(comm: Communicator) -> None:
        if comm.rank == 1:
            print("last words", flush=True)
            os._exit(status)
        comm.barrier()

    with within(BAR_S), pytest.raises(RankLostError) as info:
        local.run_ranks(work, 2)
    assert (info.value.failure.rank, info.value.failure.cause) == (
        1,
        f"exited with status {status}",
    )
    assert info.value.failure.log_tail == ("last words",)


def test_a_crash_shows_where(local: LocalEngine) -> None:
    def work(comm: Communicator) -> None:
        comm.barrier()
        if comm.rank == 0:
            crash_here()
        comm.barrier()

    def crash_here() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(RankLostError) as info:
        local.run_ranks(work, 2)
    assert info.value.failure.cause == "killed by signal 11 (SIGSEGV)"
    assert any("crash_here" in line for line in info.value.failure.log_tail)


@pytest.mark.parametrize("work", [ring_for_ever, compute_for_ever])
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_ends_the_group_and_is_named(
    local: LocalEngine, vanish: Vanish, work: Callable[[Communicator], Any], victim: int
) -> None:
    pids: list[int] = []

    def act(found: list[int]) -> None:
        pids.extend(found)
        os.kill(found[victim], signal.SIGKILL)

    with within(BAR_S), pytest.raises(RankLostError) as info:
        local.run_ranks(work, 3, on_event=Pids(3, act))
    assert type(info.value) is RankLostError
    assert info.value.failure.rank == victim
    assert info.value.failure.cause == "killed by signal 9 (SIGKILL)"
    vanish(*pids, timeout_s=0.1)
    assert local.run_ranks(total, 2).results == [3, 3]


@pytest.mark.full
def test_a_stopped_rank_is_given_up_and_killed(vanish: Vanish, nothing_left_behind: None) -> None:
    pids: list[int] = []

    def act(found: list[int]) -> None:
        pids.extend(found)
        time.sleep(1.2)  # a sign of life comes each second
        os.kill(found[1], signal.SIGSTOP)

    with LocalEngine(preload=(), patience=Patience(hang_s=1.5)) as engine:
        with within(BAR_S), pytest.raises(RankLostError, match="no sign of life for") as info:
            engine.run_ranks(ring_for_ever, 2, on_event=Pids(2, act))
        failure = info.value.failure
        assert failure.rank == 1
        assert f"(process {pids[1]}: stopped)" in failure.cause
        assert failure.log_tail[0] == "where it was at its last sign of life:"
        assert any("in ring_for_ever" in line for line in failure.log_tail)
        vanish(*pids, timeout_s=0.1)


def test_a_rank_that_does_not_join_is_given_up(
    local: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.engines.local_ranks.LocalProcesses.join_s", 0.5)
    monkeypatch.setattr("sixfold.distributed.engines.group_run.POLL_S", 0.1)
    fork = ForkServer.fork

    def fork_and_stop(server: ForkServer, *arguments: Any) -> Child:
        child = fork(server, *arguments)
        child.kill(signal.SIGSTOP)
        return child

    monkeypatch.setattr(ForkServer, "fork", fork_and_stop)
    with within(BAR_S), pytest.raises(RankLostError, match=r"did not join within 0\.5 s"):
        local.run_ranks(total, 1)


def test_what_a_rank_has_started_ends_with_it(local: LocalEngine, vanish: Vanish) -> None:
    def work(comm: Communicator) -> None:
        helper = subprocess.Popen(["sleep", "60"])
        comm.report({"pid": helper.pid})
        time.sleep(0.2)

    pids: list[int] = []
    local.run_ranks(work, 2, on_event=lambda _, event: pids.append(event["pid"]))
    assert len(pids) == 2
    vanish(*pids)


def test_a_result_that_is_not_plain_is_explained(local: LocalEngine) -> None:
    with pytest.raises(RankRaisedError, match="can hand over only plain data"):
        local.run_ranks(lambda comm: np.zeros(3), 1)


def test_what_the_launcher_callback_raises_ends_the_group(
    local: LocalEngine, vanish: Vanish
) -> None:
    pids: list[int] = []

    def on_event(rank: int, event: PlainData) -> None:
        pids.append(event["pid"])
        if len(pids) == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        local.run_ranks(compute_for_ever, 2, on_event=on_event)
    vanish(*pids, timeout_s=0.1)


def test_a_function_that_cannot_be_sent_fails_before_anything_starts(local: LocalEngine) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError):
        local.run_ranks(lambda comm: lock.locked(), 1)


# Restarts.


def test_a_lost_rank_restarts_the_whole_group_with_a_new_claim(
    local: LocalEngine, tmp_path: Path
) -> None:
    def work(comm: Communicator) -> list[int]:
        (tmp_path / f"{comm.attempt}-{comm.rank}").touch()
        comm.barrier()
        if comm.attempt < 12 and comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return [comm.attempt, total(comm)]

    claims, notes = itertools.count(10), list[str]()
    group = local.run_ranks(
        work,
        2,
        max_restarts=3,
        claim=lambda: next(claims),
        on_event=lambda _, event: notes.append(str(event["text"])),
    )
    assert [("rank 1 on" in note, "all start again" in note) for note in notes] == [
        (True, True)
    ] * 2
    assert group.results == [[12, 3], [12, 3]]
    assert group.restarts == 2
    assert len(list(tmp_path.iterdir())) == 6


def test_restarts_come_to_an_end(local: LocalEngine) -> None:
    def work(comm: Communicator) -> None:
        print(f"attempt {comm.attempt}", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    with within(BAR_S), pytest.raises(RankLostError, match=r"after 2 restarts") as info:
        local.run_ranks(work, 1, max_restarts=2)
    assert info.value.failure.log_tail == ("attempt 2",)


def test_a_log_that_cannot_be_written_leaves_nothing_behind(
    local: LocalEngine, tmp_path: Path
) -> None:
    with pytest.raises(IsADirectoryError):
        local.run_ranks(total, 1, log=tmp_path)
    with pytest.raises(IsADirectoryError):
        local.pool(abs, [1], workers=1, log=tmp_path)
