"""A rank's side of a process group: it joins, meets the others, works and leaves."""

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
    Seat,
)
from sixfold.distributed.process_group.control import AttemptEndedError, Control
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
    rank: int  # in a group that may change: the slot, and the rank as long as all slots are taken
    size: int  # that the caller believes in; the launcher checks it
    # which try of the whole group this is, or in a group that may change of this slot; a higher
    # one supersedes lower
    generation: int = 0
    interface: str | None = None  # where peers call; None: that by which the launcher is reached


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
        # peers see the end after the launcher has heard why
        contextlib.closing(_Member(control, place)) as member,
    ):
        try:
            seat = member.join(introduction)
            comm = Communicator(
                rank=seat.rank,
                size=seat.size,
                host=host,
                attempt=seat.attempt,
                transport=member,
                view=seat.view,
                elastic=member.elastic,
            )
            with own_randomness(rank):
                result = function(comm)
            wire.encode(result)  # complain while it can still be reported
        except BaseException as error:
            fault = describe(error, rank=rank, host=host)
            control.part({"kind": "error", "fault": fault.to_plain()})
            raise
        control.part({"kind": "result", "value": result, "view": control.standing.view})


class _Member:
    """The transport of a rank that is a process of its own."""

    def __init__(self, control: Control, place: Place) -> None:
        self.elastic = False  # known once the launcher has answered
        self._control, self._place = control, place
        self._mesh: Mesh | None = None
        self._secret = wire.derive(place.secret, "mesh")
        # view and rank -> who has called, until its view is met
        self._callers: dict[tuple[int, int], socket.socket] = {}
        self._listener = AuthenticatedListener(
            place.interface or control.connection.local_host(),
            self._secret,
            self._arrived,
            exhausted=control.inbox.put,
        )

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        return self.start(sends, receives)()

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        if self._mesh is None:
            raise PeerLostError(-1, "this process is in no view")
        try:
            finish = self._mesh.start(sends, receives)
        except PeerLostError:
            self._control.check()
            raise
        return partial(self._end, finish)

    def _end(self, finish: Finish) -> tuple[float, float]:
        try:
            return finish()
        except PeerLostError:
            self._control.check()
            raise

    def report(self, event: PlainData) -> None:
        if not self._control.connection.send({"kind": "event", "event": dict(event)}):
            self._control.check()

    def should_stop(self) -> bool:
        self._control.check()
        return self._control.stop_asked

    def should_renew(self) -> bool:
        standing = self._control.standing
        return standing.asked or not standing.acting

    def join(self, introduction: dict[str, Any]) -> Seat:
        """Introduce this process; its seat, with view 0 if it is to prepare for a later view."""
        address = self._listener.address
        self._control.connection.send(introduction | {"kind": "join", "address": address})
        message = self._next_message()
        if message["kind"] == "prepare":
            self.elastic = True
            place = self._place  # nobody's rank yet, and above all not that of rank 0
            return Seat(view=0, rank=place.rank or place.size, size=0, attempt=-1)
        self.elastic = "view" in message
        try:
            return self._enter(message)
        except PeerLostError:
            if not self.elastic:
                raise
            return self.renew()

    def renew(self) -> Seat:
        while True:
            self._drop_mesh()
            number = self._control.standing.renew()
            self._control.connection.send({"kind": "ready", "view": number})
            try:
                return self._enter(self._next_message())
            except AttemptEndedError:
                raise
            except PeerLostError:
                continue  # somebody else was lost meanwhile

    def close(self) -> None:
        """End the conversation with peers; what was sent still arrives."""
        self._drop_mesh()
        self._listener.close()
        inbox = self._control.inbox
        while not inbox.empty():
            if not isinstance(arrival := inbox.get(), RuntimeError):
                self._sort(arrival)
        for connection in self._callers.values():
            connection.close()

    def _arrived(self, connection: socket.socket) -> None:
        """A peer has called and knows the secret; in a thread of its own."""
        connection.settimeout(wire.HANDSHAKE_S)
        hello = wire.receive(connection)
        if hello is None:
            connection.close()
        else:
            self._control.inbox.put((hello["view"], hello["rank"], connection))

    def _sort(self, arrival: Any) -> dict[str, Any] | None:
        """Put a caller where it is looked for; a message of the launcher is handed on."""
        if isinstance(arrival, RuntimeError):  # a peer could not be let in: neither can the next
            raise arrival
        if not isinstance(arrival, tuple):
            self._control.check()
            return arrival if isinstance(arrival, dict) else None
        view, rank, connection = arrival
        if (before := self._callers.pop((view, rank), None)) is not None:
            before.close()
        self._callers[view, rank] = connection
        return None

    def _next_message(self) -> dict[str, Any]:
        """What the launcher says next of views, but the end of one."""
        while True:
            message = self._sort(self._control.inbox.get())
            if message is not None and message["kind"] != "end":
                return message

    def _enter(self, start: dict[str, Any]) -> Seat:
        """Meet the other ranks of a view: call all lower ones, be called by all higher ones."""
        control, place = self._control, self._place
        rank, peers = start.get("rank", place.rank), start["peers"]
        number = start.get("view", place.generation)
        if self.elastic and not control.standing.acting:
            raise PeerLostError(-1, "the view has ended")
        sockets: dict[int, socket.socket] = {}
        control.meeting = sockets
        try:
            for peer in range(rank):
                sockets[peer] = _call(peer, tuple(peers[peer]), self._secret, rank, number)
            self._await_callers(number, rank, sockets, len(peers))
            local = [peer for peer, (there, _) in enumerate(peers) if there == peers[rank][0]]
            boxes = share_memory({peer: sockets[peer] for peer in local if peer != rank})
        except BaseException:
            for connection in list(sockets.values()):
                connection.close()
            raise
        finally:
            control.meeting = {}
        self._mesh = Mesh(sockets, spin=len(local) <= cores(), mailboxes=boxes)
        control.watch(self._mesh)
        if self.elastic and not control.standing.acting:  # it ended before it was watched
            raise PeerLostError(-1, "the view has ended")
        return Seat(view=start.get("view", 1), rank=rank, size=len(peers), attempt=start["attempt"])

    def _await_callers(
        self, number: int, rank: int, sockets: dict[int, socket.socket], size: int
    ) -> None:
        """Take the connections of all higher ranks; those of older views are closed."""
        deadline = time.monotonic() + MEET_S
        while True:
            for view, caller in sorted(self._callers):
                if view <= number:
                    connection = self._callers.pop((view, caller))
                    if view == number and caller > rank and caller not in sockets:
                        sockets[caller] = connection
                    else:
                        connection.close()
            if len(sockets) == size - 1:
                return
            try:
                arrival = self._control.inbox.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                missing = min(set(range(size)) - set(sockets) - {rank})
                raise PeerLostError(missing, f"it did not call within {MEET_S:g} s") from None
            message = self._sort(arrival)
            if message is not None and message["kind"] == "end" and message["view"] == number:
                raise PeerLostError(-1, "the view has ended")

    def _drop_mesh(self) -> None:
        if self._mesh is not None:
            self._mesh.close()
            self._mesh = None


def _call(peer: int, address: Address, secret: bytes, rank: int, view: int) -> socket.socket:
    """Connect to a lower rank and say who calls."""
    try:
        connection = wire.connect(address, secret, timeout_s=MEET_S)
        connection.sendall(wire.encode({"rank": rank, "view": view}))
    except OSError as error:
        where = f"{address[0]}:{address[1]}"
        raise PeerLostError(peer, f"cannot be reached at {where}: {error}") from error
    return connection
