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
from sixfold.distributed.process_group import PlainData, World

Vanish = Callable[..., None]

BAR_S = 10.0
"""Within which a run must end after a rank has died."""


def total(world: World) -> int:
    others = [rank for rank in range(world.size) if rank != world.rank]
    received = {rank: np.zeros(1, np.int64) for rank in others}
    world.exchange(dict.fromkeys(others, np.array([world.rank + 1])), received)
    return world.rank + 1 + int(sum(array[0] for array in received.values()))


def ring_for_ever(world: World) -> int:
    world.report({"pid": os.getpid()})
    mine, theirs = np.zeros(500_000, np.uint8), np.zeros(500_000, np.uint8)
    right, left = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    count = 0
    while True:
        world.exchange({right: mine}, {left: theirs})
        count += 1


def compute_for_ever(world: World) -> None:
    world.report({"pid": os.getpid()})
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
    gang = local.gang(total, size)
    assert gang.results == [size * (size + 1) // 2] * size
    assert gang.restarts == 0
    assert 0.0 < gang.engine_s <= gang.startup_s < 30.0


def test_ranks_are_processes_of_their_own_with_one_thread(local: LocalEngine) -> None:
    def look(world: World) -> list[Any]:
        return [os.getpid(), os.environ["OMP_NUM_THREADS"], os.getsid(0), os.getpgid(0)]

    rows = local.gang(look, 3).results
    assert len({row[0] for row in rows}) == 3
    assert {row[1] for row in rows} == {"1"}
    assert os.getsid(0) not in {row[2] for row in rows}
    assert [row[3] for row in rows] == [row[0] for row in rows]


def test_one_server_serves_gangs_and_pools_in_a_row(local: LocalEngine) -> None:
    first = local.warm_up().pid
    assert local.gang(total, 2).results == [3, 3]
    assert local.pool(abs, [-1, -2, -3], workers=2) == [1, 2, 3]
    assert local.gang(total, 3).results == [6, 6, 6]
    assert local.warm_up().pid == first


def test_attempts_are_claimed_before_ranks_start(local: LocalEngine) -> None:
    gang = local.gang(lambda world: world.attempt, 2, claim=lambda: 41)
    assert gang.results == [41, 41]


def test_events_reach_the_launcher_in_order(local: LocalEngine) -> None:
    def work(world: World) -> None:
        for step in range(50):
            world.report({"step": step})

    events: list[tuple[int, Any]] = []
    local.gang(work, 2, on_event=lambda rank, event: events.append((rank, event["step"])))
    assert [step for rank, step in events if rank == 1] == list(range(50))
    assert len(events) == 100


def test_what_ranks_print_is_logged_a_line_at_a_time(local: LocalEngine, tmp_path: Path) -> None:
    def work(world: World) -> None:
        print("hello ü")
        print("trouble", file=sys.stderr)
        os.write(1, b"from C\n")
        print("no end of line", end="")

    log = tmp_path / "log.txt"
    log.write_text("before\n")
    local.gang(work, 2, log=log)
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
    local.gang(total, 1)  # the server runs already, elsewhere and without it
    (tmp_path / "users_own.py").write_text("def work(world):\n    return world.rank * 10\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.setenv("USERS_VARIABLE", "7")
    import users_own  # type: ignore[import-not-found]

    def work(world: World) -> list[Any]:
        return [users_own.work(world), os.environ["USERS_VARIABLE"], str(Path.cwd())]

    assert local.gang(work, 2).results[1] == [10, "7", str(tmp_path)]
    assert local.gang(users_own.work, 2).results == [0, 10]


def test_random_numbers_start_from_the_rank(local: LocalEngine) -> None:
    def work(world: World) -> list[float]:
        return [random.random(), float(np.random.rand())]

    first = local.gang(work, 2).results
    assert first[0] != first[1]
    assert local.gang(work, 2).results == first


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
            print(engine.gang(work, 2).results)
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "run\n[0, 1]\n"


@pytest.mark.parametrize("size", [2, 3])
def test_patterns_of_exchanges_over_processes(local: LocalEngine, size: int) -> None:
    sizes = [0, 1, 100, 70_000, 1_000_000]

    def work(world: World) -> bool:
        for count, shift in itertools.product(sizes, range(1, world.size)):
            to, source = (world.rank + shift) % world.size, (world.rank - shift) % world.size
            received = np.zeros(count, np.uint8)
            world.exchange({to: np.full(count, world.rank, np.uint8)}, {source: received})
            assert np.all(received == source)
        return True

    assert local.gang(work, size).results == [True] * size


# When a rank fails.


def test_an_exception_is_told_with_its_traceback(local: LocalEngine, tmp_path: Path) -> None:
    def work(world: World) -> None:
        if world.rank == 1:
            raise LookupError("no such layer\nsecond line")
        world.barrier()

    log = tmp_path / "log.txt"
    with within(BAR_S), pytest.raises(RankRaisedError) as info:
        local.gang(work, 3, max_restarts=5, log=log)
    assert info.value.failure.rank == 1
    assert info.value.failure.cause == "LookupError: no such layer"
    assert any("in work" in line for line in info.value.failure.log_tail)
    assert info.value.restarts == 0
    assert "[rank 1] LookupError: no such layer" in log.read_text()


def test_errors_of_our_own_arrive_as_they_were(local: LocalEngine) -> None:
    def wrong(world: World) -> None:
        raise UserError(["one", "two"])

    def diverged(world: World) -> None:
        if world.rank == 0:
            raise NonFiniteLossError("step 7: the loss is nan")
        world.barrier()

    with pytest.raises(UserError) as info:
        local.gang(wrong, 2)
    assert info.value.problems == ("one", "two")
    with pytest.raises(NonFiniteLossError, match=r"^step 7: the loss is nan$"):
        local.gang(diverged, 2, max_restarts=3)


def test_a_function_that_cannot_be_loaded_is_an_error_of_the_rank(
    local: LocalEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vanishing.py").write_text("def work(world): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import vanishing  # type: ignore[import-not-found]

    (tmp_path / "vanishing.py").unlink()
    with pytest.raises(RankRaisedError, match="No module named 'vanishing'"):
        local.gang(vanishing.work, 1)


@pytest.mark.parametrize("status", [0, 3])
def test_leaving_by_the_back_door_is_death(local: LocalEngine, status: int) -> None:
    def work(world: World) -> None:
        if world.rank == 1:
            print("last words", flush=True)
            os._exit(status)
        world.barrier()

    with within(BAR_S), pytest.raises(RankLostError) as info:
        local.gang(work, 2)
    assert (info.value.failure.rank, info.value.failure.cause) == (
        1,
        f"exited with status {status}",
    )
    assert info.value.failure.log_tail == ("last words",)


def test_a_crash_shows_where(local: LocalEngine) -> None:
    def work(world: World) -> None:
        world.barrier()
        if world.rank == 0:
            crash_here()
        world.barrier()

    def crash_here() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(RankLostError) as info:
        local.gang(work, 2)
    assert info.value.failure.cause == "killed by signal 11 (SIGSEGV)"
    assert any("crash_here" in line for line in info.value.failure.log_tail)


@pytest.mark.parametrize("work", [ring_for_ever, compute_for_ever])
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_ends_the_gang_and_is_named(
    local: LocalEngine, vanish: Vanish, work: Callable[[World], Any], victim: int
) -> None:
    pids: list[int] = []

    def act(found: list[int]) -> None:
        pids.extend(found)
        os.kill(found[victim], signal.SIGKILL)

    with within(BAR_S), pytest.raises(RankLostError) as info:
        local.gang(work, 3, on_event=Pids(3, act))
    assert type(info.value) is RankLostError
    assert info.value.failure.rank == victim
    assert info.value.failure.cause == "killed by signal 9 (SIGKILL)"
    vanish(*pids, timeout_s=0.1)
    assert local.gang(total, 2).results == [3, 3]


def test_a_stopped_rank_is_given_up_and_killed(vanish: Vanish, nothing_left_behind: None) -> None:
    pids: list[int] = []

    def act(found: list[int]) -> None:
        pids.extend(found)
        time.sleep(1.2)  # a sign of life comes each second
        os.kill(found[1], signal.SIGSTOP)

    with LocalEngine(preload=(), hang_s=1.5) as engine:
        with within(BAR_S), pytest.raises(RankLostError, match="no sign of life for") as info:
            engine.gang(ring_for_ever, 2, on_event=Pids(2, act))
        failure = info.value.failure
        assert failure.rank == 1
        assert f"(process {pids[1]}: stopped)" in failure.cause
        assert failure.log_tail[0] == "where it was at its last sign of life:"
        assert any("in ring_for_ever" in line for line in failure.log_tail)
        vanish(*pids, timeout_s=0.1)


def test_a_rank_that_does_not_join_is_given_up(
    local: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.engines.local.JOIN_S", 0.5)
    monkeypatch.setattr("sixfold.distributed.engines.local.POLL_S", 0.1)
    fork = ForkServer.fork

    def fork_and_stop(server: ForkServer, *arguments: Any) -> Child:
        child = fork(server, *arguments)
        child.kill(signal.SIGSTOP)
        return child

    monkeypatch.setattr(ForkServer, "fork", fork_and_stop)
    with within(BAR_S), pytest.raises(RankLostError, match=r"did not join within 0\.5 s"):
        local.gang(total, 1)


def test_what_a_rank_has_started_ends_with_it(local: LocalEngine, vanish: Vanish) -> None:
    def work(world: World) -> None:
        helper = subprocess.Popen(["sleep", "60"])
        world.report({"pid": helper.pid})
        time.sleep(0.2)

    pids: list[int] = []
    local.gang(work, 2, on_event=lambda _, event: pids.append(event["pid"]))
    assert len(pids) == 2
    vanish(*pids)


def test_a_result_that_is_not_plain_is_explained(local: LocalEngine) -> None:
    with pytest.raises(RankRaisedError, match="can hand over only plain data"):
        local.gang(lambda world: np.zeros(3), 1)


def test_what_the_launcher_callback_raises_ends_the_gang(
    local: LocalEngine, vanish: Vanish
) -> None:
    pids: list[int] = []

    def on_event(rank: int, event: PlainData) -> None:
        pids.append(event["pid"])
        if len(pids) == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        local.gang(compute_for_ever, 2, on_event=on_event)
    vanish(*pids, timeout_s=0.1)


def test_a_function_that_cannot_be_sent_fails_before_anything_starts(local: LocalEngine) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError):
        local.gang(lambda world: lock.locked(), 1)


# Restarts.


def test_a_lost_rank_restarts_the_whole_gang_with_a_new_claim(
    local: LocalEngine, tmp_path: Path
) -> None:
    def work(world: World) -> list[int]:
        (tmp_path / f"{world.attempt}-{world.rank}").touch()
        world.barrier()
        if world.attempt < 12 and world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return [world.attempt, total(world)]

    claims = itertools.count(10)
    gang = local.gang(work, 2, max_restarts=3, claim=lambda: next(claims))
    assert gang.results == [[12, 3], [12, 3]]
    assert gang.restarts == 2
    assert len(list(tmp_path.iterdir())) == 6


def test_restarts_come_to_an_end(local: LocalEngine) -> None:
    def work(world: World) -> None:
        print(f"attempt {world.attempt}", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    with within(BAR_S), pytest.raises(RankLostError, match=r"after 2 restarts") as info:
        local.gang(work, 1, max_restarts=2)
    assert info.value.failure.log_tail == ("attempt 2",)


def test_a_log_that_cannot_be_written_leaves_nothing_behind(
    local: LocalEngine, tmp_path: Path
) -> None:
    with pytest.raises(IsADirectoryError):
        local.gang(total, 1, log=tmp_path)
    with pytest.raises(IsADirectoryError):
        local.pool(abs, [1], workers=1, log=tmp_path)
