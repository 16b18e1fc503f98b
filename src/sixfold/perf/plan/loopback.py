"""Peers that answer at once: what one rank of many does, without the others.

A rank's part in a step follows from its number, the number of ranks and what the peers send. With
a link whose peers repeat what they are sent, the real code of a strategy runs on one rank as if
there were n: it computes what it would compute, and every exchange is noted with its bytes. The
values are nonsense, and finite.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sixfold.distributed.process_group import Buffer, Communicator, PlainData


class Exchange(NamedTuple):
    """One exchange of a rank: how many bytes it sends to each peer, and gets from each."""

    sent: tuple[int, ...]
    received: tuple[int, ...]


class Loopback:
    """A link whose peers send back what they get, or zeros where the sizes differ."""

    def __init__(self) -> None:
        self.noted: list[Exchange] = []  # the exchanges so far

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """Answer; the time it takes is told as communication, so that nobody counts it as work."""
        began = time.perf_counter()
        for peer, array in receives.items():
            sent = sends.get(peer)
            if sent is not None and sent.nbytes == array.nbytes:
                _bytes_of(array)[:] = _bytes_of(sent)
            else:
                _bytes_of(array)[:] = 0
        self.noted.append(
            Exchange(
                tuple(array.nbytes for array in sends.values()),
                tuple(array.nbytes for array in receives.values()),
            )
        )
        return time.perf_counter() - began, 0.0

    def report(self, event: PlainData) -> None:
        """Nobody listens."""

    def should_stop(self) -> bool:
        """Never."""
        return False


def _bytes_of(array: Buffer) -> Buffer:
    return array.reshape(-1).view(np.uint8)


def echo_world(rank: int, size: int) -> tuple[Communicator, Loopback]:
    """The world of one rank of `size`, whose peers are echoes.

    >>> world, echo = echo_world(0, 3)
    >>> received = np.zeros(2, np.float32)
    >>> world.exchange({1: np.ones(2, np.float32)}, {1: received})
    >>> received.tolist(), echo.noted
    ([1.0, 1.0], [Exchange(sent=(8,), received=(8,))])
    """
    loopback = Loopback()
    return Communicator(
        rank=rank, size=size, host="rehearsal", attempt=0, transport=loopback
    ), loopback
