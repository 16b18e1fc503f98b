"""Ranks as processes of this machine, one thread each, forked by a server of our own.

The server (`fork_server`) is started once for an engine and kept for later process groups. Whatever
dies - a rank, the server, the launcher - all others end within seconds.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import closing

import cloudpickle

from sixfold.core.cpu_isa import NATIVE, lacking, variables
from sixfold.core.errors import raise_problems
from sixfold.distributed.engines.engine import (
    Engine,
    GroupCall,
    GroupResult,
    Item,
    PoolCall,
    Result,
)
from sixfold.distributed.engines.forks import DRAIN_S, ForkServer
from sixfold.distributed.engines.group_run import GroupRun
from sixfold.distributed.engines.local_pool import LocalPool
from sixfold.distributed.engines.local_ranks import LocalProcesses
from sixfold.distributed.engines.rank_log import PipeReader, RankLog
from sixfold.distributed.engines.spare_servers import SpareServers
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
        raise_problems(lacking(cpu_isa))
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
            processes = LocalProcesses(rendezvous, pipes, self.warm_up, body)
            run = GroupRun(rendezvous, processes, call.max_restarts)
            if (fault := run.run()) is not None:
                pipes.drain(fault.rank, DRAIN_S)
                raise fault.with_log(rank_log.tail(fault.rank)).exception(run.restarts)
            return run.result(began)

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
