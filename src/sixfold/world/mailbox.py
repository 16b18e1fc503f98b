"""A way from one rank to another through memory that both map.

A message of a few hundred kilobytes between two processes of a host takes two copies inside the
kernel and many small packets if it goes through a socket; through shared memory it is one copy in
and one out. Only the bytes go this way: that a message is there is told on the socket, in order
with all others, so nobody has to watch memory, and a peer's death is noticed as always. Where
there is no room, or no common memory, the bytes follow on the socket.
"""

from __future__ import annotations

import platform
import secrets
from typing import Any

import numpy as np

from sixfold.world.shared_memory import SharedMemory

SLOTS = 2
"""Two messages may be under way: a rank fills one while its peer empties the other."""

SMALLEST_BYTES = 16_384
"""Below this a socket is as fast: the bytes go in the packet that tells of them."""

LARGEST_BYTES = 1 << 20
"""What a slot holds. Larger messages fall out of the cache, and the socket's many small copies,
which the receiver takes up while the next ones are made, are faster."""

_TOKEN_BYTES = 32
_COUNTER = 64
_SLOTS_START = 4096
SIZE_BYTES = _SLOTS_START + SLOTS * LARGEST_BYTES


class Mailbox:
    """Slots in shared memory, used in turn by one sender and one receiver.

    Memory: a token by which the receiver knows it has the right file; the number of messages it
    has taken out, on a cache line of its own; the slots.
    """

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._taken = memory.array(np.int64, _COUNTER, 1)
        self._slots = [
            memory.array(np.uint8, _SLOTS_START + slot * LARGEST_BYTES, LARGEST_BYTES)
            for slot in range(SLOTS)
        ]
        self._count = 0

    @classmethod
    def create(cls) -> Mailbox:
        """The sender's side.

        Raises:
            OSError: if there is no memory for it.
        """
        memory = SharedMemory.create(SIZE_BYTES)
        memory.array(np.uint8, 0, _TOKEN_BYTES)[:] = np.frombuffer(
            secrets.token_bytes(_TOKEN_BYTES), np.uint8
        )
        return cls(memory)

    def offer(self) -> dict[str, Any]:
        """What the receiver must be told, over a connection that only it can read."""
        return {"path": self._memory.path, "token": self._token()}

    @classmethod
    def accept(cls, offer: dict[str, Any]) -> Mailbox | None:
        """The receiver's side; None if the memory cannot be seen from here."""
        if not offer.get("path"):
            return None
        try:
            mailbox = cls(SharedMemory.attach(str(offer["path"]), SIZE_BYTES))
        except (OSError, ValueError):
            return None
        if mailbox._token() == offer.get("token"):
            return mailbox
        mailbox.close()
        return None

    def _token(self) -> str:
        return self._memory.array(np.uint8, 0, _TOKEN_BYTES).tobytes().hex()

    def put(self, payload: memoryview) -> bool:
        """Leave a message, on the sender's side; False if it must go another way."""
        size = len(payload)
        if not SMALLEST_BYTES <= size <= LARGEST_BYTES:
            return False
        if self._count - int(self._taken[0]) >= SLOTS:
            return False
        self._slots[self._count % SLOTS][:size] = np.frombuffer(payload, np.uint8)
        self._count += 1
        return True

    def take(self, payload: memoryview) -> None:
        """Fetch the oldest message, of this size, on the receiver's side."""
        slot = self._slots[self._count % SLOTS]
        np.frombuffer(payload, np.uint8)[:] = slot[: len(payload)]
        self._count += 1
        self._taken[0] = self._count

    def seal(self) -> None:
        """Let nobody else in."""
        self._memory.seal()

    def close(self) -> None:
        """Give the memory back."""
        self._taken = np.empty(0, np.int64)
        self._slots = []
        self._memory.close()


def may_share() -> bool:
    """Whether this machine keeps stores in order, as x86 does.

    A message's bytes must be in memory before the count that says a slot is free is; elsewhere
    this would take instructions that Python does not have.
    """
    return platform.machine().lower() in ("x86_64", "amd64")
