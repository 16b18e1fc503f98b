"""Engines that leave nothing behind, and functions of tests that travel to other processes."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import psutil
import pytest

from sixfold.distributed.engines.local import LocalEngine


@pytest.fixture(autouse=True, scope="module")
def functions_travel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Test modules cannot be imported by ranks, so their functions are sent whole."""
    module = sys.modules[request.module.__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def alive(process: psutil.Process) -> bool:
    """Whether it runs; one that is only waiting to be reaped by somebody does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def vanish() -> Callable[..., None]:
    """Waits until processes are gone, and fails if they do not go."""

    def wait(*pids: int, timeout_s: float = 5.0) -> None:
        processes = []
        for pid in pids:
            try:
                processes.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        deadline = time.monotonic() + timeout_s
        while left := [process for process in processes if alive(process)]:
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.02)

    return wait


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """No thread, file descriptor or process outlives the engine of a test."""
    before = set(threading.enumerate())
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    children = set(psutil.Process().children(recursive=True))

    def left() -> list[object]:
        found: list[object] = [*(set(threading.enumerate()) - before)]
        found += [
            process
            for process in psutil.Process().children(recursive=True)
            if process not in children and alive(process)
        ]
        found += sorted(Path("/proc/self/fd").iterdir())[descriptors:]
        return found

    yield
    deadline = time.monotonic() + 2.0
    while left():
        assert time.monotonic() < deadline, left()
        time.sleep(0.02)
        gc.collect()


@pytest.fixture(scope="module")
def started() -> Iterator[LocalEngine]:
    """An engine whose ranks import nothing large; its server runs already."""
    with LocalEngine(preload=()) as engine:
        engine.pool(abs, [0], workers=1)
        yield engine


@pytest.fixture
def local(started: LocalEngine, nothing_left_behind: None) -> LocalEngine:
    """The engine of a file's tests, of which each leaves nothing but the server behind."""
    return started


@pytest.fixture
def own_local(nothing_left_behind: None) -> Iterator[LocalEngine]:
    """An engine of the test's own, whose server may be killed."""
    with LocalEngine(preload=()) as engine:
        yield engine
