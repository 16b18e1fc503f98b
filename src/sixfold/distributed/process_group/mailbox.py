"""A way from one rank to another through memory that both map: a pipe for messages.

Through a socket a message between two processes of a host takes two copies inside the kernel and
many small packets, and each side enters the kernel. Here it is one copy in and one out, and whoever
waits just reads a counter. The memory is a ring of bytes, small enough to stay in the cache; a
longer message goes through it piece by piece, so that one rank fills while the other empties.
"""

from __future__ import annotations

import platform
import secrets
from typing import Any

import numpy as np

from sixfold.distributed.process_group.communicator import Buffer
from sixfold.distributed.process_group.shared_memory import SharedMemory

CAPACITY_BYTES = 1 << 22
"""Of the ring. An empty ring is begun anew from its first byte, so messages that are read before
the next is written stay in the cache however large it is."""

PIECE_BYTES = 1 << 18  # so much is copied before the other side can see it
_ANEW = -1  # in the place of a message's length: it follows at the first byte of the ring
_LINE = 64  # a message begins with its length on a cache line of its own, so its bytes lie aligned

_TOKEN_BYTES = 32
_WRITTEN, _READ, _READER_SLEEPS, _WRITER_SLEEPS = 64, 128, 192, 256
_RING_START = 4096
SIZE_BYTES = _RING_START + CAPACITY_BYTES


class Mailbox:
    """One end of a ring in shared memory that one rank fills and another empties.

    Memory: a token by which the receiver knows it has the right file; the number of bytes ever
    written, and ever read, each changed by one side only; whether the reader and the writer sleep;
    the ring. Each lies on a cache line of its own.
    """

    def __init__(self, memory: SharedMemory, *, writes: bool) -> None:
        self.writes = writes  # whether this is the sender's end
        self.messages = 0  # how many this side has begun
        self._memory = memory
        ends = ((_WRITTEN, _WRITER_SLEEPS), (_READ, _READER_SLEEPS))
        (self._own, self._own_sleep), (self._other, self._other_sleep) = (
            [memory.array(np.int64, place, 1).data for place in places]
            for places in (ends if writes else ends[::-1])
        )
        self._ring = memory.array(np.uint8, _RING_START, CAPACITY_BYTES)
        self._lengths = memory.array(np.int64, _RING_START, CAPACITY_BYTES // 8).data
        self._place = 0

    @classmethod
    def create(cls) -> Mailbox:
        """The sender's end; an `OSError` if there is no memory for it."""
        memory = SharedMemory.create(SIZE_BYTES)
        memory.array(np.uint8, 0, _TOKEN_BYTES)[:] = np.frombuffer(
            secrets.token_bytes(_TOKEN_BYTES), np.uint8
        )
        return cls(memory, writes=True)

    def offer(self) -> dict[str, Any]:
        """What the receiver must know, over a connection that only it can read."""
        return {"path": self._memory.path, "token": self._token()}

    @classmethod
    def accept(cls, offer: dict[str, Any]) -> Mailbox | None:
        """The receiver's end; None if the memory cannot be seen from here."""
        if not offer.get("path"):
            return None
        try:
            mailbox = cls(SharedMemory.attach(str(offer["path"]), SIZE_BYTES), writes=False)
        except (OSError, ValueError):
            return None
        if mailbox._token() == offer.get("token"):
            return mailbox
        mailbox.close()
        return None

    def _token(self) -> str:
        return self._memory.array(np.uint8, 0, _TOKEN_BYTES).tobytes().hex()

    def begin(self, count_bytes: int) -> bool:
        """Announce a message, on the sender's side; False if there is no room even for that."""
        place = -(-self._place // _LINE) * _LINE
        if self._other[0] == self._place and place % CAPACITY_BYTES:
            self._lengths[place % CAPACITY_BYTES // 8] = _ANEW
            place = -(-place // CAPACITY_BYTES) * CAPACITY_BYTES
        elif place + _LINE - self._other[0] > CAPACITY_BYTES:
            return False
        self._lengths[place % CAPACITY_BYTES // 8] = count_bytes
        self._advance(place + _LINE)
        self.messages += 1
        return True

    def next(self) -> int | None:
        """The length of the next message, on the receiver's side; None if there is none yet."""
        place = -(-self._place // _LINE) * _LINE
        if self._other[0] < place + _LINE:
            return None
        length = self._lengths[place % CAPACITY_BYTES // 8]
        if length == _ANEW:
            place = -(-place // CAPACITY_BYTES) * CAPACITY_BYTES
            length = self._lengths[0]
        self._advance(place + _LINE)
        self.messages += 1
        return int(length)

    def move(self, rest: Buffer) -> int:
        """Write, or read, as much of a message's rest as one piece takes; 0 if nothing can move."""
        start = self._place % CAPACITY_BYTES
        count = min(len(rest), self._there(), CAPACITY_BYTES - start, PIECE_BYTES)
        if count <= 0:
            return 0
        ring = self._ring[start : start + count]
        if self.writes:
            ring[:] = rest[:count]
        else:
            rest[:count] = ring
        self._advance(self._place + count)
        return count

    def ready(self) -> bool:
        """Whether this side can go on."""
        return self._there() >= (2 * _LINE if self.writes else 1)

    def other_sleeps(self) -> bool:
        """Whether the other side must be woken to find what has changed."""
        return bool(self._other_sleep[0])

    def will_sleep(self, sleeps: bool) -> None:
        """Ask to be woken, or no longer."""
        self._own_sleep[0] = sleeps

    def seal(self) -> None:
        """Let nobody else in."""
        self._memory.seal()

    def close(self) -> None:
        """Give the memory back."""
        for view in (self._own, self._other, self._own_sleep, self._other_sleep, self._lengths):
            view.release()
        self._ring = np.empty(0, np.uint8)
        self._memory.close()

    def _there(self) -> int:
        """Bytes of room for the sender, bytes to be read for the receiver."""
        ahead = self._other[0] - self._place
        return int(CAPACITY_BYTES + ahead if self.writes else ahead)

    def _advance(self, place: int) -> None:
        self._own[0] = self._place = place


def may_share() -> bool:
    """Whether this machine keeps stores in order, as x86 does.

    A message's bytes must be in memory before the count that tells of them is; elsewhere this
    would take instructions that Python does not have.
    """
    return platform.machine().lower() in ("x86_64", "amd64")
