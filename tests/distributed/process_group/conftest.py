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
from sixfold.distributed.process_group.membership import run_rank
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


class ThreadGang:
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
                run_rank(
                    function,
                    self.rendezvous.address,
                    self.rendezvous.secret,
                    rank=rank,
                    size=size or self.rendezvous.size,
                    generation=generation,
                    host="here",
                )
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
        self.poll_until(lambda: self.rendezvous.finished or self.rendezvous.fault is not None)
        assert self.rendezvous.fault is None, self.rendezvous.fault
        return self.rendezvous.results

    def close(self) -> None:
        """Close the rendezvous and wait for the ranks."""
        self.rendezvous.close()
        for thread in self._threads:
            thread.join(10.0)
            assert not thread.is_alive()


@pytest.fixture
def gang_of() -> Iterator[Callable[..., ThreadGang]]:
    """Makes process groups of a size; keyword arguments go to `Rendezvous`."""
    gangs: list[ThreadGang] = []

    def make(size: int, **options: Any) -> ThreadGang:
        gangs.append(ThreadGang(Rendezvous(size, **options)))
        return gangs[-1]

    yield make
    for group in gangs:
        group.close()
