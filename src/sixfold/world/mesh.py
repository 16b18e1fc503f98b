"""Bytes between ranks: one TCP connection for every pair, all used at once.

An exchange sends and receives without blocking on any one peer, so no pattern of sends and
receives can deadlock by filling a buffer. Every message has its length in front: ranks that
disagree about an exchange find out, instead of taking one array's bytes for another's.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from sixfold.errors import PeerLostError
from sixfold.world.world import Buffer

SPIN_S = 200e-6
"""How long a rank with a core to itself looks for bytes before it sleeps: about twice what the
kernel takes to put a process to sleep and wake it again."""

_HEADER = struct.Struct("=Q")


class Mesh:
    """Connections to the other ranks of a gang.

    Attributes:
        progress: grows with every byte moved and every exchange completed; the launcher sees from
            it whether this rank gets anywhere.
        waiting_for: the peers without which the current exchange cannot go on; empty while the
            rank computes or bytes move.
    """

    def __init__(self, sockets: Mapping[int, socket.socket], *, spin: bool) -> None:
        """Take over authenticated sockets.

        Args:
            sockets: peer -> connection.
            spin: whether every rank of this host has a core to itself.
        """
        self._sockets = dict(sockets)
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
            _Outgoing(peer, self._socket(peer), array) for peer, array in sends.items()
        ]
        flows += [_Incoming(peer, self._socket(peer), array) for peer, array in receives.items()]
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


class _Flow:
    """One message on its way: its header and its bytes, as far as they have not moved yet."""

    __slots__ = ("connection", "done", "peer", "views")
    events: int

    def __init__(self, peer: int, connection: socket.socket, header: bytearray, array: Buffer):
        self.peer = peer
        self.connection = connection
        payload: Any = array  # a buffer, which NumPy 2's annotations do not say
        self.views = [memoryview(header), memoryview(payload).cast("B")]
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

    def __init__(self, peer: int, connection: socket.socket, array: Buffer) -> None:
        super().__init__(peer, connection, bytearray(_HEADER.pack(array.nbytes)), array)

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
    __slots__ = ("expected", "header")
    events = select.POLLIN

    def __init__(self, peer: int, connection: socket.socket, array: Buffer) -> None:
        self.header: bytearray | None = bytearray(_HEADER.size)
        self.expected = array.nbytes
        super().__init__(peer, connection, self.header, array)

    def move(self) -> int:
        try:
            if self.header is None:
                count = self.connection.recv_into(self.views[0])
            else:
                count = self.connection.recvmsg_into(self.views)[0]
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerLostError(self.peer, error.strerror or str(error)) from None
        if count == 0:
            raise PeerLostError(self.peer, "it closed the connection")
        self._advance(count)
        if self.header is not None and len(self.views) < 2:
            (announced,) = _HEADER.unpack(self.header)
            self.header = None
            if announced != self.expected:
                raise RuntimeError(
                    f"rank {self.peer} sent {announced} bytes where {self.expected} were "
                    "expected: the ranks disagree about their exchanges"
                )
        return count


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
