"""Ranks as processes of this machine, one thread each, forked by a server of our own.

The server (`fork_server`) is started once for an engine and kept for later process groups. Whatever
dies - a rank, the server, the launcher - all others end within seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import cloudpickle

from sixfold.core.cpu_isa import NATIVE, lacking, variables
from sixfold.core.errors import UserError
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
from sixfold.distributed.engines.local_ranks import (
    JOIN_S,
    POLL_S,
    ElasticRun,
    end_all,
    place_in,
    start_rank,
    wait_for,
    wind_down,
)
from sixfold.distributed.engines.rank_log import PipeReader, RankLog
from sixfold.distributed.engines.spare_servers import SpareServers
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.generation import PATIENCE, Patience
from sixfold.distributed.process_group.rendezvous import Rendezvous


class LocalEngine(Engine):
    """The engine of one machine."""

    name = "local"

    def __init__(
        self,
        *,
        preload: Sequence[str] = ("torch",),
        patience: Patience = PATIENCE,
        cpu_isa: str = NATIVE,
        spares: SpareServers | None = None,
    ) -> None:
        """Prepare an engine; nothing is started yet. This host must have the `cpu_isa`.

        With `spares` its server is one of them if possible, and becomes one in the end.
        """
        if why := lacking(cpu_isa):
            raise UserError(why)
        self.cpu_isa = cpu_isa
        self._preload = (*preload, "sixfold.distributed.engines.local")
        self._patience = patience
        self._spares = spares
        self._server: ForkServer | None = None
        self._lock = threading.Lock()

    def warm_up(self) -> ForkServer:
        """Have a server running; its imports go on in the background."""
        with self._lock:
            if self._server is None or not self._server.alive:
                self._drop_server()
                start = ForkServer if self._spares is None else self._spares.take
                self._server = start(self._preload, variables(self.cpu_isa))
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
                    call.size,
                    least=call.least,
                    claim=call.claim,
                    on_event=call.on_event,
                    patience=self._patience,
                    tls=self.tls,
                )
            ) as rendezvous,
        ):
            if (group := rendezvous.elastic) is not None:
                run = ElasticRun(rendezvous, group, pipes, self.warm_up, body, call.max_restarts)
                run.run()
                if (fault := group.fault) is not None:
                    pipes.drain(fault.rank, DRAIN_S)
                    raise fault.with_log(rank_log.tail(fault.rank)).exception(run.restarts)
                return _result(rendezvous, run.restarts, began)
            for generation in range(call.max_restarts + 1):
                fault = _Attempt(rendezvous, pipes, self.warm_up(), body).run(generation)
                if fault is None:
                    break
                pipes.drain(fault.rank, DRAIN_S)
                if not fault.retryable or generation == call.max_restarts:
                    raise fault.with_log(rank_log.tail(fault.rank)).exception(generation)
            return _result(rendezvous, rendezvous.restarts, began)

    def _pool(self, call: PoolCall[Item, Result]) -> list[Result]:
        with (
            closing(RankLog(call.log)) as rank_log,
            closing(PipeReader(rank_log)) as pipes,
            closing(LocalPool(self.warm_up, call, pipes, rank_log)) as pool,
        ):
            return pool.run()

    def close(self) -> None:
        """End everything that the server has forked, and the server unless it becomes a spare."""
        with self._lock:
            self._drop_server()

    def _drop_server(self) -> None:
        if self._server is not None:
            end = ForkServer.close if self._spares is None else self._spares.give_back
            end(self._server)
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
                place = place_in(rendezvous, rank, generation)
                children.append(start_rank(self.server, self.pipes, rendezvous, place, self.body))
            deadline = time.monotonic() + JOIN_S
            while not rendezvous.now.over:
                rendezvous.poll(POLL_S)
                if time.monotonic() > deadline:  # a rank that has not joined by now will not
                    for rank in set(range(rendezvous.size)) - set(rendezvous.now.members):
                        cause = f"did not join within {JOIN_S:g} s"
                        rendezvous.died(rank, cause, generation=generation)
            if rendezvous.now.finished:
                wait_for(children, END_S)
        except ServerDiedError as error:
            rendezvous.died(len(children), str(error), generation=generation)
            rendezvous.poll(0.0)
        except KeyboardInterrupt:
            wind_down(rendezvous, children)
            raise
        finally:
            end_all(children, self.server)
        return rendezvous.now.fault


def _result(rendezvous: Rendezvous, restarts: int, began: float) -> GroupResult:
    first_line, met_at = rendezvous.first_met or (began, began)
    return GroupResult(
        results=rendezvous.now.results,
        restarts=restarts,
        startup_s=met_at - began,
        engine_s=first_line - began,
    )
