from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from sixfold.distributed.engines import spare_servers
from sixfold.distributed.engines.local import LocalEngine
from sixfold.distributed.engines.spare_servers import SpareServers

Vanish = Callable[..., None]


@pytest.fixture
def spares(nothing_left_behind: None) -> Iterator[SpareServers]:
    with contextlib.closing(SpareServers()) as found:
        yield found


def use(spares: SpareServers, *preload: str) -> int:
    """The server's process of an engine that was opened, used and closed."""
    with LocalEngine(preload=preload, spares=spares) as engine:
        assert engine.pool(abs, [-1], workers=1) == [1]
        return engine.warm_up().pid


def test_the_next_engine_takes_the_server_of_the_last(spares: SpareServers) -> None:
    server = use(spares, "json")
    assert use(spares) == server  # it has all that is wanted, and more
    assert use(spares, "decimal") != server


def test_engines_that_are_open_at_the_same_time_have_servers_of_their_own(
    spares: SpareServers,
) -> None:
    with (
        LocalEngine(preload=(), spares=spares) as one,
        LocalEngine(preload=(), spares=spares) as two,
    ):
        pids = {one.warm_up().pid, two.warm_up().pid}
        assert len(pids) == 2
    assert use(spares) in pids


def test_only_a_few_wait(spares: SpareServers, vanish: Vanish) -> None:
    pids = [use(spares, name) for name in ("json", "decimal", "fractions")]
    vanish(pids[0], timeout_s=0.1)
    assert use(spares, "fractions") == pids[2]


def test_a_server_from_another_environment_is_not_taken(
    spares: SpareServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = use(spares)
    monkeypatch.setenv("SIXFOLD_TEST", "1")
    assert use(spares) != server


def test_a_dead_server_is_not_taken(spares: SpareServers, vanish: Vanish) -> None:
    server = use(spares)
    os.kill(server, signal.SIGKILL)
    vanish(server)
    assert use(spares) != server


def test_a_server_is_kept_only_if_its_processes_are_gone(spares: SpareServers) -> None:
    server = spares.take((), {})
    output = os.open(os.devnull, os.O_WRONLY)
    child = server.fork(_sleep, [output], lambda _: None)
    os.close(output)
    spares.give_back(server)
    assert child.wait(5.0)
    assert not server.alive


def _sleep(_: list[int]) -> None:
    time.sleep(60.0)


def test_a_server_that_nobody_wants_ends_by_itself(
    spares: SpareServers, monkeypatch: pytest.MonkeyPatch, vanish: Vanish
) -> None:
    monkeypatch.setattr(spare_servers, "IDLE_S", 0.2)
    server = use(spares)  # so near to its end that it is not taken any more
    assert use(spares) != server
    vanish(server)


def test_a_server_that_is_taken_does_not_end_by_itself(
    spares: SpareServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spare_servers, "IDLE_S", 0.3)
    monkeypatch.setattr(spare_servers, "MARGIN_S", -60.0)
    server = use(spares)
    with LocalEngine(preload=(), spares=spares) as engine:
        assert engine.warm_up().pid == server
        time.sleep(0.5)
        assert engine.pool(abs, [-2], workers=1) == [2]


def test_nothing_is_left_when_the_process_ends() -> None:
    code = (
        "from sixfold.distributed.engines import open_engine\n"
        "with open_engine('local', preload=()) as engine:\n"
        "    print(engine.warm_up().pid)\n"
        "import psutil\n"
        "print(*(child.pid for child in psutil.Process().children()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    server, waiting = done.stdout.split()
    assert server == waiting
    assert done.stderr == ""
    assert not psutil.pid_exists(int(server))
