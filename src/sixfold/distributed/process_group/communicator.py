"""What a rank sees of the process group it belongs to.

A `Communicator` is made by an engine, once per rank and attempt, handed to the rank's function and
passed on explicitly. It moves bytes and knows nothing of tensors, training or who started it;
`sixfold.distributed.collectives` builds sums and gathers on it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Buffer = NDArray[Any]
"""A C-contiguous array; its bytes are what travels. Both sides know shape and dtype."""

PlainData = Mapping[str, Any]  # what JSON can hold: None, bool, int, float, str, list, dict


Finish = Callable[[], tuple[float, float]]
"""Waits until an exchange is done; the seconds spent moving bytes, and waiting."""


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A rank's place in a view."""

    view: int  # number of the view; 0 before the first that this process belongs to
    rank: int
    size: int
    attempt: int


class Transport(Protocol):
    """How bytes move between this rank and the others: one implementation per engine."""

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """Send and fill all buffers at once; the seconds spent moving bytes, and waiting."""
        ...

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        """Begin an exchange, and return what ends it; it may all happen then."""
        ...

    def report(self, event: PlainData) -> None:
        """Hand a small message to the launcher."""
        ...

    def should_stop(self) -> bool:
        """True once the launcher has asked all ranks to stop."""
        ...

    def should_renew(self) -> bool:
        """True once somebody waits to be let into the next view."""
        ...

    def renew(self) -> Seat:
        """Leave the view and enter the next."""
        ...


@dataclass
class Traffic:
    """What a rank's exchanges have cost so far."""

    exchanges: int = 0
    bytes_sent: int = 0  # to all peers
    communication_s: float = 0.0  # spent moving bytes
    waiting_s: float = 0.0  # spent waiting for a peer
    # `time.perf_counter()` when the first exchange began since this was set to None
    entered: float | None = None


@dataclass(kw_only=True, eq=False)
class Communicator:
    """What a rank sees: who it is, how many there are, and how to reach them.

    In a group that may change (`elastic`) `renew` gives it another rank and size. A process that
    comes later is called before it has either: its `view` is 0 until it renews.
    """

    rank: int
    size: int
    host: str
    attempt: int  # number of this attempt at the run; a higher one supersedes it
    transport: Transport
    traffic: Traffic = field(default_factory=Traffic)
    view: int = 1
    elastic: bool = False

    @property
    def others(self) -> list[int]:
        """All ranks but this one."""
        return [peer for peer in range(self.size) if peer != self.rank]

    def exchange(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> None:
        """Send `sends[peer]` to each peer and overwrite `receives[peer]` from each, all at once.

        Arrays are C-contiguous. Between two ranks messages keep their order. A send has no partner
        but the receive that the peer posts for it, of the same number of bytes; ranks that have
        nothing to say to each other need not take part. Empty buffers are not sent. A
        `PeerLostError` says that a peer has died or the launcher has ended the attempt.
        """
        self._exchange(sends, receives, self.transport.exchange)()

    def start(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> Callable[[], None]:
        """Begin an exchange, and return what waits for its end; until then no array is touched.

        All ranks begin their exchanges in one order and end them in one order. Others may begin and
        end in between.
        """
        return self._exchange(sends, receives, self.transport.start)

    def _exchange(
        self,
        sends: Mapping[int, Buffer],
        receives: Mapping[int, Buffer],
        move: Callable[..., Any],
    ) -> Callable[[], None]:
        sends = {peer: array for peer, array in sends.items() if array.nbytes}
        receives = {peer: array for peer, array in receives.items() if array.nbytes}
        if not sends and not receives:
            return _nothing
        traffic = self.traffic
        if traffic.entered is None:
            traffic.entered = time.perf_counter()
        found = move(sends, receives)
        traffic.exchanges += 1
        traffic.bytes_sent += sum(array.nbytes for array in sends.values())

        def end() -> None:
            communication_s, waiting_s = found() if callable(found) else found
            traffic.communication_s += communication_s
            traffic.waiting_s += waiting_s

        return end

    def barrier(self) -> None:
        """Return once every rank has called it."""
        receives = {peer: np.empty(1, np.uint8) for peer in self.others}
        self.exchange(dict.fromkeys(self.others, np.zeros(1, np.uint8)), receives)

    def keep_alive(self) -> None:
        """Show that this rank gets on with work that needs no exchange for minutes.

        The launcher calls a rank hung that others wait for while it makes none.
        """
        if self.size > 1:
            self.transport.exchange({}, {})

    def report(self, event: PlainData) -> None:
        """Hand a small message of plain data (JSON types) to the launcher's `on_event`."""
        self.transport.report(event)

    def should_stop(self) -> bool:
        """True once the launcher has asked all ranks to stop."""
        return self.transport.should_stop()

    def should_renew(self) -> bool:
        """True once somebody waits to be let into the next view; ranks may differ on it."""
        return self.elastic and self.transport.should_renew()

    def renew(self) -> None:
        """Leave the view, which has ended or is to end, and enter the next; waits for that.

        Call it after a `PeerLostError`, or when all ranks know that all will. Nothing that was
        sent in the old view is received in the new one. An `AttemptEndedError` says that there
        will be none.
        """
        seat = self.transport.renew()
        self.view, self.rank, self.size = seat.view, seat.rank, seat.size
        self.attempt = seat.attempt

    def subgroup(self, ranks: Sequence[int]) -> Communicator:
        """The group of some ranks, of which this is one, numbered from 0 in the order given.

        What its exchanges cost is counted in the traffic of this communicator.

        >>> alone().subgroup([0]).size
        1
        """
        if self.rank not in ranks:
            raise ValueError(f"rank {self.rank} is not one of {list(ranks)}")
        return dataclasses.replace(
            self,
            rank=list(ranks).index(self.rank),
            size=len(ranks),
            transport=_SubGroup(self.transport, tuple(ranks)),
            elastic=False,
        )


def _nothing() -> None:
    """An exchange of nothing ends at once."""


@dataclass(frozen=True)
class _SubGroup:
    """The transport of some ranks, which have other numbers in the whole group."""

    whole: Transport
    ranks: tuple[int, ...]

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        return self.whole.exchange(
            {self.ranks[peer]: array for peer, array in sends.items()},
            {self.ranks[peer]: array for peer, array in receives.items()},
        )

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        return self.whole.start(
            {self.ranks[peer]: array for peer, array in sends.items()},
            {self.ranks[peer]: array for peer, array in receives.items()},
        )

    def report(self, event: PlainData) -> None:
        self.whole.report(event)

    def should_stop(self) -> bool:
        return self.whole.should_stop()

    def should_renew(self) -> bool:
        return self.whole.should_renew()

    def renew(self) -> Seat:
        raise ValueError("a part of a group cannot be renewed, only the whole")


class SingleProcess:
    """The transport of a process group of one: nobody to talk to. For tests and serial use."""

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """Refuse: there is no peer."""
        raise ValueError(f"a group of one rank has no peers {sorted({*sends, *receives})}")

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        """Refuse, at the end."""
        return partial(self.exchange, sends, receives)

    def report(self, event: PlainData) -> None:
        """Drop the message: nobody launched this rank."""

    def should_stop(self) -> bool:
        """Never."""
        return False

    def should_renew(self) -> bool:
        """Never."""
        return False

    def renew(self) -> Seat:
        """Refuse: nobody else will come."""
        raise ValueError("a group of one process cannot be renewed")


def alone(attempt: int = 0) -> Communicator:
    """The communicator of a single rank, without any engine.

    >>> alone().size
    1
    """
    return Communicator(
        rank=0, size=1, host="localhost", attempt=attempt, transport=SingleProcess()
    )


def bytes_of(array: Buffer) -> Buffer:
    """The bytes themselves: (n,) uint8 on the same memory, which must be contiguous."""
    payload: Any = array  # a buffer, which NumPy 2's annotations do not say
    return np.frombuffer(memoryview(payload).cast("B"), np.uint8)


def check_length(peer: int, announced: int, expected: int) -> None:
    """Refuse a message of another length than this rank expects."""
    if announced != expected:
        raise RuntimeError(
            f"rank {peer} sent {announced} bytes where {expected} were expected: the ranks "
            "disagree about their exchanges"
        )
