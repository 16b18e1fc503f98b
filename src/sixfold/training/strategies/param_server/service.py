"""The life of a parameter server's process: it begins with its snapshot and serves until told."""

import contextlib
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.distributed.process_group.listener import AuthenticatedListener
from sixfold.training.config import OptimizerConfig
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.step.parameter_runs import Run
from sixfold.training.strategies.param_server import messages
from sixfold.training.strategies.param_server.access import serve_request
from sixfold.training.strategies.param_server.client import RemoteConnection
from sixfold.training.strategies.param_server.server import ShardServer
from sixfold.training.strategies.param_server.snapshots import (
    path_of,
    read_snapshot,
    table_to_plain,
    write_snapshot,
)

SNAPSHOT_S = 1.0
"""Between two snapshots: what a killed server loses is at most the updates of such a while."""
ALIVE_S = 1.0  # between two signs of life
SNAPSHOT_SHARE = 0.05
"""Of its time that a server may spend on snapshots; large ones are made less often."""
LIVES = 1 << 52  # lives are numbers that JSON carries exactly


@dataclass(frozen=True, kw_only=True)
class ServerJob:
    """What a server's process is told."""

    address: wire.Address  # of the launcher's `CoordinatorServer`
    secret: bytes  # of the same
    host: str  # address of the interface to listen on
    advertised: str  # the address by which workers reach it
    folder: Path  # where the snapshots lie
    optimizer: OptimizerConfig  # the update rule
    runs: Sequence[Sequence[Run]]  # settings of single parameters, of each server's slice
    staleness: int  # the bound K
    most_bytes: int  # the size of a push at most


def serve(job: ServerJob, server: int) -> None:
    """Be a server, from its snapshot until the launcher wants it no more.

    A `RunError` if its snapshot cannot be read or written, a `PeerLostError` if the launcher is
    gone.
    """
    with one_thread():
        snapshot = read_snapshot(path_of(job.folder, server))
        table = table_to_plain(snapshot.ledger.applied)
        shard = ShardServer(
            snapshot,
            make_optimizer(job.optimizer, snapshot.weights, job.runs[server]),
            staleness=job.staleness,
            life=1 + secrets.randbelow(LIVES),
        )
        service = _Service(job, shard)
        try:
            launcher = RemoteConnection(
                job.address,
                job.secret,
                {
                    "role": "server",
                    "server": server,
                    "life": shard.version.life,
                    "address": [job.advertised, service.port],
                    "applied": table,
                    "pid": os.getpid(),
                },
                most_bytes=0,
            )
            service.keep_snapshots(path_of(job.folder, server), launcher)
            launcher.part()
        finally:
            service.close()


class _Service:
    """A server behind `port`; requests are served one at a time."""

    def __init__(self, job: ServerJob, shard: ShardServer) -> None:
        self._shard, self._most_bytes = shard, job.most_bytes
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._door = AuthenticatedListener(
            job.host, wire.derive(job.secret, "servers"), self._serve
        )
        self.port = self._door.address[1]

    def keep_snapshots(self, path: Path, launcher: RemoteConnection) -> None:
        """Write snapshots of what has changed, and show signs of life, until a message comes."""
        due, pause_s, written = 0.0, SNAPSHOT_S, self._shard.version.clock
        while True:
            with contextlib.suppress(queue.Empty):
                launcher.inbox.get(timeout=ALIVE_S)
                return
            launcher.tell({"kind": "alive"})
            if time.monotonic() < due:
                continue
            with self._lock:
                changed = self._shard.version.clock != written
                snapshot = self._shard.snapshot() if changed else None
            if snapshot is not None:
                began = time.monotonic()
                write_snapshot(path, snapshot)
                written = snapshot.ledger.clock
                pause_s = max(SNAPSHOT_S, (time.monotonic() - began) / SNAPSHOT_SHARE)
            due = time.monotonic() + pause_s - ALIVE_S / 2

    def close(self) -> None:
        with self._lock:
            for connection in self._connections:
                wire.shut(connection)
        self._door.close()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
        try:
            while True:
                header, arrays, _ = messages.receive(connection, most_bytes=self._most_bytes)
                with self._lock, one_thread():
                    reply, slices = serve_request(self._shard, header, arrays)
                messages.send(connection, reply, slices)
        except (EOFError, OSError):
            return
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()
