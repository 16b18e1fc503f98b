"""Where workers and servers turn to: the coordinator, in the same process or over a connection."""

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sixfold.core.errors import PeerLostError
from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.control import ORPHAN_STATUS
from sixfold.training.strategies.param_server.access import Access, DirectTransport, SocketTransport
from sixfold.training.strategies.param_server.coordinator import Coordinator
from sixfold.training.strategies.param_server.server import ShardServer

ANSWER_S = 60.0  # for the launcher to answer, which takes it microseconds unless it is suspended
Whereabouts = list[tuple[tuple[str, int] | None, int]]
"""Of every server: where it listens, and its life (0: it is not there)."""


class OverError(Exception):
    """The run is over: done, or failed elsewhere."""


class LocalConnection:
    """Leads to the coordinator from a worker in the same process, as are the servers."""

    def __init__(
        self, coordinator: Coordinator, servers: Sequence[ShardServer], worker: int
    ) -> None:
        self._servers = servers
        self.ask: Callable[[Mapping[str, Any]], Any] = partial(coordinator.answer, worker)
        self.tell = self.ask
        coordinator.worker_joined(worker, socket.gethostname(), os.getpid())

    def reach(self, server: int, address: tuple[str, int] | None) -> Access:  # noqa: ARG002
        """A server of this process."""
        return Access(DirectTransport(self._servers[server]))

    def pause(self, seconds: float) -> None:
        """Nothing: others have their turn meanwhile."""


class RemoteConnection:
    """A connection to the launcher, for a worker or a server in a process of its own.

    The end of the launcher is the end of this process, whatever it is doing. `introduction`, plain
    data, says who calls; `most_bytes` is the size of a server's answer; `inbox` has what has come.
    """

    def __init__(
        self,
        address: wire.Address,
        secret: bytes,
        introduction: Mapping[str, Any],
        *,
        most_bytes: int,
    ) -> None:
        try:
            self._connection = wire.Connection(wire.connect(address, secret))
        except OSError as error:
            raise PeerLostError(-1, f"no launcher at {address[0]}:{address[1]}: {error}") from None
        self._secret, self._most_bytes = wire.derive(secret, "servers"), most_bytes
        self._parting = False
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._connection.send(introduction)
        self._thread = threading.Thread(target=self._mind, daemon=True, name="sixfold-client")
        self._thread.start()

    def reach(self, server: int, address: tuple[str, int] | None) -> Access:  # noqa: ARG002
        """A server that listens somewhere."""
        assert address is not None, "a server without an address is not there"
        return Access(SocketTransport(address, self._secret, most_bytes=self._most_bytes))

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send without waiting for an answer."""
        self._connection.send(dict(message))

    def part(self) -> None:
        """Say that this is a proper end."""
        self._parting = True
        self.tell({"kind": "bye"})
        self._thread.join(1.0)
        self._connection.close()

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send, and wait for the answer."""
        self.tell(message)
        try:
            return self.inbox.get(timeout=ANSWER_S)
        except queue.Empty:
            raise PeerLostError(-1, f"it has not answered for {ANSWER_S:g} s") from None

    def _mind(self) -> None:
        while (message := self._connection.receive()) is not None:
            self.inbox.put(message)
        if not self._parting:
            os._exit(ORPHAN_STATUS)


class CoordinatorClient:
    """What a worker can ask for and tell; see `Coordinator`, which is behind it.

    `reach` makes a connection to a server, or a `ServerLostError`; `pause` lets time pass.
    """

    def __init__(self, connection: LocalConnection | RemoteConnection) -> None:
        self._coordinator, self.reach, self.pause = connection, connection.reach, connection.pause

    def next(self) -> dict[str, Any]:
        """What to do."""
        task: dict[str, Any] = self._coordinator.ask({"kind": "next"})
        return task

    def report(self, report: Mapping[str, Any]) -> None:
        """How far a lease is."""
        self._coordinator.tell({"kind": "report", **report})

    def evaluated(
        self, figures: Mapping[str, float | None], quality: float, spent_s: float
    ) -> None:
        """What an evaluation found."""
        self._coordinator.tell({"kind": "evaluated", "values": [dict(figures), quality, spent_s]})

    def servers(self) -> Whereabouts:
        """Where the servers are; an `OverError` if nobody needs them any more."""
        answer = self._coordinator.ask({"kind": "servers"})
        if answer["over"]:
            raise OverError
        found = answer["servers"]
        return [(None if address is None else tuple(address), life) for address, life in found]
