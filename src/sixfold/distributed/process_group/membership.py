"""A rank's side of a process group: it joins, meets the others, works, and leaves nothing behind.

A rank that has been superseded, or has lost its launcher, cannot go on: its process ends at once
(`exit_when_orphaned`), or every further exchange fails.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sixfold.core.errors import PeerLostError
from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.ambient import cores, own_randomness
from sixfold.distributed.process_group.communicator import Buffer, Communicator, PlainData
from sixfold.distributed.process_group.control import Control
from sixfold.distributed.process_group.faults import describe
from sixfold.distributed.process_group.listener import AuthenticatedListener
from sixfold.distributed.process_group.mesh import Mesh, share_memory
from sixfold.distributed.process_group.wire import Address

MEET_S = 30.0
"""For connecting to the other ranks, once the launcher knows that all of them run."""


@contextmanager
def join(
    address: Address,
    secret: bytes,
    *,
    rank: int,
    size: int,
    generation: int = 0,
    host: str | None = None,
    exit_when_orphaned: bool = False,
    started: float | None = None,
) -> Iterator[Communicator]:
    """Be a rank: join the launcher's rendezvous, meet all other ranks, and leave at the end.

    If the body raises, the launcher is told why before the exception goes on.

    Args:
        address: of the launcher's `Rendezvous`.
        secret: of the same.
        rank: number of this rank.
        size: number of ranks that the caller believes in; the launcher checks it.
        generation: which try of the whole process group this is, from 0; a higher one supersedes
            lower.
        host: name of this host in messages.
        exit_when_orphaned: end the process at once when the launcher or the attempt is gone.
            Otherwise exchanges and `should_stop` raise.
        started: `time.monotonic()` when our first line of code ran in this process.

    Yields:
        The rank's world.

    Raises:
        AttemptEndedError: if the launcher is gone or wants no rank of this generation.
        PeerLostError: if another rank is lost.
    """
    with _member(
        address, secret, rank, size, generation, host, exit_when_orphaned, started
    ) as member:
        yield member.comm


def run_rank(
    function: Callable[[Communicator], Any],
    address: Address,
    secret: bytes,
    *,
    rank: int,
    size: int,
    generation: int = 0,
    host: str | None = None,
    exit_when_orphaned: bool = False,
    started: float | None = None,
) -> None:
    """Join, call `function(world)` and hand its result (plain data) to the launcher.

    Random generators that belong to the process start from the rank's number and are put back at
    the end. Arguments and errors as for `join`; what the function raises, goes on.
    """
    with _member(
        address, secret, rank, size, generation, host, exit_when_orphaned, started
    ) as member:
        with own_randomness(rank):
            member.result = function(member.comm)
        wire.encode(member.result)  # complain while it can still be reported


@contextmanager
def _member(
    address: Address,
    secret: bytes,
    rank: int,
    size: int,
    generation: int,
    host: str | None,
    exit_when_orphaned: bool,
    started: float | None,
) -> Iterator[_Member]:
    host = host or socket.gethostname()
    age_s = 0.0 if started is None else time.monotonic() - started
    with (
        Control(address, secret, exit_when_orphaned=exit_when_orphaned) as control,
        contextlib.ExitStack() as goodbye,  # peers see the end after the launcher has heard why
    ):
        try:
            introduction = {
                "rank": rank,
                "size": size,
                "generation": generation,
                "host": host,
                "pid": os.getpid(),
                "age_s": age_s,
            }
            start, sockets = _meet(control, secret, generation, introduction)
            here = start["peers"][rank][0]
            local = [peer for peer, (there, _) in enumerate(start["peers"]) if there == here]
            boxes = share_memory({peer: sockets[peer] for peer in local if peer != rank})
            mesh = goodbye.enter_context(
                contextlib.closing(Mesh(sockets, spin=len(local) <= cores(), mailboxes=boxes))
            )
            control.watch(mesh)
            member = _Member(rank, size, host, start["attempt"], mesh, control)
            yield member
        except BaseException as error:
            fault = describe(error, rank=rank, host=host)
            control.part({"kind": "error", "fault": fault.to_plain()})
            raise
        control.part({"kind": "result", "value": member.result})


class _Member:
    """The link of a rank that is a process of its own."""

    def __init__(
        self, rank: int, size: int, host: str, attempt: int, mesh: Mesh, control: Control
    ) -> None:
        self._mesh = mesh
        self._control = control
        self.result: Any = None
        self.comm = Communicator(rank=rank, size=size, host=host, attempt=attempt, link=self)

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        try:
            return self._mesh.exchange(sends, receives)
        except PeerLostError:
            self._control.check()
            raise

    def report(self, event: PlainData) -> None:
        if not self._control.connection.send({"kind": "event", "event": dict(event)}):
            self._control.check()

    def should_stop(self) -> bool:
        self._control.check()
        return self._control.stop_asked


def _meet(
    control: Control, secret: bytes, generation: int, introduction: dict[str, Any]
) -> tuple[dict[str, Any], dict[int, socket.socket]]:
    """Connect to all peers; the launcher's start message, and the connections.

    A rank calls all lower ranks and is called by all higher ones.
    """
    rank, size = introduction["rank"], introduction["size"]
    inbox = control.inbox

    def arrived(connection: socket.socket) -> None:
        connection.settimeout(wire.HANDSHAKE_S)
        hello = wire.receive(connection)
        if hello is None:
            connection.close()
        else:
            inbox.put((hello["rank"], connection))

    # A rank of another generation does not know this secret, even if it finds the port.
    mesh_secret = wire.derive(secret, f"mesh of generation {generation}")
    door = AuthenticatedListener(control.connection.local_host(), mesh_secret, arrived)
    sockets: dict[int, socket.socket] = {}
    start: dict[str, Any] = {}
    deadline: float | None = None
    try:
        control.connection.send(introduction | {"kind": "join", "address": door.address})
        while not start or len(sockets) < size - 1:
            wait_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                arrival = inbox.get(timeout=wait_s)
            except queue.Empty:
                missing = min(set(range(size)) - set(sockets) - {rank})
                raise PeerLostError(missing, f"it did not call within {MEET_S:g} s") from None
            control.check()
            if isinstance(arrival, dict):
                start = arrival
                deadline = time.monotonic() + MEET_S
                for peer in range(rank):
                    sockets[peer] = _call(peer, tuple(start["peers"][peer]), mesh_secret, rank)
            else:
                sockets[arrival[0]] = arrival[1]
    except BaseException:
        door.close()
        _close_all(sockets, inbox)
        raise
    door.close()
    return start, sockets


def _call(peer: int, address: Address, secret: bytes, rank: int) -> socket.socket:
    """Connect to a lower rank and say who calls."""
    try:
        connection = wire.connect(address, secret, timeout_s=MEET_S)
        connection.sendall(wire.encode({"rank": rank}))
    except OSError as error:
        where = f"{address[0]}:{address[1]}"
        raise PeerLostError(peer, f"cannot be reached at {where}: {error}") from error
    return connection


def _close_all(sockets: Mapping[int, socket.socket], inbox: queue.SimpleQueue[Any]) -> None:
    """Give back the connections of a meeting that failed, those not yet looked at too."""
    for connection in sockets.values():
        connection.close()
    while not inbox.empty():
        arrival = inbox.get()
        if isinstance(arrival, tuple):
            arrival[1].close()
