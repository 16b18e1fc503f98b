import threading
import time
from collections.abc import Iterator

import pytest
import torch

from sixfold.data import prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_items_come_in_order() -> None:
    with prefetch(range(100), 3) as items:
        assert list(items) == list(range(100))
    assert not threads()


def test_work_goes_ahead_but_only_so_far() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with prefetch(make(), 4) as items:
        deadline = time.monotonic() + 5
        while len(made) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(made) == 5  # four wait, one waits for room
        assert next(items) == 0


def test_an_exception_is_raised_where_its_item_is_asked_for() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with prefetch(make(), 2) as items:
        assert next(items) == 1
        with pytest.raises(OSError, match="the disk is gone"):
            next(items)
        with pytest.raises(StopIteration):
            next(items)
    assert not threads()


def test_leaving_early_ends_the_thread_and_closes_the_items() -> None:
    closed = threading.Event()

    def make() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    def leave_by_an_exception() -> None:
        with prefetch(make(), 1) as items:
            next(items)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        leave_by_an_exception()
    assert closed.is_set()
    assert not threads()


def test_the_thread_computes_on_one_thread() -> None:
    before = torch.get_num_threads()
    with prefetch((torch.get_num_threads() for _ in range(1)), 1) as items:
        assert next(items) == 1
    assert torch.get_num_threads() == before


def test_a_depth_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="depth -1"), prefetch([1], -1):
        pass


def test_without_depth_items_are_made_where_they_are_asked_for() -> None:
    with prefetch((threading.current_thread() for _ in range(2)), 0) as threads:
        assert {*threads} == {threading.current_thread()}
