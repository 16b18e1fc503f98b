"""The items of a pool that wait, in order, some of them for the results of others."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter


class ItemQueue:
    """The numbers 0 to count - 1 in order; one is ready when all that it comes `after` are done.

    A `ValueError` says that this can never be satisfied.

    >>> queue = ItemQueue(3, after=[[2], [], []])
    >>> queue.take(), queue.take(), queue.take()
    (1, 2, None)
    >>> queue.done(2)
    >>> queue.take()
    0
    """

    def __init__(self, count: int, after: Sequence[Sequence[int]] | None = None) -> None:
        self._missing = [set(numbers) for numbers in after or [()] * count]
        if len(self._missing) != count:
            raise ValueError(f"{count} items, but {len(self._missing)} lists of what they follow")
        if any(not 0 <= number < count for numbers in self._missing for number in numbers):
            raise ValueError("an item comes after one that does not exist")
        try:
            TopologicalSorter(dict(enumerate(self._missing))).prepare()
        except CycleError as error:
            raise ValueError(f"items wait for each other: {error.args[1]}") from None
        self._waiting = collections.deque(range(count))

    def __bool__(self) -> bool:
        """Whether any item waits, ready or not."""
        return bool(self._waiting)

    def take(self) -> int | None:
        """The first item that is ready, which waits no longer; None if none is."""
        for number in self._waiting:
            if not self._missing[number]:
                self._waiting.remove(number)
                return number
        return None

    def put_back(self, number: int) -> None:
        """The item waits again, before all others."""
        self._waiting.appendleft(number)

    def done(self, number: int) -> None:
        """The item has a result."""
        for missing in self._missing:
            missing.discard(number)
