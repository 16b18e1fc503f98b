"""What it costs ranks to exchange messages with each other, and with a parameter server.

Ranks meet at a barrier and exchange, as the collectives do, after touching enough memory that
nothing of the message is in the cache any more. So the figures hold for messages among the
computation of a step, and are larger than those of a tight loop. A rank that waits long sleeps and
has to be woken: that belongs to the first of several exchanges, which is timed by itself.

Of a parameter server the round trip of a push and its pull is timed: the real server, network and
messages; the first rank serves, the second pushes and pulls, and nothing else runs.
"""

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Sequence
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
from sixfold.training.strategies.param_server.access import Access, SocketTransport, serve_request
from sixfold.training.strategies.param_server.server import LeaseName, Push, ShardServer
from sixfold.training.strategies.param_server.whole import WholeState
from sixfold.training.strategies.sync.strategy import assemble_sync

SIZES: tuple[int, ...] = (64, 4096, 16_384, 65_536, 262_144, 1 << 20, 4 << 20, 16 << 20)
"""Bytes. 16 KB and 1 MB are where a message's way changes
(`sixfold.distributed.process_group.mailbox`)."""
SCRATCH_BYTES = 4 << 20
"""More than a core's own cache holds."""
FEWEST, MOST = 5, 40
SIZE_S = 0.04
"""About how long one size is measured, in each of so many turns, of which the quickest counts."""
SLOW_S = 0.05
"""Where an exchange takes longer, larger ones are left out: their bytes/s is that of this one."""
TURNS = 3


def measure_links(comm: Communicator) -> dict[str, Any]:
    """Measure the kinds of links between the process group's ranks; every rank must call this.

    Returns:
        Plain data, on every rank alike: kind of link ("local", "remote") -> number of peers talked
        to at once -> [bytes to each peer, seconds of a first exchange, of one that follows at
        once], the slower rank's medians.
    """
    hosts = all_gather_data(comm, comm.host)
    found: dict[str, Any] = {}
    for kind, members in _pairs(hosts).items():
        found[kind] = {"1": _measure(comm, members)}
    everybody = list(range(comm.size))
    if comm.size > 2 and len(set(hosts)) == 1:
        found["local"][str(comm.size - 1)] = _measure(comm, [everybody])
    return found


def _pairs(hosts: Sequence[str]) -> dict[str, list[list[int]]]:
    """Ranks that are paired off, for every kind of link that there is.

    >>> _pairs(["a", "a", "b", "b", "b"])
    {'local': [[0, 1], [2, 3]], 'remote': [[0, 2], [1, 3]]}
    """
    found: dict[str, list[list[int]]] = {}
    by_host: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        by_host.setdefault(host, []).append(rank)
    local = [ranks[k : k + 2] for ranks in by_host.values() for k in range(0, len(ranks) - 1, 2)]
    if local:
        found["local"] = local
    if len(by_host) > 1:
        first, second = list(by_host.values())[:2]
        found["remote"] = [list(pair) for pair in zip(first, second, strict=False)]
    return found


def _measure(comm: Communicator, teams: list[list[int]]) -> list[list[float]]:
    """Time exchanges within teams, all teams at the same time."""
    own = next((team for team in teams if comm.rank in team), None)
    scratch = np.zeros(SCRATCH_BYTES, np.uint8)
    found: list[list[list[float]]] = []
    sizes = SIZES
    for _ in range(TURNS):
        turn = []
        for size in sizes:
            comm.barrier()
            took = [[0.0, 0.0]] if own is None else _rounds(comm.subgroup(own), size, scratch)
            medians = all_gather_data(comm, np.median(took, axis=0).tolist())
            turn.append(np.max(medians, axis=0).tolist())
            if turn[-1][0] > SLOW_S and len(turn) > 1:
                sizes = SIZES[: len(turn)]
                break
        found.append(turn)
    least = np.min(np.asarray([turn[: len(sizes)] for turn in found]), axis=0)
    return [[float(size), *pair] for size, pair in zip(sizes, least.tolist(), strict=True)]


def _rounds(team: Communicator, size: int, scratch: Any) -> list[list[float]]:
    """Seconds of first and following exchanges."""
    others = [rank for rank in range(team.size) if rank != team.rank]
    out = np.ones(size, np.uint8)
    into = {rank: np.empty(size, np.uint8) for rank in others}
    took = []
    began = time.perf_counter()
    for number in range(MOST):
        scratch += 1
        team.barrier()
        start = time.perf_counter()
        team.exchange(dict.fromkeys(others, out), into)
        middle = time.perf_counter()
        team.exchange(dict.fromkeys(others, out), into)
        took.append([middle - start, time.perf_counter() - middle])
        # All must agree on when it is enough: the first rank's clock decides.
        if number + 1 >= FEWEST and number % 5 == 4:
            go_on = np.array([time.perf_counter() - began < SIZE_S], np.uint8)
            if team.rank == 0:
                team.exchange(dict.fromkeys(others, go_on), {})
            else:
                team.exchange({}, {0: go_on})
            if not go_on[0]:
                break
    return took[2:]


def adding_rate(count_bytes: int = 4 << 20) -> float:
    """Bytes/s at which one vector is added to another, both out of the cache."""
    left, right = np.ones(count_bytes // 4, np.float32), np.ones(count_bytes // 4, np.float32)
    took = []
    for _ in range(7):
        start = time.perf_counter()
        left += right
        took.append(time.perf_counter() - start)
    return count_bytes / float(np.median(took))


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
            access = Access(SocketTransport(reach, bytes.fromhex(told[1]), most_bytes=most))
            stack.callback(access.close)
            found = _round_trips(access, snapshot)
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


def _round_trips(access: Access, snapshot: Any) -> dict[str, Any]:
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
