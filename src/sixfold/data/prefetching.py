"""Making the next batches while the present one is computed with."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Done:
    """Last message of the thread: there are no more items, because of `error` if there is one."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Prefetcher(Generic[T]):
    def __init__(self, items: Iterable[T], depth: int) -> None:
        self._items = items
        self._ready: queue.Queue[T | _Done] = queue.Queue(depth)
        self._closing = threading.Event()
        self._end: _Done | None = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._end is None:
            item = self._ready.get()
            if not isinstance(item, _Done):
                return item
            self._end = item
            if item.error is not None:
                raise item.error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._closing.set()
        while self._thread.is_alive():
            # The thread may be waiting for room.
            try:
                self._ready.get(timeout=0.01)
            except queue.Empty:
                self._thread.join(0.01)
        self._end = self._end or _Done(None)

    def _run(self) -> None:
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(1)
        error: BaseException | None = None
        iterator = iter(self._items)
        try:
            for item in iterator:
                self._ready.put(item)
                if self._closing.is_set():
                    break
        except BaseException as raised:  # handed to whoever asks for the next item
            error = raised
        finally:
            # Frees what the items hold before the thread ends.
            if isinstance(iterator, Generator):
                iterator.close()
            self._ready.put(_Done(error))


@contextmanager
def prefetch(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """Take items in a background thread, at most `depth` ahead.

    An exception raised while making an item is raised where that item is asked for. Leaving the
    `with` block, early or not, ends the thread.

    >>> with prefetch(range(3), 2) as numbers:
    ...     list(numbers)
    [0, 1, 2]
    """
    if depth < 1:
        raise ValueError(f"depth {depth}: at least one item must be able to wait")
    prefetcher = _Prefetcher(items, depth)
    try:
        yield prefetcher
    finally:
        prefetcher.close()
