"""Fork servers that outlive their engine for a while, and serve the next one of this process.

A server spends seconds of processor time on imports. A second training in the same notebook, or
test, takes the server of the first and starts its ranks in milliseconds.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sixfold.distributed.engines.forks import ForkServer

IDLE_S = 120.0  # for which a server waits, with the memory of its imports, before it ends
MARGIN_S = 10.0  # before its end, within which it is not taken any more
MOST = 2


@dataclass(frozen=True)
class _Origin:
    """What a server has inherited; one from elsewhere might compute differently."""

    launcher: int
    python: str
    environment: Mapping[str, str]
    variables: Mapping[str, str]

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> _Origin:
        environment = dict(os.environ)
        environment.pop("PYTEST_CURRENT_TEST", None)  # another for each test
        return cls(os.getpid(), sys.executable, environment, dict(variables))


@dataclass(frozen=True)
class _Loan:
    """A server with all that decides for whom it will do."""

    server: ForkServer
    origin: _Origin
    preload: frozenset[str]
    since: float = 0.0  # time.monotonic() when it became idle

    def serves(self, origin: _Origin, preload: Sequence[str]) -> bool:
        return (
            self.server.alive
            and self.origin == origin
            and self.preload.issuperset(preload)
            and time.monotonic() - self.since < IDLE_S - MARGIN_S
        )


class SpareServers:
    """Those of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: dict[ForkServer, _Loan] = {}
        self._idle: list[_Loan] = []

    def take(self, preload: Sequence[str], variables: Mapping[str, str]) -> ForkServer:
        """A server that has imported `preload`, or is about to; to be given back."""
        origin = _Origin.of(variables)
        with self._lock:
            for loan in self._idle:
                if loan.serves(origin, preload):
                    self._idle.remove(loan)
                    self._lent[loan.server] = loan
                    loan.server.expire_after(None)
                    return loan.server
            server = ForkServer(preload, variables)
            self._lent[server] = _Loan(server, origin, frozenset(preload))
            return server

    def give_back(self, server: ForkServer) -> None:
        """Keep a server for the next engine; one that is dead, or still has processes, is ended."""
        with self._lock:
            loan = self._lent.pop(server)
            if not server.idle:
                server.close()
                return
            server.expire_after(IDLE_S)
            idle = _Loan(server, loan.origin, loan.preload, time.monotonic())
            self._idle.append(idle)
            while len(self._idle) > MOST:
                self._idle.pop(0).server.close()

    def close(self) -> None:
        """End all that are idle; those of a process from which this one was forked are not ours."""
        with self._lock:
            for loan in self._idle:
                if loan.origin.launcher == os.getpid():
                    loan.server.close()
            self._idle.clear()


SPARE_SERVERS = SpareServers()
atexit.register(SPARE_SERVERS.close)
