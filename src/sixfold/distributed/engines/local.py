"""Ranks as processes of this machine, one thread each, forked by a server of our own.

The server (`fork_server`) is started once for an engine and kept for later process groups. Whatever
dies - a rank, the server, the launcher - all others end within seconds.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import cloudpickle

from sixfold.core.cpu_isa import NATIVE, lacking, variables
from sixfold.core.errors import PeerLostError, UserError
from sixfold.distributed.engines.engine import (
    Engine,
    GroupCall,
    GroupResult,
    Item,
    PoolCall,
    Result,
)
from sixfold.distributed.engines.forks import DRAIN_S, END_S, Child, ForkServer, ServerDiedError
from sixfold.distributed.engines.local_pool import LocalPool
from sixfold.distributed.engines.rank_log import PipeReader, RankLog
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import use_one_thread
from sixfold.distributed.process_group.control import ORPHAN_STATUS, AttemptEndedError
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.generation import PATIENCE, Patience
from sixfold.distributed.process_group.malloc import retain_freed_memory
from sixfold.distributed.process_group.membership import Place, run_rank
from sixfold.distributed.process_group.rendezvous import Rendezvous

POLL_S = 0.5
JOIN_S = 120.0  # for a forked rank to join, which takes milliseconds unless the machine is swapping
STOP_S = 2.0  # for ranks to end by themselves after Ctrl-C, before they are made to
TERM_S = 1.0


class LocalEngine(Engine):
    """The engine of one machine."""

    name = "local"

    def __init__(
        self,
        *,
        preload: Sequence[str] = ("torch",),
        patience: Patience = PATIENCE,
        cpu_isa: str = NATIVE,
    ) -> None:
        """Prepare an engine; nothing is started yet. This host must have the `cpu_isa`."""
        if why := lacking(cpu_isa):
            raise UserError(why)
        self.cpu_isa = cpu_isa
        self._preload = (*preload, "sixfold.distributed.engines.local")
        self._patience = patience
        self._server: ForkServer | None = None
        self._lock = threading.Lock()

    def warm_up(self) -> ForkServer:
        """Have a server running; its imports go on in the background."""
        with self._lock:
            if self._server is None or not self._server.alive:
                self._drop_server()
                self._server = ForkServer(self._preload, variables(self.cpu_isa))
            return self._server

    def _run_ranks(self, call: GroupCall) -> GroupResult:
        began = time.monotonic()
        self.warm_up()
        body = cloudpickle.dumps(call.function)
        with (
            closing(RankLog(call.log)) as rank_log,
            closing(PipeReader(rank_log)) as pipes,
            closing(
                Rendezvous(
                    call.size, claim=call.claim, on_event=call.on_event, patience=self._patience
                )
            ) as rendezvous,
        ):
            for generation in range(call.max_restarts + 1):
                fault = _Attempt(rendezvous, pipes, self.warm_up(), body).run(generation)
                if fault is None:
                    break
                pipes.drain(fault.rank, DRAIN_S)
                if not fault.retryable or generation == call.max_restarts:
                    raise fault.with_log(rank_log.tail(fault.rank)).exception(generation)
            first_line, met_at = rendezvous.first_met or (began, began)
            return GroupResult(
                results=rendezvous.now.results,
                restarts=rendezvous.restarts,
                startup_s=met_at - began,
                engine_s=first_line - began,
            )

    def _pool(self, call: PoolCall[Item, Result]) -> list[Result]:
        with (
            closing(RankLog(call.log)) as rank_log,
            closing(PipeReader(rank_log)) as pipes,
            closing(LocalPool(self.warm_up, call, pipes, rank_log)) as pool,
        ):
            return pool.run()

    def close(self) -> None:
        """End the server, and with it everything it has forked."""
        with self._lock:
            self._drop_server()

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a process group."""

    rendezvous: Rendezvous
    pipes: PipeReader
    server: ForkServer
    body: bytes

    def run(self, generation: int) -> Fault | None:
        """Start all ranks and wait for their end; the fault if they failed."""
        rendezvous = self.rendezvous
        rendezvous.admit(generation)
        children: list[Child] = []
        try:
            for rank in range(rendezvous.size):
                children.append(self._start(rank, generation))
            deadline = time.monotonic() + JOIN_S
            while not rendezvous.now.over:
                rendezvous.poll(POLL_S)
                if time.monotonic() > deadline:  # a rank that has not joined by now will not
                    for rank in set(range(rendezvous.size)) - set(rendezvous.now.members):
                        cause = f"did not join within {JOIN_S:g} s"
                        rendezvous.died(rank, cause, generation=generation)
            if rendezvous.now.finished:
                _wait(children, END_S)
        except ServerDiedError as error:
            rendezvous.died(len(children), str(error), generation=generation)
            rendezvous.poll(0.0)
        except KeyboardInterrupt:
            _wind_down(rendezvous, children)
            raise
        finally:
            _end(children, self.server)
        return rendezvous.now.fault

    def _start(self, rank: int, generation: int) -> Child:
        rendezvous = self.rendezvous
        place = Place(
            address=rendezvous.address,
            secret=rendezvous.secret,
            rank=rank,
            size=rendezvous.size,
            generation=generation,
        )

        def ended(child: Child) -> None:
            # A rank that believes itself orphaned is a symptom; its broken connection tells more.
            if child.status != ORPHAN_STATUS:
                rendezvous.died(rank, str(child.cause), generation=generation)

        output = self.pipes.pipe(rank)
        try:
            return self.server.fork(
                functools.partial(_rank_main, self.body, place), [output], ended
            )
        finally:
            os.close(output)


def _rank_main(body: bytes, place: Place, _: list[int]) -> None:
    """The life of a rank's process."""
    started = time.monotonic()
    use_one_thread()
    retain_freed_memory()

    def function(comm: Communicator) -> Any:
        try:
            return cloudpickle.loads(body)(comm)  # in here, so that its errors are reported
        except (UserError, PeerLostError):  # reported by the launcher, or a mere consequence
            raise
        except BaseException:
            traceback.print_exc()  # into the log, before the launcher hears of it and ends all
            raise

    try:
        run_rank(function, place, exit_when_orphaned=True, started=started)
    except AttemptEndedError:  # nobody was there to hear of it
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
