"""Ranks as threads of this process that take turns: for debugging, and for fast tests.

A rank runs until it waits for another one in an exchange; then the next rank goes on. Breakpoints
and tracebacks are those of ordinary code, a deadlock is reported at once with who waits for whom,
and an exchange that works only because a buffer happens to take it in is a deadlock here. Each
rank has its own random state. A rank cannot die, so there are no restarts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

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
from sixfold.distributed.engines.rank_log import RankLog, RankWriter
from sixfold.distributed.process_group import Buffer, Communicator, PlainData, wire
from sixfold.distributed.process_group.ambient import (
    Randomness,
    one_thread,
    own_randomness,
    restore_randomness,
    save_randomness,
    seed_randomness,
    use_one_thread,
)
from sixfold.distributed.process_group.communicator import Finish, bytes_of, check_length
from sixfold.distributed.process_group.faults import Fault, describe
from sixfold.distributed.process_group.malloc import freed_memory_kept
from sixfold.distributed.process_group.scheduler import CooperativeScheduler, DeadlockError


class InlineEngine(Engine):
    """The engine without processes; its slots are the ranks that `local` would start."""

    name = "inline"

    def __init__(self, cpu_isa: str = NATIVE) -> None:
        """Prepare an engine whose ranks compute as this process does, which must fit."""
        keep_to(cpu_isa)
        self.cpu_isa = cpu_isa

    def _run_ranks(self, call: GroupCall) -> GroupResult:
        import torch  # noqa: F401  so that its threads and generators are minded from the start

        began = time.monotonic()
        attempt = call.claim() if call.claim is not None else 0
        host, size = socket.gethostname(), call.size
        with _process_state(call.log) as switch:
            scheduler: CooperativeScheduler[Any] = CooperativeScheduler(on_switch=switch)
            room = _Room(scheduler, size, call.on_event)

            def play(rank: int) -> Any:
                comm = Communicator(
                    rank=rank, size=size, host=host, attempt=attempt, transport=_Seat(room, rank)
                )
                use_one_thread()  # a setting of each thread
                result = _plain(call.function(comm))
                room.finished.add(rank)
                return result

            startup_s = time.monotonic() - began
            try:
                switch(-1, 0)
                results = scheduler.run([functools.partial(play, rank) for rank in range(size)])
            except KeyboardInterrupt:
                raise
            except DeadlockError as error:
                cause, rank = str(error), scheduler.failed or 0
                fault = Fault(kind="raised", rank=rank, host=host, cause=cause)
                raise fault.exception() from error
            except BaseException as error:
                raise describe(error, rank=scheduler.failed or 0, host=host).exception() from error
        return GroupResult(results=results, restarts=0, startup_s=startup_s, engine_s=startup_s)

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


def _plain(value: Any) -> Any:
    """The value as other engines deliver it: through JSON."""
    wire.encode(value)
    return json.loads(json.dumps(value))


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


@dataclass
class _Room:
    """What the ranks of one process group share."""

    scheduler: CooperativeScheduler[Any]
    size: int
    on_event: Callable[[int, PlainData], None] | None
    # (sender, receiver) -> the array that waits to be taken
    posts: dict[tuple[int, int], Buffer] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)  # ranks whose function has returned


@dataclass(frozen=True)
class _Seat:
    """The transport of one rank."""

    room: _Room
    rank: int

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """Post what is to be sent, take what has come, until nothing is left of either."""
        began = time.perf_counter()
        waiting_s = 0.0
        me, posts = self.rank, self.room.posts
        others = [rank for rank in range(self.room.size) if rank != me]
        for peer in {*sends, *receives}.difference(others):
            raise ValueError(f"no rank {peer} to talk to, only {others}")
        for peer, array in sends.items():
            posts[me, peer] = array
        sent, wanted = set(sends), dict(receives)

        def can_go_on() -> bool:
            arrived = any((peer, me) in posts for peer in wanted)
            return arrived or not (wanted or any((me, peer) in posts for peer in sent))

        def reason() -> str:
            names = [
                f"rank {peer}" + (" (which has finished)" if peer in self.room.finished else "")
                for peer in sorted({*sent, *wanted})
            ]
            return f"rank {me} waits for " + " and ".join(names)

        while True:
            for peer in [peer for peer in wanted if (peer, me) in posts]:
                source, target = posts.pop((peer, me)), wanted.pop(peer)
                check_length(peer, source.nbytes, target.nbytes)
                np.copyto(bytes_of(target), bytes_of(source))
            sent = {peer for peer in sent if (me, peer) in posts}
            if not sent and not wanted:
                return time.perf_counter() - began - waiting_s, waiting_s
            since = time.perf_counter()
            self.room.scheduler.wait_until(can_go_on, reason)
            waiting_s += time.perf_counter() - since

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        """Nothing moves until somebody waits for it."""
        return functools.partial(self.exchange, sends, receives)

    def report(self, event: PlainData) -> None:
        """Call the launcher's `on_event` at once."""
        message = _plain(dict(event))
        if self.room.on_event is not None:
            self.room.on_event(self.rank, message)

    def should_stop(self) -> bool:
        """Never: Ctrl-C ends the ranks at once."""
        return False
