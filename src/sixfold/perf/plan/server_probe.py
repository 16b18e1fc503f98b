"""What a round trip to a parameter server costs: the real server, network and messages.

The first rank serves, the second pushes and pulls. Nothing else runs, so the time is what the two
have to do for each other, one after the other.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from typing import Any

import numpy as np
import torch

from sixfold.data import DataSet
from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.process_group import Communicator, alone
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.distributed.process_group.listener import AuthenticatedListener
from sixfold.training.config import TrainConfig
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.step.rules import rule_of
from sixfold.training.strategies.param_server import messages
from sixfold.training.strategies.param_server.access import RemoteAccess, serve_request
from sixfold.training.strategies.param_server.server import LeaseName, Push, ShardServer
from sixfold.training.strategies.param_server.whole import WholeState
from sixfold.training.strategies.sync.strategy import assemble_sync

ROUNDS = 30
MOST_S = 1.5
LOOPBACK = "127.0.0.1"


def measure_server(comm: Communicator, config: TrainConfig, data: DataSet) -> dict[str, Any]:
    """Measure a push with the pull that answers it; every rank must call this.

    Returns:
        `round_s`: medians of whole round trips; `served_s`: of these, what the server computes;
        `moved_bytes`: both ways. Empty if the first two ranks do not share a host, or if
        slices of the weights cannot be updated.
    """
    hosts = all_gather_data(comm, comm.host)
    needs_tensors = rule_of(config.optimizer.optimizer).whole_tensors  # servers hold slices
    if comm.size < 2 or hosts[0] != hosts[1] or needs_tensors:
        return {}
    sync = assemble_sync(alone(), config, data)
    whole = WholeState(sync.step.state, sync.optimizer, 1)
    [snapshot] = whole.snapshots()
    most = 16 * (len(sync.step.state.parameters) + len(sync.step.state.buffers)) * 8 + 4096
    secret, served = secrets.token_bytes(32), list[float]()
    with contextlib.ExitStack() as stack:
        address: list[Any] = []
        if comm.rank == 0:
            optimizer = make_optimizer(config.optimizer, snapshot.weights)
            shard = ShardServer(snapshot, optimizer, staleness=1 << 30, life=1)
            door = AuthenticatedListener(LOOPBACK, secret, _Talk(shard, most, served))
            stack.callback(door.close)
            address = list(door.address)
        told = all_gather_data(comm, [address, secret.hex()])[0]
        found: dict[str, Any] = {}
        if comm.rank == 1:
            reach = (str(told[0][0]), int(told[0][1]))
            access = RemoteAccess(reach, bytes.fromhex(told[1]), most_bytes=most)
            stack.callback(access.close)
            found = _rounds(access, snapshot)
        served_s = all_gather_data(comm, float(np.median(served)) if served else 0.0)[0]
    found = all_gather_data(comm, found)[1]
    return {**found, "served_s": served_s}


class _Talk:
    """A conversation of the server, in a thread of its own."""

    def __init__(self, shard: ShardServer, most_bytes: int, served: list[float]) -> None:
        self._shard, self._most_bytes, self._served = shard, most_bytes, served
        self._lock = threading.Lock()

    def __call__(self, connection: socket.socket) -> None:
        with contextlib.suppress(EOFError, OSError), one_thread(), connection:
            while True:
                header, arrays, _ = messages.receive(connection, most_bytes=self._most_bytes)
                began = time.perf_counter()
                with self._lock:
                    reply, slices = serve_request(self._shard, header, arrays)
                self._served.append(time.perf_counter() - began)
                messages.send(connection, reply, slices)


def _rounds(access: RemoteAccess, snapshot: Any) -> dict[str, Any]:
    lease = LeaseName(0, 0)
    access.open(lease, 1)
    access.answer()
    access.pull()
    _, pulled = access.answer()
    assert pulled is not None, "a pull is answered with weights"
    gradient = torch.zeros_like(snapshot.weights)
    moved = torch.zeros_like(snapshot.counters)
    took, began, before = [], time.perf_counter(), access.bytes_moved
    for sequence in range(ROUNDS):
        start = time.perf_counter()
        access.push(
            Push(
                lease=lease,
                sequence=sequence,
                attempt=1,
                base=pulled.version,
                lr=0.0,
                gradient=gradient,
                before=snapshot.buffers,
                after=snapshot.buffers,
                moved=moved,
            )
        )
        _, pulled = access.answer()
        assert pulled is not None, "a push is answered with weights"
        took.append(time.perf_counter() - start)
        if time.perf_counter() - began > MOST_S:
            break
    return {
        "round_s": float(np.median(took)),
        "moved_bytes": (access.bytes_moved - before) // len(took),
    }
