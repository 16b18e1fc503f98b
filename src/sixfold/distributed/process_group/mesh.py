"""Bytes between ranks: one TCP connection for every pair, all used at once.

Between ranks of one host messages go through memory that both map (`Mailbox`); the connection then
only wakes a rank that sleeps, and tells when a peer is gone. An exchange blocks on no single peer,
so no pattern of sends and receives can deadlock by filling a buffer. Every message has its length
in front, by which ranks find out that they disagree about an exchange.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from sixfold.core.errors import PeerLostError
from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.communicator import (
    Buffer,
    Finish,
    bytes_of,
    check_length,
)
from sixfold.distributed.process_group.mailbox import Mailbox, may_share

SPIN_S = 200e-6
"""How long a rank with a core to itself looks for bytes before it sleeps: about twice what the
kernel takes to put a process to sleep and wake it again."""

LOST_WAKE_S = 0.02
"""A rank that waits for memory looks again after so long. It says that it sleeps and looks once
more before it does, so a wake is lost only if both sides' stores pass each other within
nanoseconds; then this is what it costs."""

_HEADER = struct.Struct("=Q")
_WAKE = b"."


class Mesh:
    """Connections to the other ranks of a process group."""

    def __init__(
        self,
        sockets: Mapping[int, socket.socket],
        *,
        spin: bool,
        mailboxes: Mapping[int, Mailboxes] | None = None,
    ) -> None:
        """Take over authenticated sockets; `spin` if each rank of this host has its own core."""
        self._sockets = dict(sockets)
        self._boxes = dict(mailboxes or {})
        self._spin_s = SPIN_S if spin else 0.0
        self._ended = False
        self._pending: list[_Flow] = []  # messages that have not moved whole, in their order
        # grows with every byte moved and every exchange completed; the launcher sees from it
        # whether this rank gets anywhere
        self.progress = 0
        # the peers without which the current exchange cannot go on; empty while the rank computes
        # or bytes move
        self.waiting_for: tuple[int, ...] = ()
        for connection in self._sockets.values():
            connection.setblocking(False)

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """Send and fill all buffers at once; the seconds spent moving bytes, and waiting.

        A `RuntimeError` says that a peer sent another number of bytes than is expected here.
        """
        return self.start(sends, receives)()

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        """Begin an exchange: what can be moved at once is. Returns what ends it."""
        began = time.perf_counter()
        flows = [self._flow(peer, array, sends=True) for peer, array in sends.items()]
        flows += [self._flow(peer, array, sends=False) for peer, array in receives.items()]
        self._pending += flows
        if not self._ended:
            self._move()
        return partial(self._finish, flows, time.perf_counter() - began)

    def _finish(self, flows: list[_Flow], communication_s: float) -> tuple[float, float]:
        began = now = time.perf_counter()
        idle_s = 0.0
        idle_since: float | None = None
        while not all(flow.done for flow in flows):
            if self._ended:  # memory knows nothing of it, and the peer may be shut as well
                raise PeerLostError(flows[0].peer, "the connection was shut")
            moved = self._move()
            if moved:
                self.progress += moved
                if idle_since is not None:
                    idle_s += time.perf_counter() - idle_since
                    idle_since = None
                    self.waiting_for = ()
                continue
            now = time.perf_counter()
            if idle_since is None:
                idle_since = now
                self.waiting_for = tuple({flow.peer for flow in flows if not flow.done})
            # Without yielding: that would hand the core to whatever else wants it, for a whole
            # slice of its time, and the peer is about to be done.
            if now - idle_since >= self._spin_s:
                _wait(self._next_flows(), self._boxes)
        self.progress += 1
        return communication_s + time.perf_counter() - began - idle_s, idle_s

    def _move(self) -> int:
        """Move what can be moved of exchanges that have begun; returns the number of bytes."""
        moved = sum([flow.move() for flow in self._next_flows()])
        self._pending = [flow for flow in self._pending if not flow.done]
        return moved

    def _next_flows(self) -> list[_Flow]:
        """Of every way to and from a peer the message whose turn it is."""
        first: dict[tuple[int, bool], _Flow] = {}
        for flow in self._pending:
            first.setdefault((flow.peer, flow.sends), flow)
        return list(first.values())

    def _flow(self, peer: int, array: Buffer, *, sends: bool) -> _Flow:
        try:
            connection = self._sockets[peer]
        except KeyError:
            raise ValueError(f"no rank {peer} to talk to, only {sorted(self._sockets)}") from None
        if (boxes := self._boxes.get(peer)) is not None:
            return _ThroughMemory(peer, connection, array, boxes.out if sends else boxes.into)
        return _OverSocket(peer, connection, array, sends)

    def shut(self) -> None:
        """End all conversations, from any thread: an exchange that is going on fails."""
        self._ended = True
        for connection in self._sockets.values():
            wire.shut(connection)

    def close(self) -> None:
        """Close all connections; what was sent still arrives."""
        for connection in self._sockets.values():
            connection.close()
        for boxes in self._boxes.values():
            boxes.close()


class Mailboxes(NamedTuple):
    """The ways to a peer and from it."""

    out: Mailbox
    into: Mailbox

    def close(self) -> None:
        """Give their memory back."""
        for box in self:
            box.close()


def share_memory(sockets: Mapping[int, socket.socket]) -> dict[int, Mailboxes]:
    """Find out with which peers of this host memory can be shared, and share it.

    Every rank at the other end must call this too, at the same point of the conversation.
    """
    own: dict[int, Mailbox] = {}
    try:
        for peer, connection in sockets.items():
            with contextlib.suppress(OSError):  # no memory: the bytes go through the sockets
                if may_share():
                    own[peer] = Mailbox.create()
            _tell(peer, connection, own[peer].offer() if peer in own else {})
        theirs = {peer: Mailbox.accept(_hear(peer, sockets[peer])) for peer in sockets}
        for peer, connection in sockets.items():
            _tell(peer, connection, {"accepted": theirs[peer] is not None})
        accepted = {peer for peer in sockets if _hear(peer, sockets[peer]).get("accepted")}
    except BaseException:
        for box in own.values():
            box.close()
        raise
    shared = {}
    for peer, into in theirs.items():
        out = own.get(peer)
        if out is not None and into is not None and peer in accepted:
            out.seal()
            shared[peer] = Mailboxes(out, into)
            continue
        for unused in filter(None, (out, into)):
            unused.close()
    return shared


def _tell(peer: int, connection: socket.socket, message: dict[str, Any]) -> None:
    try:
        connection.sendall(wire.encode(message))
    except OSError as error:
        raise _lost(peer, error) from None


def _hear(peer: int, connection: socket.socket) -> dict[str, Any]:
    message = wire.receive(connection)
    if message is None:
        raise _lost(peer)
    return message


def _lost(peer: int, error: OSError | None = None) -> PeerLostError:
    if error is None:
        return PeerLostError(peer, "it closed the connection")
    return PeerLostError(peer, error.strerror or str(error))


class _Flow(ABC):
    """One message on its way, as far as it has not moved yet."""

    __slots__ = ("connection", "done", "events", "peer", "sends")

    def __init__(self, peer: int, connection: socket.socket, events: int, sends: bool) -> None:
        self.peer, self.connection, self.events, self.sends = peer, connection, events, sends
        self.done = False

    @abstractmethod
    def move(self) -> int:
        """Move what can be moved now; returns the number of bytes."""

    def will_sleep(self, sleeps: bool) -> bool:  # noqa: ARG002 - sockets wake by themselves
        """Note that the rank is about to sleep, or no longer; returns whether it may."""
        return True


class _ThroughMemory(_Flow):
    """A message to or from a rank that maps the same memory."""

    __slots__ = ("begun", "box", "rest")

    def __init__(self, peer: int, connection: socket.socket, array: Buffer, box: Mailbox) -> None:
        super().__init__(peer, connection, select.POLLIN, box.writes)
        self.rest, self.box = bytes_of(array), box
        self.begun = False

    def move(self) -> int:
        box, moved = self.box, 0
        if not self.begun:
            if not self._begin():
                return 0
            self.begun, moved = True, _HEADER.size
        while count := box.move(self.rest):
            moved += count
            self.rest = self.rest[count:]
        self.done = not len(self.rest)
        if moved and box.other_sleeps():
            self._wake()
        return moved

    def _begin(self) -> bool:
        if self.box.writes:
            return self.box.begin(len(self.rest))
        announced = self.box.next()
        if announced is not None:
            check_length(self.peer, announced, len(self.rest))
        return announced is not None

    def _wake(self) -> None:
        """Send a byte, which only ends a sleep."""
        try:
            self.connection.send(_WAKE)
        except BlockingIOError:
            return  # there are some already
        except OSError as error:
            raise _lost(self.peer, error) from None

    def will_sleep(self, sleeps: bool) -> bool:
        self.box.will_sleep(sleeps)
        if sleeps:
            os.sched_yield()  # once the kernel was entered, what was stored before is in memory
        return not (sleeps and self.box.ready())


class _OverSocket(_Flow):
    """A message over a connection: its length, then its bytes."""

    __slots__ = ("expected", "header", "views")

    def __init__(self, peer: int, connection: socket.socket, array: Buffer, sends: bool) -> None:
        super().__init__(peer, connection, select.POLLOUT if sends else select.POLLIN, sends)
        self.expected = array.nbytes
        # Overwritten by what the peer announces, and then None.
        self.header: bytearray | None = bytearray(_HEADER.pack(array.nbytes))
        self.views = [memoryview(self.header), bytes_of(array).data]

    def move(self) -> int:
        connection, views = self.connection, self.views
        try:
            count = connection.sendmsg(views) if self.sends else connection.recvmsg_into(views)[0]
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _lost(self.peer, error) from None
        if not self.sends and count == 0:
            raise _lost(self.peer)
        if not self.sends and self.header is not None and count >= len(views[0]):
            check_length(self.peer, _HEADER.unpack(self.header)[0], self.expected)
            self.header = None
        self.done = _advance(views, count)
        return count


def _advance(views: list[memoryview], count: int) -> bool:
    """Drop the bytes that have moved; whether none are left."""
    while views and count >= len(views[0]):
        count -= len(views.pop(0))
    if views and count:
        views[0] = views[0][count:]
    return not views


def _wait(flows: list[_Flow], boxes: Mapping[int, Mailboxes]) -> None:
    """Sleep until at least one flow can move; raises if nothing more can come from a peer."""
    try:
        may_sleep = [flow.will_sleep(True) for flow in flows]  # each of them must know
        if not all(may_sleep):
            return
        events: dict[int, int] = {}
        for flow in flows:
            descriptor = flow.connection.fileno()
            events[descriptor] = events.get(descriptor, 0) | flow.events
        poll = select.poll()
        for descriptor, mask in events.items():
            poll.register(descriptor, mask)
        by_memory = any(flow.peer in boxes for flow in flows)
        poll.poll(1000 * LOST_WAKE_S if by_memory else None)
        for peer in {flow.peer for flow in flows if flow.peer in boxes}:
            _take_wakes([flow for flow in flows if flow.peer == peer])
    finally:
        for flow in flows:
            flow.will_sleep(False)


def _take_wakes(flows: list[_Flow]) -> None:
    """Empty a connection of the bytes that ended a sleep; they mean nothing else."""
    first = flows[0]
    try:
        gone = not first.connection.recv(4096)
    except BlockingIOError:
        return
    except OSError as error:
        raise _lost(first.peer, error) from None
    # What a peer left before it went still counts.
    if gone and all(flow.will_sleep(True) for flow in flows):
        raise _lost(first.peer)
