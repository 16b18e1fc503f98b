"""A rank's side of a process group: it joins, meets the others, works and leaves."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sixfold.core.errors import PeerLostError
from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.ambient import cores, own_randomness
from sixfold.distributed.process_group.communicator import (
    Buffer,
    Communicator,
    Finish,
    PlainData,
)
from sixfold.distributed.process_group.control import Control
from sixfold.distributed.process_group.faults import describe
from sixfold.distributed.process_group.listener import AuthenticatedListener
from sixfold.distributed.process_group.mesh import Mesh, share_memory
from sixfold.distributed.process_group.wire import Address

MEET_S = 30.0  # for connecting to the other ranks, once the launcher knows that all of them run


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a rank belongs: in which process group, and as which of its ranks."""

    address: Address  # of the launcher's `Rendezvous`
    secret: bytes  # of the same
    rank: int
    size: int  # that the caller believes in; the launcher checks it
    generation: int = 0  # which try of the whole group this is; a higher one supersedes lower


def run_rank(
    function: Callable[[Communicator], Any],
    place: Place,
    *,
    host: str | None = None,
    exit_when_orphaned: bool = False,
    started: float | None = None,
) -> None:
    """Join the launcher and all other ranks, call `function(comm)`, hand over its result.

    Random generators that belong to the process start from the rank's number and are put back at
    the end. If the function raises, the launcher hears why before the exception goes on. If the
    launcher or the attempt is over, the process ends at once (`exit_when_orphaned`), or every
    exchange raises an `AttemptEndedError`. `started` is `time.monotonic()` of our first line.
    """
    rank, host = place.rank, host or socket.gethostname()
    introduction = {
        "rank": rank,
        "size": place.size,
        "generation": place.generation,
        "host": host,
        "pid": os.getpid(),
        "age_s": 0.0 if started is None else time.monotonic() - started,
    }
    with (
        Control(place.address, place.secret, exit_when_orphaned=exit_when_orphaned) as control,
        contextlib.ExitStack() as goodbye,  # peers see the end after the launcher has heard why
    ):
        try:
            start, sockets = _meet(control, place, introduction)
            here = start["peers"][rank][0]
            local = [peer for peer, (there, _) in enumerate(start["peers"]) if there == here]
            boxes = share_memory({peer: sockets[peer] for peer in local if peer != rank})
            mesh = goodbye.enter_context(
                contextlib.closing(Mesh(sockets, spin=len(local) <= cores(), mailboxes=boxes))
            )
            control.watch(mesh)
            comm = Communicator(
                rank=rank,
                size=place.size,
                host=host,
                attempt=start["attempt"],
                transport=_Member(mesh, control),
            )
            with own_randomness(rank):
                result = function(comm)
            wire.encode(result)  # complain while it can still be reported
        except BaseException as error:
            fault = describe(error, rank=rank, host=host)
            control.part({"kind": "error", "fault": fault.to_plain()})
            raise
        control.part({"kind": "result", "value": result})


@dataclass(frozen=True)
class _Member:
    """The transport of a rank that is a process of its own."""

    mesh: Mesh
    control: Control

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        return self.start(sends, receives)()

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        try:
            finish = self.mesh.start(sends, receives)
        except PeerLostError:
            self.control.check()
            raise
        return partial(self._end, finish)

    def _end(self, finish: Finish) -> tuple[float, float]:
        try:
            return finish()
        except PeerLostError:
            self.control.check()
            raise

    def report(self, event: PlainData) -> None:
        if not self.control.connection.send({"kind": "event", "event": dict(event)}):
            self.control.check()

    def should_stop(self) -> bool:
        self.control.check()
        return self.control.stop_asked


def _meet(
    control: Control, place: Place, introduction: dict[str, Any]
) -> tuple[dict[str, Any], dict[int, socket.socket]]:
    """Connect to all peers; the launcher's start message, and the connections.

    A rank calls all lower ranks and is called by all higher ones.
    """
    rank, size = place.rank, place.size
    inbox = control.inbox

    def arrived(connection: socket.socket) -> None:
        connection.settimeout(wire.HANDSHAKE_S)
        hello = wire.receive(connection)
        if hello is None:
            connection.close()
        else:
            inbox.put((hello["rank"], connection))

    # A rank of another generation does not know this secret, even if it finds the port.
    mesh_secret = wire.derive(place.secret, f"mesh of generation {place.generation}")
    listener = AuthenticatedListener(control.connection.local_host(), mesh_secret, arrived)
    sockets: dict[int, socket.socket] = {}
    start: dict[str, Any] = {}
    deadline: float | None = None
    try:
        with contextlib.closing(listener):
            control.connection.send(introduction | {"kind": "join", "address": listener.address})
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
        _close_all(sockets, inbox)
        raise
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
