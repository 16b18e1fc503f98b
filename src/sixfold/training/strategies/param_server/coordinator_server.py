"""The launcher's side of a run with parameter servers: where workers and servers call in."""

import socket
import threading
import time
from typing import Any

from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.listener import AuthenticatedListener
from sixfold.training.strategies.param_server.access import Access, ServerLostError, SocketTransport
from sixfold.training.strategies.param_server.coordinator import Coordinator
from sixfold.training.strategies.param_server.server import Snapshot
from sixfold.training.strategies.param_server.snapshots import table_from_plain


class CoordinatorServer:
    """A port (`address`, `secret`) to speak to the coordinator, to which all is passed on.

    `most_bytes` is the size of a server's snapshot at most.
    """

    def __init__(
        self, coordinator: Coordinator, host: str, *, most_bytes: int, tls: bool = False
    ) -> None:
        self.secret = wire.new_secret(tls=tls)
        self._coordinator, self._most_bytes = coordinator, most_bytes
        self._lock = threading.Lock()
        self._callers: dict[wire.Connection, str] = {}
        self._signs: dict[int, float] = {}
        self._stopping = self._closing = False
        self._door = AuthenticatedListener(host, self.secret, self._serve)
        self.address = self._door.address

    def gather(self) -> list[Snapshot] | None:
        """The snapshots of all servers; None if one of them is not there."""
        found = []
        for address, life in self._coordinator.servers():
            if life == 0 or address is None:
                return None
            try:
                secret = wire.derive(self.secret, "servers")
                access = Access(SocketTransport(address, secret, most_bytes=self._most_bytes))
            except ServerLostError:
                return None
            try:
                found.append(access.snapshot())
            except ServerLostError:
                return None
            finally:
                access.close()
        return found

    def silent_servers(self, seconds: float) -> list[int]:
        """Processes of servers that have given no sign of life for so long."""
        now = time.monotonic()
        with self._lock:
            return [pid for pid, seen in self._signs.items() if now - seen > seconds]

    def stop_servers(self) -> None:
        """Tell the servers, those too that are just starting, that they are not needed any more."""
        with self._lock:
            self._stopping = True
            servers = [caller for caller, role in self._callers.items() if role == "server"]
        for caller in servers:
            caller.send({"kind": "stop"})

    def wait_for_workers(self, timeout_s: float) -> bool:
        """Wait until no worker is connected; whether it has come to that."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                if "worker" not in self._callers.values():
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)

    def close(self) -> None:
        """End all conversations; whoever had not parted, ends."""
        with self._lock:
            self._closing = True
            callers = list(self._callers)
        for caller in callers:
            caller.shut()
        self._door.close()

    def _serve(self, sock: socket.socket) -> None:
        caller = wire.Connection(sock)
        try:
            first = caller.receive()
            if first is None:
                return
            with self._lock:
                if self._closing:
                    return
                self._callers[caller] = str(first.get("role"))
            if first.get("role") == "server":
                self._serve_server(caller, first)
            elif first.get("role") == "worker":
                self._serve_worker(caller, first)
        finally:
            with self._lock:
                self._callers.pop(caller, None)
            caller.shut()
            caller.close()

    def _serve_server(self, caller: wire.Connection, first: dict[str, Any]) -> None:
        server, life = int(first["server"]), int(first["life"])
        host, port = first["address"]
        self._coordinator.server_joined(
            server,
            (str(host), int(port)),
            life,
            table_from_plain(first["applied"]),
            int(first["pid"]),
        )
        try:
            with self._lock:
                stopping = self._stopping
                self._signs[int(first["pid"])] = time.monotonic()
            if stopping:
                caller.send({"kind": "stop"})
            while (message := caller.receive()) is not None and message.get("kind") != "bye":
                with self._lock:
                    self._signs[int(first["pid"])] = time.monotonic()
        finally:
            with self._lock:
                self._signs.pop(int(first["pid"]), None)
            self._coordinator.server_left(server, life)

    def _serve_worker(self, caller: wire.Connection, first: dict[str, Any]) -> None:
        worker, coordinator = int(first["worker"]), self._coordinator
        coordinator.worker_joined(worker, str(first["host"]), int(first["pid"]))
        dead = True
        try:
            while (message := caller.receive()) is not None:
                if message["kind"] == "bye":
                    dead = False
                    break
                if (answer := coordinator.answer(worker, message)) is not None:
                    caller.send(answer)
        finally:
            coordinator.worker_left(worker, dead=dead and not self._closing)
