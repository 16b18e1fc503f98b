"""The launcher's side of a process group: where ranks meet, and what has become of them.

Ranks connect to one port that stays bound for the whole run. Threads only read from connections;
everything is decided in `poll`, in the launcher's own thread.

A group that may change (`least`) is one `ElasticGroup`. Any other may be started several times.
Every try is a *generation*, numbered by whoever starts it. The first rank of a higher generation
ends the lower ones: their connections are closed, and with them their ranks end themselves. `claim`
gives each an attempt number, under which its ranks may write to the run directory.
"""

import queue
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.elastic import ElasticGroup
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.generation import (
    PATIENCE,
    Generation,
    Member,
    OnEvent,
    Patience,
)
from sixfold.distributed.process_group.listener import AuthenticatedListener

MOST_NOTICES = 1000  # taken in at one poll, so that talkative ranks do not keep it from deciding
INATTENTION_S = 5.0
"""A pause between two polls after which silence counts from anew: the launcher was suspended."""


class Rendezvous:
    """Where the ranks of one process group meet."""

    def __init__(
        self,
        size: int,
        *,
        least: int | None = None,
        host: str = "127.0.0.1",
        claim: Callable[[], int] | None = None,
        on_event: OnEvent | None = None,
        patience: Patience = PATIENCE,
        tls: bool = False,
    ) -> None:
        """Bind a port of the interface `host` and let ranks come.

        `claim` gives a new generation, or view, the number of its attempt (its own number without
        it). With `least` ranks may come and go while so many are left.
        """
        self.size = size
        self.secret = wire.new_secret(tls=tls)  # what they must know for it
        self.restarts = 0  # how many generations came before the present one
        # when our first line had run in all ranks of the first generation that met, and when
        # they had met (`time.monotonic()`)
        self.first_met: tuple[float, float] | None = None
        # why the generation before the present one failed, as far as it is known
        self.last_fault: Fault | None = None
        self._claim = claim
        self._on_event = on_event
        self._patience = patience
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # the group that may change, if it may
        self.elastic = (
            None if least is None else ElasticGroup(least, size, patience, claim, on_event)
        )
        # the present generation
        self.now: Generation | ElasticGroup = self.elastic or Generation(-1, size, patience)
        self._stopping = False
        self._closed = False
        self._attentive_since = self._polled_at = time.monotonic()
        self._connections: set[wire.Connection] = set()
        self._listener = AuthenticatedListener(
            host,
            self.secret,
            self._read,
            exhausted=lambda error: self._inbox.put(partial(_fail, error)),
        )
        self.address = self._listener.address  # where ranks join

    def admit(self, generation: int) -> None:
        """Begin a generation: from now on only its ranks may join, and all others are over.

        Without it, the first rank of a higher generation that joins begins it.
        """
        if self.now.number >= 0:
            self.restarts += 1
        self.last_fault = fault = self.now.best_guess
        if fault is not None and self._on_event is not None:
            what = "all start again, from the last checkpoint if there is one"
            text = f"rank {fault.rank} on {fault.host} was lost ({fault.cause}): {what}"
            self._on_event(fault.rank, {"kind": "note", "text": text})
        self.now.shut()
        self.now = Generation(generation, self.size, self._patience)
        self.now.attempt = generation if self._claim is None else self._claim()

    def poll(self, timeout_s: float) -> None:
        """Take in what ranks have said; wait at most so long for the first. Callbacks run here.

        Call it in a loop, at least every few seconds, until `now.finished` or `now.fault`.
        """
        now = time.monotonic()
        if now - self._polled_at > INATTENTION_S:
            self._attentive_since = now
        if self.now.due is not None:
            timeout_s = max(min(timeout_s, self.now.due - now), 0.0)
        try:
            self._inbox.get(timeout=timeout_s)()
            for _ in range(MOST_NOTICES):
                self._inbox.get_nowait()()
        except queue.Empty:
            pass
        self._polled_at = time.monotonic()
        self.now.decide(self._polled_at, self._attentive_since)

    def died(
        self, rank: int, cause: str, *, generation: int, log_tail: tuple[str, ...] = ()
    ) -> None:
        """Report the end of a rank's process, from any thread; harmless after its last word."""
        self._inbox.put(partial(self._process_ended, rank, cause, generation, log_tail))

    def stop(self) -> None:
        """Ask all ranks to stop, those that are still to join too."""
        self._stopping = True
        self.now.send_all({"kind": "stop"})

    def close(self) -> None:
        """End all connections, and with them the ranks; harmless if called twice."""
        self._closed = True
        for connection in list(self._connections):
            connection.shut()
        self._listener.close()
        while not self._inbox.empty():
            self._inbox.get()

    def _read(self, sock: socket.socket) -> None:
        """The life of a connection's thread, which only reads."""
        connection = wire.Connection(sock)
        self._connections.add(connection)
        if self._closed:
            connection.shut()
        while (message := connection.receive()) is not None:
            self._inbox.put(partial(self._said, connection, message, time.monotonic()))
        self._connections.discard(connection)
        self._inbox.put(partial(self._left, connection, time.monotonic()))
        connection.close()

    # What the threads' notices do, in poll().

    def _process_ended(
        self, rank: int, cause: str, generation: int, log_tail: tuple[str, ...]
    ) -> None:
        if self.elastic is not None:
            self.elastic.process_ended(rank, cause, log_tail, generation)
        elif generation == self.now.number and isinstance(self.now, Generation):
            self.now.process_ended(rank, cause, log_tail)

    def _left(self, connection: wire.Connection, when: float) -> None:
        if (member := self.now.member(connection)) is not None:
            self.now.connection_broke(member, when)

    def _said(self, connection: wire.Connection, message: dict[str, Any], when: float) -> None:
        if message["kind"] == "join":
            self._let_join(connection, message, when)
        elif (member := self.now.member(connection)) is not None:  # and not of an older generation
            self.now.hear(member, message, when, self._on_event)
            if self.first_met is None and (met_at := self.now.met_at) is not None:
                self.first_met = max(m.first_line for m in self.now.members.values()), met_at

    def _let_join(self, connection: wire.Connection, message: dict[str, Any], when: float) -> None:
        refusal = self._refusal(message["rank"], message["size"], message["generation"])
        if refusal:
            connection.send({"kind": "refuse", "reason": refusal})
            connection.shut()
            return
        if self.elastic is None and message["generation"] > self.now.number:
            self.admit(message["generation"])
        if self._stopping:
            connection.send({"kind": "stop"})
        is_present = self.elastic is None and message["generation"] == self.now.number
        if is_present and message["rank"] in self.now.members:
            return  # a second try at the same process waits, unheard
        self.now.add(
            Member(
                rank=message["rank"],
                host=message["host"],
                pid=message["pid"],
                address=(message["address"][0], message["address"][1]),
                first_line=when - message["age_s"],
                connection=connection,
                life=message["generation"],
                seen=when,
                moved=when,
            )
        )

    def _refusal(self, rank: int, size: int, generation: int) -> str:
        """Why such a rank may not join; empty if it may."""
        now = self.now
        if now.fault is not None and not now.fault.retryable:
            return f"the run has failed: {now.fault.cause}"
        if self.elastic is not None:
            generation = now.number  # whether this process may take its slot is decided there
        if generation < now.number:
            return f"generation {generation} was superseded by {now.number}"
        if generation == now.number and now.over:
            return "it is over"
        if size != self.size or not 0 <= rank < size:
            return f"there is no rank {rank} of {size}, only {self.size} ranks"
        return ""


def _fail(error: Exception) -> None:
    raise error
