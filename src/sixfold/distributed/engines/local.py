"""Ranks as processes of this machine, one thread each, forked by a server of our own.

The server is started once for an engine and kept for later process groups; see
`sixfold.distributed.engines.fork_server`. Whatever dies - a rank, the server, the launcher - all
others end within seconds.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from sixfold.core.errors import PeerLostError, UserError
from sixfold.distributed.engines.engine import LOOPBACK, Gang, RankFunction
from sixfold.distributed.engines.forks import DRAIN_S, END_S, Child, ForkServer, ServerDiedError
from sixfold.distributed.engines.local_pool import LocalPool
from sixfold.distributed.engines.rank_log import PipeReader, RankLog
from sixfold.distributed.process_group import Communicator, PlainData
from sixfold.distributed.process_group.ambient import cores, use_one_thread
from sixfold.distributed.process_group.control import ORPHAN_STATUS, AttemptEndedError
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.malloc import retain_freed_memory
from sixfold.distributed.process_group.membership import run_rank
from sixfold.distributed.process_group.rendezvous import Rendezvous, with_log
from sixfold.distributed.process_group.wire import Address

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.5
JOIN_S = 120.0
"""For a forked rank to join, which takes milliseconds unless the machine is swapping."""
STOP_S = 2.0
"""For ranks to end by themselves after Ctrl-C, before they are made to."""
TERM_S = 1.0


class LocalEngine:
    """The engine of one machine. See `sixfold.distributed.engines.Engine` for its methods."""

    name = "local"

    def __init__(
        self,
        *,
        preload: Sequence[str] = ("torch",),
        hang_s: float = 60.0,
        stall_s: float = 600.0,
    ) -> None:
        """Prepare an engine; nothing is started yet."""
        self._preload = (*preload, "sixfold.distributed.engines.local")
        self._hang_s = hang_s
        self._stall_s = stall_s
        self._server: ForkServer | None = None
        self._lock = threading.Lock()

    def slots(self) -> int:
        """Cores that this process may use."""
        return cores()

    def hosts(self) -> tuple[str, str]:
        """This machine alone."""
        return LOOPBACK, LOOPBACK

    def warm_up(self) -> ForkServer:
        """Have a server running; its imports go on in the background."""
        with self._lock:
            if self._server is None or not self._server.alive:
                self._drop_server()
                self._server = ForkServer(self._preload)
            return self._server

    def run_ranks(
        self,
        function: RankFunction,
        size: int,
        *,
        max_restarts: int = 0,
        claim: Callable[[], int] | None = None,
        on_event: Callable[[int, PlainData], None] | None = None,
        log: Path | None = None,
    ) -> Gang:
        """Run `function(world)` in `size` processes that talk to each other."""
        began = time.monotonic()
        self.warm_up()
        body = cloudpickle.dumps(function)
        with (
            closing(RankLog(log)) as rank_log,
            closing(PipeReader(rank_log)) as pipes,
            closing(
                Rendezvous(
                    size, claim=claim, on_event=on_event, hang_s=self._hang_s, stall_s=self._stall_s
                )
            ) as rendezvous,
        ):
            group = _LocalGang(rendezvous, pipes, self.warm_up, began)
            for generation in range(max_restarts + 1):
                fault = group.attempt(body, generation)
                if fault is None:
                    break
                pipes.drain(fault.rank, DRAIN_S)
                if not fault.retryable or generation == max_restarts:
                    raise with_log(fault, rank_log.tail(fault.rank)).exception(generation)
            return Gang(
                results=rendezvous.results,
                restarts=rendezvous.restarts,
                startup_s=group.startup_s,
                engine_s=group.engine_s,
            )

    def pool(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        workers: int,
        retries: int = 2,
        after: Sequence[Sequence[int]] | None = None,
        on_done: Callable[[int, Result], None] | None = None,
        log: Path | None = None,
    ) -> list[Result]:
        """Map `function` over items in processes, each item handed to whichever is free."""
        body = cloudpickle.dumps(function)
        with (
            closing(RankLog(log)) as rank_log,
            closing(PipeReader(rank_log)) as pipes,
            closing(
                LocalPool[Item, Result](self.warm_up, body, items, retries, after, pipes, rank_log)
            ) as pool,
        ):
            return pool.run(workers, on_done)

    def close(self) -> None:
        """End the server, and with it everything it has forked."""
        with self._lock:
            self._drop_server()

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _LocalGang:
    """The attempts at one process group."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        pipes: PipeReader,
        server: Callable[[], ForkServer],
        began: float,
    ) -> None:
        self._rendezvous = rendezvous
        self._pipes = pipes
        self._server = server
        self._began = began
        # seconds until all ranks of the first attempt that came so far had met
        self.startup_s = 0.0
        self.engine_s = 0.0  # seconds until the first line of our code had run in all of them

    def attempt(self, body: bytes, generation: int) -> Fault | None:
        """Start all ranks and wait for their end; the fault if they failed."""
        rendezvous = self._rendezvous
        rendezvous.admit(generation)
        children: list[Child] = []
        server = self._server()
        try:
            self._start_all(server, body, generation, children)
            deadline = time.monotonic() + JOIN_S
            while not rendezvous.finished and rendezvous.fault is None:
                rendezvous.poll(POLL_S)
                self._note_times()
                if time.monotonic() > deadline:
                    self._accuse_absent(generation)
            if rendezvous.finished:
                _wait(children, END_S)
        except KeyboardInterrupt:
            _wind_down(rendezvous, children)
            raise
        finally:
            _end(children, server)
        return rendezvous.fault

    def _start_all(
        self, server: ForkServer, body: bytes, generation: int, children: list[Child]
    ) -> None:
        for rank in range(self._rendezvous.size):
            try:
                children.append(self._start(server, body, rank, generation))
            except ServerDiedError as error:
                self._rendezvous.died(rank, str(error), generation=generation)
                return

    def _start(self, server: ForkServer, body: bytes, rank: int, generation: int) -> Child:
        rendezvous = self._rendezvous
        task = functools.partial(
            _rank_main,
            body,
            rendezvous.address,
            rendezvous.secret,
            rank,
            rendezvous.size,
            generation,
        )

        def ended(child: Child) -> None:
            # A rank that believes itself orphaned is a symptom; its broken connection tells more.
            if child.status != ORPHAN_STATUS:
                rendezvous.died(rank, str(child.cause), generation=generation)

        output = self._pipes.pipe(rank)
        try:
            return server.fork(task, [output], ended)
        finally:
            os.close(output)

    def _accuse_absent(self, generation: int) -> None:
        """A rank that has not joined by now will not."""
        for rank in set(range(self._rendezvous.size)) - set(self._rendezvous.members):
            self._rendezvous.died(rank, f"did not join within {JOIN_S:g} s", generation=generation)

    def _note_times(self) -> None:
        met_at = self._rendezvous.met_at
        if self.startup_s == 0.0 and met_at is not None:
            self.startup_s = met_at - self._began
            members = self._rendezvous.members.values()
            self.engine_s = max(member.first_line for member in members) - self._began


def _rank_main(
    body: bytes,
    address: Address,
    secret: bytes,
    rank: int,
    size: int,
    generation: int,
    descriptors: list[int],  # noqa: ARG001  none beyond the output
) -> None:
    """The life of a rank's process."""
    started = time.monotonic()
    use_one_thread()
    retain_freed_memory()

    def function(comm: Communicator) -> Any:
        try:
            return cloudpickle.loads(body)(comm)  # in here, so that its errors are reported
        except (UserError, PeerLostError):  # told by the launcher, or a mere consequence
            raise
        except BaseException:
            traceback.print_exc()  # into the log, before the launcher hears of it and ends all
            raise

    try:
        run_rank(
            function,
            address,
            secret,
            rank=rank,
            size=size,
            generation=generation,
            host=socket.gethostname(),
            exit_when_orphaned=True,
            started=started,
        )
    except AttemptEndedError:  # nobody was there to be told
        raise
    except BaseException:
        raise SystemExit(1) from None


def _wait(children: Sequence[Child], timeout_s: float) -> bool:
    """Wait for the end of all; whether it has come."""
    deadline = time.monotonic() + timeout_s
    return all(child.wait(max(deadline - time.monotonic(), 0.0)) for child in children)


def _wind_down(rendezvous: Rendezvous, children: Sequence[Child]) -> None:
    """After Ctrl-C: ask, then insist. What is left then is killed by `_end`."""
    rendezvous.stop()
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and not _wait(children, 0.0):
        rendezvous.poll(0.05)  # takes in last words, so that ranks may go
        _wait(children, 0.05)
    for child in children:
        child.kill(signal.SIGTERM)
    _wait(children, TERM_S)


def _end(children: Sequence[Child], server: ForkServer) -> None:
    """Kill what is left, and see to it that it is gone."""
    try:
        for child in children:
            child.kill()
        gone = _wait(children, END_S)
    except KeyboardInterrupt:
        server.close()
        raise
    if not gone:  # the server is stuck
        server.close()
