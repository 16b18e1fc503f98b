"""Bytes between ranks: one TCP connection for every pair, all used at once.

Between ranks of one host the bytes of middling messages go through memory that both map
(`sixfold.world.mailbox`); everything else is the same.

An exchange sends and receives without blocking on any one peer, so no pattern of sends and
receives can deadlock by filling a buffer. Every message has its length in front: ranks that
disagree about an exchange find out, instead of taking one array's bytes for another's.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from sixfold.errors import PeerLostError
from sixfold.world import wire
from sixfold.world.mailbox import Mailbox, may_share
from sixfold.world.world import Buffer

SPIN_S = 200e-6
"""How long a rank with a core to itself looks for bytes before it sleeps: about twice what the
kernel takes to put a process to sleep and wake it again."""

_HEADER = struct.Struct("=Q")
_IN_MAILBOX = 1 << 63
"""Set in a header whose bytes lie in the mailbox instead of following."""


class Mesh:
    """Connections to the other ranks of a gang.

    Attributes:
        progress: grows with every byte moved and every exchange completed; the launcher sees from
            it whether this rank gets anywhere.
        waiting_for: the peers without which the current exchange cannot go on; empty while the
            rank computes or bytes move.
    """

    def __init__(
        self,
        sockets: Mapping[int, socket.socket],
        *,
        spin: bool,
        mailboxes: Mapping[int, Mailboxes] | None = None,
    ) -> None:
        """Take over authenticated sockets.

        Args:
            sockets: peer -> connection.
            spin: whether every rank of this host has a core to itself.
            mailboxes: from `share_memory`.
        """
        self._sockets = dict(sockets)
        self._boxes = dict(mailboxes or {})
        self._spin_s = SPIN_S if spin else 0.0
        self.progress = 0
        self.waiting_for: tuple[int, ...] = ()
        for connection in self._sockets.values():
            connection.setblocking(False)

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """Send and fill all buffers at the same time; see `sixfold.world.World.exchange`.

        Returns:
            Seconds in which bytes moved, and seconds in which none could.

        Raises:
            PeerLostError: if a peer is gone.
            RuntimeError: if a peer sent another number of bytes than is expected here.
        """
        began = now = time.perf_counter()
        idle_s = 0.0
        idle_since: float | None = None
        flows: list[_Flow] = [
            _Outgoing(peer, self._socket(peer), array, self._boxes.get(peer, _NO_BOXES).out)
            for peer, array in sends.items()
        ]
        flows += [
            _Incoming(peer, self._socket(peer), array, self._boxes.get(peer, _NO_BOXES).into)
            for peer, array in receives.items()
        ]
        while flows:
            moved = 0
            finished = False
            for flow in flows:
                moved += flow.move()
                finished = finished or flow.done
            if finished:
                flows = [flow for flow in flows if not flow.done]
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
                self.waiting_for = tuple({flow.peer for flow in flows})
            if now - idle_since < self._spin_s:
                os.sched_yield()
            else:
                _wait(flows)
        self.progress += 1
        return time.perf_counter() - began - idle_s, idle_s

    def _socket(self, peer: int) -> socket.socket:
        try:
            return self._sockets[peer]
        except KeyError:
            raise ValueError(f"no rank {peer} to talk to, only {sorted(self._sockets)}") from None

    def shut(self) -> None:
        """End all conversations, from any thread: an exchange that is going on fails."""
        for connection in self._sockets.values():
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        """Close all connections; what was sent still arrives."""
        for connection in self._sockets.values():
            connection.close()
        for boxes in self._boxes.values():
            boxes.close()


class Mailboxes(NamedTuple):
    """The ways to a peer and from it, as far as there are any."""

    out: Mailbox | None
    into: Mailbox | None

    def close(self) -> None:
        """Give their memory back."""
        for box in self:
            if box is not None:
                box.close()


_NO_BOXES = Mailboxes(None, None)


def share_memory(sockets: Mapping[int, socket.socket]) -> dict[int, Mailboxes]:
    """Find out with which peers memory can be shared, and share it.

    Every rank at the other end must call this too, at the same point of the conversation.

    Args:
        sockets: authenticated, blocking connections to peers of this host.

    Raises:
        PeerLostError: if a peer is gone.
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
        accepted = {peer: bool(_hear(peer, sockets[peer]).get("accepted")) for peer in sockets}
    except BaseException:
        for box in own.values():
            box.close()
        raise
    for peer, box in list(own.items()):
        box.seal()
        if not accepted[peer]:
            own.pop(peer).close()
    return {peer: Mailboxes(own.get(peer), theirs[peer]) for peer in sockets}


def _tell(peer: int, connection: socket.socket, message: dict[str, Any]) -> None:
    try:
        connection.sendall(wire.encode(message))
    except OSError as error:
        raise PeerLostError(peer, error.strerror or str(error)) from None


def _hear(peer: int, connection: socket.socket) -> dict[str, Any]:
    message = wire.receive(connection)
    if message is None:
        raise PeerLostError(peer, "it closed the connection")
    return message


class _Flow:
    """One message on its way: its header and its bytes, as far as they have not moved yet."""

    __slots__ = ("connection", "done", "peer", "views")
    events: int

    def __init__(self, peer: int, connection: socket.socket, views: list[memoryview]):
        self.peer = peer
        self.connection = connection
        self.views = views
        self.done = False

    def move(self) -> int:
        """Move what can be moved now; returns the number of bytes."""
        raise NotImplementedError

    def _advance(self, count: int) -> None:
        views = self.views
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if not views:
            self.done = True
        elif count:
            views[0] = views[0][count:]


class _Outgoing(_Flow):
    __slots__ = ()
    events = select.POLLOUT

    def __init__(
        self, peer: int, connection: socket.socket, array: Buffer, box: Mailbox | None
    ) -> None:
        payload = _bytes_of(array)
        if box is not None and box.put(payload):
            views = [memoryview(_HEADER.pack(array.nbytes | _IN_MAILBOX))]
        else:
            views = [memoryview(_HEADER.pack(array.nbytes)), payload]
        super().__init__(peer, connection, views)

    def move(self) -> int:
        try:
            count = self.connection.sendmsg(self.views)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerLostError(self.peer, error.strerror or str(error)) from None
        self._advance(count)
        return count


class _Incoming(_Flow):
    __slots__ = ("box", "expected", "header", "payload")
    events = select.POLLIN

    def __init__(
        self, peer: int, connection: socket.socket, array: Buffer, box: Mailbox | None
    ) -> None:
        self.header: bytearray | None = bytearray(_HEADER.size)
        self.expected = array.nbytes
        self.payload = _bytes_of(array)
        self.box = box
        # What follows a header that points to the mailbox is already the next message's.
        follows = [] if box is not None else [self.payload]
        super().__init__(peer, connection, [memoryview(self.header), *follows])

    def move(self) -> int:
        try:
            if len(self.views) == 1:
                count = self.connection.recv_into(self.views[0])
            else:
                count = self.connection.recvmsg_into(self.views)[0]
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerLostError(self.peer, error.strerror or str(error)) from None
        if count == 0:
            raise PeerLostError(self.peer, "it closed the connection")
        whole_header = self.header is not None and count >= len(self.views[0])
        self._advance(count)
        if whole_header:
            count += self._read_header()
        return count

    def _read_header(self) -> int:
        """Check what is announced, and fetch it if it is in the mailbox; bytes fetched."""
        assert self.header is not None
        (announced,) = _HEADER.unpack(self.header)
        self.header = None
        if announced & ~_IN_MAILBOX != self.expected:
            raise RuntimeError(
                f"rank {self.peer} sent {announced & ~_IN_MAILBOX} bytes where {self.expected} "
                "were expected: the ranks disagree about their exchanges"
            )
        if self.box is None:
            return 0
        if announced & _IN_MAILBOX:
            self.box.take(self.payload)
            self.done = True
            return self.expected
        self.views, self.done = [self.payload], False
        return 0


def _bytes_of(array: Buffer) -> memoryview:
    payload: Any = array  # a buffer, which NumPy 2's annotations do not say
    return memoryview(payload).cast("B")


def _wait(flows: list[_Flow]) -> None:
    """Sleep until at least one flow can move."""
    events: dict[int, int] = {}
    for flow in flows:
        descriptor = flow.connection.fileno()
        events[descriptor] = events.get(descriptor, 0) | flow.events
    poll = select.poll()
    for descriptor, mask in events.items():
        poll.register(descriptor, mask)
    poll.poll()
