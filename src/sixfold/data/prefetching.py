"""Making the next batches while the present one is computed with."""

import queue
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def prefetch(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """Take items in a background thread, at most `depth` ahead; in this one if that is 0.

    An exception raised while making an item is raised where that item is asked for. Leaving the
    `with` block, early or not, ends the thread.

    >>> with prefetch(range(3), 2) as numbers:
    ...     list(numbers)
    [0, 1, 2]
    """
    if depth < 0:
        raise ValueError(f"depth {depth}: expected 0 or more")
    if depth == 0:
        yield iter(items)
        return
    # (whether it is an item, the item or what ended them)
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    closing = threading.Event()
    thread = threading.Thread(
        target=_make, args=(items, ready, closing), name="prefetch", daemon=True
    )
    thread.start()
    taken = _taken(ready)
    try:
        yield taken
    finally:
        closing.set()
        while thread.is_alive():
            try:  # the thread may be waiting for room
                ready.get(timeout=0.01)
            except queue.Empty:
                thread.join(0.01)
        taken.close()


def _make(items: Iterable[Any], ready: queue.Queue[Any], closing: threading.Event) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
    end: BaseException | None = None
    iterator = iter(items)
    try:
        for item in iterator:
            ready.put((True, item))
            if closing.is_set():
                break
    except BaseException as raised:  # handed to whoever asks for the next item
        end = raised
    finally:
        # Frees what the items hold before the thread ends.
        if isinstance(iterator, Generator):
            iterator.close()
        ready.put((False, end))


def _taken(ready: queue.Queue[tuple[bool, Any]]) -> Generator[Any, None, None]:
    while True:
        is_item, found = ready.get()
        if is_item:
            yield found
        elif found is None:
            return
        else:
            raise found
