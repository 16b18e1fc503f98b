"""A process group of one real rank, whose peers are echoes.

What a rank computes in a step follows from its number, the number of ranks and what the others
send: with echoes it computes what it would among so many ranks, on values that are nonsense and
finite.
"""

import time
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from sixfold.distributed.process_group.communicator import (
    Buffer,
    Communicator,
    Finish,
    SingleProcess,
    bytes_of,
)


class Exchange(NamedTuple):
    """One exchange of a rank: how many bytes it sends to each peer, and gets from each."""

    sent: tuple[int, ...]
    received: tuple[int, ...]


class Loopback(SingleProcess):
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
                bytes_of(array)[:] = bytes_of(sent)
            else:
                bytes_of(array)[:] = 0
        self.noted.append(
            Exchange(
                tuple(array.nbytes for array in sends.values()),
                tuple(array.nbytes for array in receives.values()),
            )
        )
        return time.perf_counter() - began, 0.0

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        """Answer when somebody waits for it."""
        return partial(self.exchange, sends, receives)


def echo_world(rank: int, size: int) -> tuple[Communicator, Loopback]:
    """The world of one rank of `size`, whose peers are echoes.

    >>> import numpy as np
    >>> world, echo = echo_world(0, 3)
    >>> received = np.zeros(2, np.float32)
    >>> world.exchange({1: np.ones(2, np.float32)}, {1: received})
    >>> received.tolist(), echo.noted
    ([1.0, 1.0], [Exchange(sent=(8,), received=(8,))])
    """
    loopback = Loopback()
    return Communicator(rank=rank, size=size, host="echo", attempt=0, transport=loopback), loopback
