"""What happens when the fork server dies or hangs, or the launcher itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.marks import quick

from sixfold.core.errors import RankLostError
from sixfold.distributed.engines.local import LocalEngine
from sixfold.distributed.process_group import Communicator, PlainData
from sixfold.distributed.process_group.generation import Patience

Vanish = Callable[..., None]

BAR_S = 10.0
"""Within which a run must end after something has died."""


def total(comm: Communicator) -> int:
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    received = {rank: np.zeros(1, np.int64) for rank in others}
    comm.exchange(dict.fromkeys(others, np.array([comm.rank + 1])), received)
    return comm.rank + 1 + int(sum(array[0] for array in received.values()))


def meet_for_ever(comm: Communicator) -> None:
    comm.report({"pid": os.getpid()})
    while True:
        comm.barrier()


class Pids:
    """Collects the processes of two ranks from their first events, and acts when both are there."""

    def __init__(self, act: Callable[[list[int]], None]) -> None:
        self.pids: dict[int, int] = {}
        self._act = act

    def __call__(self, rank: int, event: PlainData) -> None:
        if "pid" not in event:  # a note on the loss
            return
        self.pids[rank] = event["pid"]
        if len(self.pids) == 2:
            threading.Timer(0.1, self._act, [[self.pids.pop(0), self.pids.pop(1)]]).start()


@contextlib.contextmanager
def within(limit_s: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit_s


def test_the_death_of_the_fork_server_is_the_death_of_its_ranks(
    own_local: LocalEngine, vanish: Vanish
) -> None:
    pids: list[int] = []

    def act(found: list[int]) -> None:
        pids.extend(found)
        os.kill(own_local.warm_up().pid, signal.SIGKILL)

    with within(BAR_S), pytest.raises(RankLostError, match="fork server") as info:
        own_local.run_ranks(meet_for_ever, 2, on_event=Pids(act))
    assert "was killed by signal 9" in info.value.failure.cause
    vanish(*pids, timeout_s=0.1)
    assert own_local.run_ranks(total, 2).results == [3, 3]  # with a new server


def test_a_group_is_restarted_with_a_new_server(own_local: LocalEngine) -> None:
    def work(comm: Communicator) -> int:
        if comm.attempt == 0:
            meet_for_ever(comm)
        return total(comm)

    act = Pids(lambda _: os.kill(own_local.warm_up().pid, signal.SIGKILL))
    group = own_local.run_ranks(work, 2, max_restarts=1, on_event=act)
    assert group.results == [3, 3]
    assert group.restarts == 1


LAUNCHER = textwrap.dedent("""
    import os, sys, time
    from sixfold.distributed.engines import group_run
    from sixfold.distributed.engines.local import LocalEngine

    group_run.STOP_S = 1.0  # less patient than it is with users

    def work(world):
        world.report({"pid": os.getpid()})
        if sys.argv[-1] == "gentle":
            while not world.should_stop():
                time.sleep(0.01)
            open(f"stopped-{world.rank}", "w").close()
            return
        while True:
            world.barrier() if sys.argv[-1] == "exchange" else time.sleep(0.05)

    def item(number):
        print(os.getpid(), flush=True)
        time.sleep(60)

    seen = []
    def on_event(rank, event):
        seen.append(event["pid"])
        if len(seen) == 2:
            print(*seen, engine.warm_up().pid, flush=True)

    with LocalEngine(preload=()) as engine:
        if sys.argv[-1] == "pool":
            print(0, 0, engine.warm_up().pid, flush=True)
            engine.pool(item, [1, 2], workers=2)
        engine.run_ranks(work, 2, on_event=on_event)
""")


Launch = Callable[[str], tuple["subprocess.Popen[str]", list[int]]]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts a launcher in a process of its own; gives it and its ranks' and server's numbers."""
    with contextlib.ExitStack() as stack:

        def start(mode: str) -> tuple[subprocess.Popen[str], list[int]]:
            script = tmp_path / "launcher.py"
            script.write_text(LAUNCHER)
            launcher = subprocess.Popen(
                [sys.executable, str(script), mode],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                start_new_session=True,
            )
            stack.enter_context(launcher)
            stack.callback(launcher.kill)
            assert launcher.stdout is not None
            pids = [int(word) for word in launcher.stdout.readline().split()]
            assert len(pids) == 3
            return launcher, workers_of(pids[2]) if mode == "pool" else pids

        yield start


def workers_of(server: int) -> list[int]:
    """The two workers of a pool, once they run, and their server."""
    deadline = time.monotonic() + 10.0
    while len(workers := psutil.Process(server).children()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [*(worker.pid for worker in workers), server]


@pytest.mark.parametrize("mode", ["compute", "exchange", "pool"])
def test_nothing_survives_the_launcher(launch: Launch, vanish: Vanish, mode: str) -> None:
    launcher, pids = launch(mode)
    time.sleep(0.1)
    launcher.kill()
    launcher.communicate()
    vanish(*pids)


@pytest.mark.parametrize("mode", quick(["compute", "exchange", "gentle", "pool"], "compute"))
def test_ctrl_c_stops_all_ranks(launch: Launch, vanish: Vanish, mode: str, tmp_path: Path) -> None:
    launcher, pids = launch(mode)
    time.sleep(0.1)
    with within(BAR_S):
        os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does
        _, error = launcher.communicate(timeout=20)
    assert launcher.returncode in (130, -signal.SIGINT)
    assert error.strip().endswith("KeyboardInterrupt")
    vanish(*pids, timeout_s=0.5)
    if mode == "gentle":
        assert {path.name for path in tmp_path.glob("stopped-*")} == {"stopped-0", "stopped-1"}


def test_an_impatient_ctrl_c_ends_at_once(launch: Launch, vanish: Vanish) -> None:
    launcher, pids = launch("compute")
    with within(4.0):
        for _ in range(3):
            time.sleep(0.1)
            os.killpg(launcher.pid, signal.SIGINT)
        launcher.communicate(timeout=20)
    vanish(*pids)


@pytest.mark.full
def test_a_stuck_server_does_not_hold_up_the_end(
    nothing_left_behind: None, vanish: Vanish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.engines.local_ranks.END_S", 0.5)
    monkeypatch.setattr("sixfold.distributed.engines.forks.END_S", 0.5)
    pids: list[int] = []
    engine = LocalEngine(preload=(), patience=Patience(hang_s=1.5))

    def act(found: list[int]) -> None:
        pids.extend(found)
        os.kill(engine.warm_up().pid, signal.SIGSTOP)
        os.kill(found[0], signal.SIGSTOP)

    with engine, within(BAR_S), pytest.raises(RankLostError, match="no sign of life"):
        engine.run_ranks(meet_for_ever, 2, on_event=Pids(act))
    vanish(*pids)


def test_closing_twice_is_harmless_and_closing_once_ends_the_server(vanish: Vanish) -> None:
    engine = LocalEngine(preload=())
    pid = engine.warm_up().pid
    engine.close()
    engine.close()
    vanish(pid, timeout_s=0.1)


def test_a_server_that_cannot_start_is_told(
    monkeypatch: pytest.MonkeyPatch, nothing_left_behind: None
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with LocalEngine() as engine:
        with pytest.raises(RankLostError, match=r"could not be started.*fork server .*status 1"):
            engine.run_ranks(total, 1, max_restarts=1)
        with pytest.raises(RankLostError, match=r"could not be started.*fork server .*status 1"):
            engine.pool(abs, [1], workers=1)


def test_a_server_that_dies_while_it_starts_is_replaced(own_local: LocalEngine) -> None:
    os.kill(own_local.warm_up().pid, signal.SIGKILL)
    assert own_local.run_ranks(total, 2, max_restarts=1).results == [3, 3]


def test_a_server_that_does_not_answer_is_given_up(
    own_local: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.engines.forks.START_S", 0.3)
    monkeypatch.setattr("sixfold.distributed.engines.forks.END_S", 0.2)
    os.kill(own_local.warm_up().pid, signal.SIGSTOP)
    with within(BAR_S), pytest.raises(RankLostError, match=r"did not start it within 0\.3 s"):
        own_local.run_ranks(total, 1)
