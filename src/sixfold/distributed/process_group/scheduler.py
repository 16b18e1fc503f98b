"""Functions that take turns: exactly one runs at a time, and it gives way only when it says so.

The function whose turn it is runs until it calls `wait_until` with a condition that does not hold
yet, or ends; the next in order whose condition holds goes on. So shared data needs no locks, the
order of events is the same in every run, and a deadlock is seen the moment it happens. Ranks of the
inline engine run this way, and the logical shards of a rank through synchronised batch-norm.
"""

import contextlib
import contextvars
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


LOST_WAKE_S = 1.0
"""After which a sleeping thread looks by itself whether it is its turn."""


class DeadlockError(RuntimeError):
    """Every function that has not ended waits for something that nobody is left to bring about."""

    def __init__(self, waits: Mapping[int, str]) -> None:
        self.waits = dict(waits)  # number of the function -> what it waits for
        super().__init__("deadlock: " + "; ".join(self.waits.values()))


class _AbandonedError(BaseException):
    """Unwinds a function because another one has failed. No `except Exception` stops it."""


class CooperativeScheduler(Generic[Value]):
    """One round of functions that take turns; use it once.

    The first runs in the calling thread (a debugger and Ctrl-C work there), the others in threads
    of their own. Context variables pass to them, settings that torch keeps per thread (`no_grad`,
    autocast, the number of threads) do not.

    >>> turns, heard = CooperativeScheduler(), []
    >>> def sing(name):
    ...     for verse in (1, 2):
    ...         heard.append(f"{name}{verse}")
    ...         turns.wait_until(lambda: len(heard) >= 2 * verse)
    ...     return name.upper()
    >>> turns.run([lambda: sing("a"), lambda: sing("b")]), heard
    (['A', 'B'], ['a1', 'b1', 'b2', 'a2'])
    """

    def __init__(self, *, on_switch: Callable[[int, int], None] | None = None) -> None:
        """Prepare a round; `on_switch(from, to)` is called before `to` goes on."""
        self.current = 0  # number of the function that is running
        self._on_switch = on_switch
        self._wakes: list[threading.Lock] = []
        self._conditions: list[Callable[[], bool] | None] = []
        self._reasons: list[Callable[[], str]] = []
        self._ended: list[bool] = []
        self._values: list[Any] = []
        self._failure: tuple[int, BaseException] | None = None

    @property
    def failed(self) -> int | None:
        """Number of the first function that raised; None while none has."""
        return None if self._failure is None else self._failure[0]

    def run(self, functions: Sequence[Callable[[], Value]]) -> list[Value]:
        """Run all functions to their ends; what they return, in their order.

        Raises what the first function to fail raised, or `DeadlockError`. The others are abandoned:
        their `wait_until` raises, so that their ``finally`` clauses run, one at a time.
        """
        count = len(functions)
        self._wakes = [threading.Lock() for _ in range(count)]
        self._conditions = [None] * count
        self._reasons = [str] * count
        self._ended = [False] * count
        self._values = [None] * count
        threads = [
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(self._play, number, functions[number]),
                daemon=True,
                name=f"turn-{number}",
            )
            for number in range(1, count)
        ]
        try:
            for thread in threads:
                thread.start()
        except BaseException as error:  # Ctrl-C, or no more threads to be had
            self._fail(0, error)
            self._give_up()
        if functions:
            self._play(0, functions[0])
        for thread in threads:
            self._join(thread)
        if self._failure is not None:
            raise self._failure[1]
        return self._values

    def wait_until(
        self, condition: Callable[[], bool], reason: Callable[[], str] | str = "unknown"
    ) -> None:
        """Go on when `condition()` holds; let the others run until then.

        The condition is cheap, without side effects, and called in any of the threads.
        """
        me = self.current
        self._check()
        if condition():
            return
        self._conditions[me] = condition
        self._reasons[me] = reason if callable(reason) else lambda: reason
        try:
            self._pass_on(me)
        except BaseException as error:  # from a condition or `on_switch`, or Ctrl-C
            self._fail(me, error)
        self._await_turn(me)
        self._conditions[me] = None
        self._check()

    def _join(self, thread: threading.Thread) -> None:
        """Wait for a thread's end, and let Ctrl-C hasten it."""
        while thread.is_alive():
            try:
                thread.join()
            except BaseException as error:
                self._interrupted(0, error)

    def _check(self) -> None:
        if self._failure is not None:
            raise _AbandonedError

    def _play(self, me: int, function: Callable[[], Value]) -> None:
        """The life of one function's thread."""
        self._await_turn(me)
        try:
            self._check()
            self._values[me] = function()
        except _AbandonedError:
            pass
        except BaseException as error:
            self._fail(me, error)
        self._await_turn(me)  # Ctrl-C may have come in another's
        self._ended[me] = True
        self._pass_on(me)

    def _fail(self, me: int, error: BaseException) -> None:
        if self._failure is None:
            self._failure = (me, error)

    def _await_turn(self, me: int) -> None:
        # `current` tells whose turn it is; the lock only wakes the thread. So nothing goes wrong
        # when Ctrl-C strikes the calling thread between any two of its instructions, but that a
        # wake may get lost: therefore the time limit.
        while self.current != me and not self._ended[me]:
            try:
                self._wakes[me].acquire(timeout=LOST_WAKE_S)
            except BaseException as error:
                self._interrupted(me, error)

    def _interrupted(self, me: int, error: BaseException) -> None:
        """Ctrl-C in another's turn: all end at their next switch, each in its turn.

        The second time they are left behind, to end as they come to it.
        """
        if self._failure is not None:
            self._give_up()
            raise error
        self._fail(me, error)

    def _give_up(self) -> None:
        """Nobody's turn counts any more: wake all to end as they are."""
        self._ended = [True] * len(self._ended)
        for wake in self._wakes:
            with contextlib.suppress(RuntimeError):
                wake.release()

    def _pass_on(self, me: int) -> None:
        """Give the turn to the next function that can go on."""
        successor = self._successor(me)
        if successor is None and not all(self._ended):
            waits = {
                number: self._reasons[number]()
                for number, ended in enumerate(self._ended)
                if not ended
            }
            self._fail(min(waits), DeadlockError(waits))
            successor = self._successor(me)  # all go on now, and find out
        if successor is None or successor == me:
            return
        if self._on_switch is not None:
            self._on_switch(me, successor)
        self.current = successor
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._wakes[successor].release()

    def _successor(self, me: int) -> int | None:
        """The next function, in cyclic order, that has not ended and whose condition holds."""
        count = len(self._ended)
        for distance in range(1, count + 1):
            number = (me + distance) % count
            condition = self._conditions[number]
            if not self._ended[number] and (
                condition is None or self._failure is not None or condition()
            ):
                return number
        return None
