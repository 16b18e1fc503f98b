"""A process group of threads on real sockets: what ranks do, without processes."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.generation import Patience
from sixfold.distributed.process_group.membership import Place, run_rank
from sixfold.distributed.process_group.rendezvous import Rendezvous


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread and no file descriptor outlives a test."""
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    deadline = time.monotonic() + 2.0
    while set(threading.enumerate()) - threads or _descriptors() > descriptors:
        assert time.monotonic() < deadline, (threading.enumerate(), _descriptors(), descriptors)
        time.sleep(0.01)
        gc.collect()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class ThreadGroup:
    """Ranks in threads, and the launcher's side of them."""

    def __init__(self, rendezvous: Rendezvous) -> None:
        self.rendezvous = rendezvous
        self.errors: dict[int, BaseException] = {}
        self._threads: list[threading.Thread] = []

    def start(
        self,
        function: Callable[[Communicator], Any],
        rank: int,
        *,
        generation: int = 0,
        size: int = 0,
    ) -> threading.Thread:
        """Start one rank."""

        def work() -> None:
            try:
                place = Place(
                    address=self.rendezvous.address,
                    secret=self.rendezvous.secret,
                    rank=rank,
                    size=size or self.rendezvous.size,
                    generation=generation,
                )
                run_rank(function, place, host="here")
            except BaseException as error:
                self.errors[rank] = error

        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def start_all(self, function: Callable[[Communicator], Any], *, generation: int = 0) -> None:
        """Start every rank."""
        for rank in range(self.rendezvous.size):
            self.start(function, rank, generation=generation)

    def poll_until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Poll until something is true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "too slow"
            self.rendezvous.poll(0.02)

    def run(self, function: Callable[[Communicator], Any]) -> list[Any]:
        """Start every rank and return the results."""
        self.start_all(function)
        self.poll_until(
            lambda: self.rendezvous.now.finished or self.rendezvous.now.fault is not None
        )
        assert self.rendezvous.now.fault is None, self.rendezvous.now.fault
        return self.rendezvous.now.results

    def close(self) -> None:
        """Close the rendezvous and wait for the ranks."""
        self.rendezvous.close()
        for thread in self._threads:
            thread.join(10.0)
            assert not thread.is_alive()


@pytest.fixture
def group_of() -> Iterator[Callable[..., ThreadGroup]]:
    """Makes process groups of a size; options are those of `Rendezvous` and `Patience`."""
    groups: list[ThreadGroup] = []

    def make(size: int, **options: Any) -> ThreadGroup:
        given = {name: options.pop(name) for name in list(options) if name.endswith("_s")}
        groups.append(ThreadGroup(Rendezvous(size, patience=Patience(**given), **options)))
        return groups[-1]

    yield make
    for group in groups:
        group.close()


@pytest.fixture
def no_thread_for_callers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From a number of callers on, listeners of this process can start no thread for one."""
    start = threading.Thread.start

    def refuse_after(callers: int) -> None:
        left = iter(range(callers))

        def start_or_fail(thread: threading.Thread) -> None:
            if thread.name == "sixfold-caller" and next(left, None) is None:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_fail)

    return refuse_after
