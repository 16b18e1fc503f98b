"""Ranks as threads of this process that take turns: for debugging, and for fast tests.

A rank runs until it waits for another one in an exchange; then the next rank goes on. Breakpoints
and tracebacks are those of ordinary code, a deadlock is reported at once with who waits for whom,
and an exchange that works only because a buffer happens to take it in is a deadlock here. Each
rank has its own random state. A rank cannot die, unless a test has it die at an exchange.
"""

import contextlib
import functools
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sixfold.core.cpu_isa import NATIVE, keep_to
from sixfold.distributed.engines.engine import (
    Engine,
    GroupCall,
    GroupResult,
    Item,
    ItemQueue,
    PoolCall,
    Result,
)
from sixfold.distributed.engines.inline_ranks import (
    ElasticRoom,
    InlineSeat,
    Room,
    Strike,
    plain,
)
from sixfold.distributed.engines.rank_log import RankLog, RankWriter
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import (
    Randomness,
    one_thread,
    own_randomness,
    restore_randomness,
    save_randomness,
    seed_randomness,
    use_one_thread,
)
from sixfold.distributed.process_group.faults import describe
from sixfold.distributed.process_group.malloc import freed_memory_kept
from sixfold.distributed.process_group.scheduler import CooperativeScheduler, DeadlockError


class InlineEngine(Engine):
    """The engine without processes; its slots are the ranks that `local` would start."""

    name = "inline"

    def __init__(self, cpu_isa: str = NATIVE, strike: Strike | None = None) -> None:
        """An engine whose ranks compute as this process does, which must fit.

        `strike`, for tests, says at which exchange which rank dies.
        """
        keep_to(cpu_isa)
        self.cpu_isa, self._strike = cpu_isa, strike

    def _run_ranks(self, call: GroupCall) -> GroupResult:
        import torch  # noqa: F401  so that its threads and generators are minded from the start

        began = time.monotonic()
        host = socket.gethostname()
        with _process_state(call.log) as switch:
            scheduler: CooperativeScheduler[Any] = CooperativeScheduler(on_switch=switch)
            room: Room
            if call.least is None:
                room = Room(scheduler, call.size, call.on_event)
                plays = _rigid_plays(room, call, host)
            else:
                room = ElasticRoom(scheduler, call, self._strike)
                plays = [functools.partial(room.play, seat, host) for seat in room.seats()]
            startup_s = time.monotonic() - began
            try:
                switch(-1, 0)
                results = scheduler.run(plays)
            except KeyboardInterrupt:
                raise
            except DeadlockError as error:
                raise room.explain(error, host) from error
            except BaseException as error:
                raise describe(error, rank=scheduler.failed or 0, host=host).exception() from error
        restarts = 0
        if isinstance(room, ElasticRoom):
            results, restarts = room.results(), room.restarts
        return GroupResult(
            results=results, restarts=restarts, startup_s=startup_s, engine_s=startup_s
        )

    def _pool(self, call: PoolCall[Item, Result]) -> list[Result]:
        results: dict[int, Result] = {}
        items = list(call.items)
        queue = ItemQueue(len(items), call.after)
        while (index := queue.take()) is not None:
            with _process_state(call.log) as switch:
                switch(-1, 0)
                try:
                    results[index] = call.function(items[index])
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    host = socket.gethostname()
                    raise describe(error, rank=0, host=host).exception() from error
            queue.done(index)
            more = call.on_done(index, results[index]) or ()
            items.extend(more)
            queue.add(len(more))
        return [results[index] for index in range(len(items))]

    def close(self) -> None:
        """Nothing outlives a call."""


def _rigid_plays(room: Room, call: GroupCall, host: str) -> list[Callable[[], Any]]:
    """The ranks of a group that begins and ends together."""
    attempt = call.claim() if call.claim is not None else 0

    def play(rank: int) -> Any:
        seat = InlineSeat(room, rank, call.size)
        comm = Communicator(rank=rank, size=call.size, host=host, attempt=attempt, transport=seat)
        use_one_thread()  # a setting of each thread
        result = plain(call.function(comm))
        room.finished.add(rank)
        return result

    return [functools.partial(play, rank) for rank in range(call.size)]


@contextmanager
def _process_state(log: Path | None) -> Iterator[Callable[[int, int], None]]:
    """Keep the process's own state, and put it back; yields what exchanges it between ranks.

    Every rank must believe it to be its own.
    """
    kept: dict[int, Randomness] = {}
    streams = contextlib.redirect_stdout(sys.stdout), contextlib.redirect_stderr(sys.stderr)
    with contextlib.ExitStack() as stack:
        for one in (own_randomness(0), one_thread(), freed_memory_kept(), *streams):
            stack.enter_context(one)
        rank_log = None
        if log is not None:
            rank_log = stack.enter_context(contextlib.closing(RankLog(log)))

        def switch(before: int, after: int) -> None:
            kept[before] = save_randomness()
            if after in kept:
                restore_randomness(kept[after])
            else:
                seed_randomness(after)
            if rank_log is not None:
                writer: Any = RankWriter(rank_log, after)
                sys.stdout = sys.stderr = writer

        yield switch
