"""The launcher's side of a process group: where ranks meet, and what has become of them.

Ranks connect to one port that stays bound for the whole run. Threads only read from connections;
everything is decided in `poll`, in the launcher's own thread, and its callbacks run there.

A process group may be started several times. Every try is a *generation*, numbered by whoever
starts it (on Spark it is the number of the stage's attempt). The first rank of a higher generation
ends the lower ones: their connections are closed, and with them their ranks end themselves. Each
generation is given an attempt number by `claim`, under which its ranks may write to the run
directory.
"""

from __future__ import annotations

import dataclasses
import queue
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from sixfold.distributed.process_group import failure_detector, wire
from sixfold.distributed.process_group.diagnosis import GRACE_S
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.generation import Generation, Member, OnEvent, Patience
from sixfold.distributed.process_group.listener import AuthenticatedListener

MOST_NOTICES = 1000
"""Taken in at one poll, so that talkative ranks do not keep it from judging."""
INATTENTION_S = 5.0
"""A pause between two polls after which silence counts from anew: the launcher was suspended."""


class Rendezvous:
    """Where the ranks of one process group meet."""

    def __init__(
        self,
        size: int,
        *,
        host: str = "127.0.0.1",
        claim: Callable[[], int] | None = None,
        on_event: OnEvent | None = None,
        hang_s: float = 60.0,
        stall_s: float = 600.0,
        graces_s: Mapping[str, float] = GRACE_S,
    ) -> None:
        """Bind a port of the interface `host` and let ranks come.

        `claim` is called when a new generation begins and returns the number of the attempt
        (without it, the generation's own); `on_event` is called with (rank, event) for every
        `Communicator.report`.
        """
        self.size = size
        self.secret = secrets.token_bytes(32)  # what they must know for it
        self.restarts = 0  # how many generations came before the present one
        # why the generation before the present one failed, as far as it is known
        self.last_fault: Fault | None = None
        self._claim = claim
        self._on_event = on_event
        self._patience = Patience(hang_s=hang_s, stall_s=stall_s, graces_s=graces_s)
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._now = Generation(-1, size, self._patience)
        self._stopping = False
        self._closed = False
        self._attentive_since = self._polled_at = time.monotonic()
        self._connections: set[wire.Connection] = set()
        self._door = AuthenticatedListener(host, self.secret, self._listen)
        self.address = self._door.address  # where ranks join

    # What the launcher may ask.

    @property
    def generation(self) -> int:
        """Number of the present generation; -1 before any rank has joined."""
        return self._now.number

    @property
    def members(self) -> dict[int, Member]:
        """The ranks of the present generation that have joined, by rank."""
        return self._now.members

    @property
    def met_at(self) -> float | None:
        """When all ranks of the present generation had met (`time.monotonic()`); None before."""
        return self._now.met_at

    @property
    def fault(self) -> Fault | None:
        """Why the present generation failed; None while it has not.

        Its connections are shut by then.
        """
        return self._now.fault

    @property
    def finished(self) -> bool:
        """Whether all ranks have handed over their results."""
        return self._now.finished

    @property
    def results(self) -> list[Any]:
        """The ranks' results, by rank, once `finished`."""
        return [self._now.results[rank] for rank in range(self.size)]

    def admit(self, generation: int) -> None:
        """Begin a generation: from now on only its ranks may join, and all others are over.

        Called by whoever starts the ranks, or else when the first rank of a higher generation
        joins.
        """
        if self._now.number >= 0:
            self.restarts += 1
        self.last_fault = self._now.best_guess
        self._now.shut()
        self._now = Generation(generation, self.size, self._patience)
        self._now.attempt = generation if self._claim is None else self._claim()

    def poll(self, timeout_s: float) -> None:
        """Take in what ranks have said; wait at most so long for the first. Callbacks run here.

        Call it in a loop, at least every few seconds, until `finished` or `fault`.
        """
        now = time.monotonic()
        if now - self._polled_at > INATTENTION_S:
            self._attentive_since = now
        if self._now.due is not None:
            timeout_s = max(min(timeout_s, self._now.due - now), 0.0)
        try:
            self._take(*self._inbox.get(timeout=timeout_s))
            for _ in range(MOST_NOTICES):
                self._take(*self._inbox.get_nowait())
        except queue.Empty:
            pass
        self._polled_at = time.monotonic()
        self._now.judge(self._polled_at, self._attentive_since)

    def died(
        self, rank: int, cause: str, *, generation: int, log_tail: tuple[str, ...] = ()
    ) -> None:
        """Tell of the end of a rank's process, from any thread; harmless after its last word."""
        self._inbox.put(("died", rank, cause, generation, log_tail))

    def stop(self) -> None:
        """Ask all ranks to stop, those that are still to join too."""
        self._stopping = True
        self._now.tell_all({"kind": "stop"})

    def close(self) -> None:
        """End all connections, and with them the ranks; harmless if called twice."""
        self._closed = True
        for connection in list(self._connections):
            connection.shut()
        self._door.close()
        while not self._inbox.empty():
            self._inbox.get()

    # Threads: one for each connection, which only reads.

    def _listen(self, sock: socket.socket) -> None:
        connection = wire.Connection(sock)
        self._connections.add(connection)
        if self._closed:
            connection.shut()
        while (message := connection.receive()) is not None:
            self._inbox.put(("said", connection, message, time.monotonic()))
        self._connections.discard(connection)
        self._inbox.put(("left", connection, time.monotonic()))
        connection.close()

    # The launcher's thread, in poll().

    def _take(self, what: str, *facts: Any) -> None:
        if what == "said":
            self._hear(*facts)
        elif what == "left":
            self._connection_broke(*facts)
        else:
            self._process_ended(*facts)

    def _hear(self, connection: wire.Connection, message: dict[str, Any], when: float) -> None:
        if message["kind"] == "join":
            self._let_join(connection, message, when)
            return
        member = self._now.member(connection)
        if member is not None:  # and not of an older generation
            self._now.hear(member, message, when, self._on_event)

    def _connection_broke(self, connection: wire.Connection, when: float) -> None:
        member = self._now.member(connection)
        if member is not None:
            self._now.connection_broke(member, when)

    def _process_ended(
        self, rank: int, cause: str, generation: int, log_tail: tuple[str, ...]
    ) -> None:
        if generation == self._now.number:
            self._now.process_ended(rank, cause, log_tail)

    def _let_join(self, connection: wire.Connection, message: dict[str, Any], when: float) -> None:
        refusal = self._refusal(message["rank"], message["size"], message["generation"])
        if refusal:
            connection.send({"kind": "refuse", "reason": refusal})
            connection.shut()
            return
        if message["generation"] > self._now.number:
            self.admit(message["generation"])
        if self._stopping:
            connection.send({"kind": "stop"})
        self._now.add(
            Member(
                rank=message["rank"],
                host=message["host"],
                pid=message["pid"],
                address=(message["address"][0], message["address"][1]),
                first_line=when - message["age_s"],
                connection=connection,
                pulse=failure_detector.Heartbeat(seen=when, moved=when),
            )
        )

    def _refusal(self, rank: int, size: int, generation: int) -> str:
        """Why such a rank may not join; empty if it may."""
        now = self._now
        if now.fault is not None and not now.fault.retryable:
            return f"the run has failed: {now.fault.cause}"
        if generation < now.number:
            return f"generation {generation} was superseded by {now.number}"
        if generation == now.number and now.over:
            return "it is over"
        if size != self.size or not 0 <= rank < size:
            return f"there is no rank {rank} of {size}, only {self.size} ranks"
        if generation == now.number and rank in now.members:
            return f"rank {rank} has joined already"
        return ""


def with_log(fault: Fault, log_tail: tuple[str, ...]) -> Fault:
    """The fault with what the rank had printed, if nothing better is known."""
    return fault if fault.log_tail else dataclasses.replace(fault, log_tail=log_tail)
