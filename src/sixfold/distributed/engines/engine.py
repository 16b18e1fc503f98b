"""What every engine offers: `run_ranks` and `pool`. An engine knows nothing of training."""

import collections
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import cloudpickle

from sixfold.core.cpu_isa import NATIVE, keep_to
from sixfold.distributed.process_group import Communicator, PlainData
from sixfold.distributed.process_group.ambient import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOPBACK = "127.0.0.1"  # the interface on which only this machine can call

RankFunction = Callable[[Communicator], Any]
"""Run by every rank; picklable; returns plain data (what JSON can hold)."""


@dataclass(frozen=True)
class GroupCall:
    """The arguments of one call of `Engine.run_ranks`."""

    function: RankFunction
    size: int
    least: int | None  # ranks with which it goes on when some are lost; None: not with fewer
    max_restarts: int
    claim: Callable[[], int] | None
    on_event: Callable[[int, PlainData], None] | None
    log: Path | None


@dataclass(frozen=True)
class PoolCall(Generic[Item, Result]):
    """The arguments of one call of `Engine.pool`."""

    function: Callable[[Item], Result]
    items: Sequence[Item]
    workers: int
    retries: int
    after: Sequence[Sequence[int]] | None
    on_done: Callable[[int, Result], Sequence[Item] | None]
    log: Path | None


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """What became of a process group."""

    results: list[Any]  # what each rank's function returned, by rank
    # how often the whole process group was started again, or a rank replaced
    restarts: int
    startup_s: float  # from the call until every rank of the first attempt had met the others
    # of these, seconds that passed before the engine ran the first line of our code in every rank
    # (session start, scheduling, process start)
    engine_s: float


class Engine(ABC):
    """Where functions run: `inline`, `local` or `spark`. Close it, or use it in a `with`."""

    name: str
    tls = False  # whether what processes tell each other is encrypted
    cpu_isa = NATIVE  # the instruction set with which ranks and workers compute

    def slots(self) -> int:
        """How many ranks can run at the same time: cores of this machine, slots of a cluster."""
        return cores()

    def hosts(self) -> tuple[str, str]:
        """The address to listen on for calls from a `pool`, and the one by which items reach it."""
        return LOOPBACK, LOOPBACK

    def run_ranks(
        self,
        function: RankFunction,
        size: int,
        *,
        least: int | None = None,
        max_restarts: int = 0,
        claim: Callable[[], int] | None = None,
        on_event: Callable[[int, PlainData], None] | None = None,
        log: Path | None = None,
    ) -> GroupResult:
        """Run `function(comm)` on `size` ranks that talk to each other.

        The function is picklable and returns plain data. A group that lost a rank is started again
        from the beginning, at most `max_restarts` times. With `least` the others go on: each
        exchange raises a `PeerLostError`, after which the function calls `comm.renew()`; at most
        `max_restarts` processes are started in the place of lost ones, and fewer than `least` ranks
        wait for them. A process that comes later is called with a `comm` whose view is 0, and
        calls `comm.renew()` when it is ready. In the launcher `claim` is called before any rank of
        an attempt, or view, runs and returns the attempt's number, `on_event` with (rank, event)
        for every `comm.report`. What ranks print is appended to `log`, by lines, each with its
        rank.

        Raises:
            UserError: if a rank raised one, or if the engine cannot provide `size` ranks.
            RankRaisedError: if the function raised in a rank. Not restarted.
            RankLostError: if a rank died and no restart was left.
            KeyboardInterrupt: after all ranks were stopped, if the user pressed Ctrl-C.
        """
        function = keeping_to(self.cpu_isa, function)
        call = GroupCall(function, size, least, max_restarts, claim, on_event, log)
        return self._run_ranks(call)

    def pool(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        workers: int,
        retries: int = 2,
        after: Sequence[Sequence[int]] | None = None,
        on_done: Callable[[int, Result], Sequence[Item] | None] | None = None,
        log: Path | None = None,
    ) -> list[Result]:
        """Map `function` over items, each handed to whichever worker is free; results in order.

        Function and items are picklable, results plain data. An item whose worker dies is given to
        another, at most `retries` times; each item's result is accepted exactly once, and `on_done`
        is called in the launcher with (index, result). It may return more items, which come after
        all others. `after` has for each item the indices of those whose results must have arrived
        before it is handed out. `log` as for `run_ranks`.

        Raises:
            UserError: if the function raised one for an item.
            RankRaisedError: if the function raised anything else for an item; others are stopped.
            RankLostError: if an item's workers died more often than `retries`.
        """
        on_done = on_done or (lambda _index, _result: None)
        function = keeping_to(self.cpu_isa, function)
        return self._pool(PoolCall(function, items, workers, retries, after, on_done, log))

    @abstractmethod
    def _run_ranks(self, call: GroupCall) -> GroupResult: ...

    @abstractmethod
    def _pool(self, call: PoolCall[Item, Result]) -> list[Result]: ...

    @abstractmethod
    def close(self) -> None:
        """End everything that the engine started; harmless if called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def keeping_to(cpu_isa: str, function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """A function before which its process is told with which instruction set it computes."""
    return function if cpu_isa == NATIVE else _Keeping(cpu_isa, cloudpickle.dumps(function))


@dataclass(frozen=True)
class _Keeping:
    """A function that stays packed until then: what it takes to unpack it may load torch."""

    cpu_isa: str
    body: bytes

    def __call__(self, argument: Any) -> Any:
        keep_to(self.cpu_isa)
        return cloudpickle.loads(self.body)(argument)


class ItemQueue:
    """A pool's items, 0 to count - 1 in order; one is ready when all it comes `after` are done.

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

    def add(self, count: int) -> None:
        """So many items more, which come after none."""
        self._waiting.extend(range(len(self._missing), len(self._missing) + count))
        self._missing += [set() for _ in range(count)]

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
