"""The launcher's side of a gang: where ranks meet, and where it shows what has become of them.

Ranks connect to one port that stays bound for the whole run. Threads only read from connections;
everything is decided in `poll`, in the launcher's own thread, and its callbacks run there.

A gang may be started several times. Every try is a *generation*, numbered by whoever starts it
(on Spark it is the number of the stage's attempt). The first rank of a higher generation ends the
lower ones: their connections are closed, and with them their ranks end themselves. Each generation
is given an attempt number by `claim`, under which its ranks may write to the run directory.
"""

from __future__ import annotations

import dataclasses
import queue
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sixfold.world import watch, wire
from sixfold.world.faults import Fault
from sixfold.world.inquest import GRACE_S, Inquest
from sixfold.world.world import PlainData

STACK_S = 5.0
"""For a rank under suspicion to tell what it is doing."""
MOST_NOTICES = 1000
"""Taken in at one poll, so that talkative ranks do not keep it from judging."""
INATTENTION_S = 5.0
"""A pause between two polls after which silence counts from anew: the launcher was suspended."""


@dataclass
class Member:
    """A rank that has joined the present generation.

    Attributes:
        rank: its number.
        host: name of its host.
        pid: its process there.
        address: where its peers reach it.
        first_line: when our first line of code ran in it (`time.monotonic()` of the launcher).
        met: it is connected to all others.
        done: it has said its last word, a result or an error.
    """

    rank: int
    host: str
    pid: int
    address: tuple[str, int]
    first_line: float
    connection: wire.Connection
    pulse: watch.Pulse
    met: bool = False
    done: bool = False


@dataclass
class _Generation:
    """What belongs to one try of the gang."""

    number: int = -1
    attempt: int = -1
    members: dict[int, Member] = field(default_factory=dict)
    results: dict[int, Any] = field(default_factory=dict)
    met_at: float | None = None
    inquest: Inquest = field(default_factory=Inquest)
    asked_for_stack: tuple[watch.Verdict, float] | None = None


class Rendezvous:
    """Where the ranks of one gang meet.

    Attributes:
        address: where ranks join.
        secret: what they must know for it.
        size: number of ranks.
        fault: why the present generation failed; None while it has not. Its connections are
            closed by then.
        restarts: how many generations came before the present one.
        last_fault: why the generation before the present one failed, as far as it is known.
    """

    def __init__(
        self,
        size: int,
        *,
        host: str = "127.0.0.1",
        claim: Callable[[], int] | None = None,
        on_event: Callable[[int, PlainData], None] | None = None,
        hang_s: float = 60.0,
        stall_s: float = 600.0,
        graces_s: Mapping[str, float] = GRACE_S,
    ) -> None:
        """Bind a port and let ranks come.

        Args:
            size: number of ranks.
            host: address of the interface that ranks reach.
            claim: called when the first rank of a new generation joins; returns the number of
                the attempt. Without it the generation's own number is used.
            on_event: called with (rank, event) for every `world.report`.
            hang_s: silence after which a rank is given up.
            stall_s: time without any exchange after which a rank that keeps others waiting is
                given up.
            graces_s: how long symptoms wait for their cause; see `sixfold.world.inquest`.
        """
        self.size = size
        self.secret = secrets.token_bytes(32)
        self.fault: Fault | None = None
        self.restarts = 0
        self.last_fault: Fault | None = None
        self._claim = claim
        self._on_event = on_event
        self._hang_s = hang_s
        self._stall_s = stall_s
        self._graces_s = graces_s
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._now = _Generation()
        self._stopping = False
        self._closed = False
        self._attentive_since = self._polled_at = time.monotonic()
        self._connections: set[wire.Connection] = set()
        self._door = wire.Door(host, self.secret, self._listen)
        self.address = self._door.address

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
    def finished(self) -> bool:
        """Whether all ranks have handed over their results."""
        return len(self._now.results) == self.size

    @property
    def results(self) -> list[Any]:
        """The ranks' results, by rank, once `finished`."""
        return [self._now.results[rank] for rank in range(self.size)]

    def admit(self, generation: int) -> None:
        """Begin a generation: from now on only its ranks may join, and all others are over.

        Called by whoever starts the ranks, or else when the first rank of a higher generation
        joins.

        Raises:
            Exception: whatever `claim` raises.
        """
        if self._now.number >= 0:
            self.restarts += 1
        self.last_fault = self.fault or self._now.inquest.best
        self._shut_members()
        self._now = _Generation(number=generation, inquest=Inquest(self._graces_s))
        self.fault = None
        self._now.attempt = generation if self._claim is None else self._claim()

    def poll(self, timeout_s: float) -> None:
        """Take in what ranks have said; wait at most so long for the first. Callbacks run here.

        Call it in a loop, at least every few seconds, until `finished` or `fault`.

        Raises:
            Exception: whatever `claim` or `on_event` raises.
        """
        now = time.monotonic()
        if now - self._polled_at > INATTENTION_S:
            self._attentive_since = now
        if self.fault is None and self._now.inquest.due is not None:
            timeout_s = max(min(timeout_s, self._now.inquest.due - now), 0.0)
        try:
            self._take(*self._inbox.get(timeout=timeout_s))
            for _ in range(MOST_NOTICES):
                self._take(*self._inbox.get_nowait())
        except queue.Empty:
            pass
        self._judge()
        self._polled_at = time.monotonic()

    def died(
        self, rank: int, cause: str, *, generation: int, log_tail: tuple[str, ...] = ()
    ) -> None:
        """Tell of the end of a rank's process, from any thread; harmless after its last word.

        Args:
            rank: its number.
            cause: one line, such as an exit status in words.
            generation: the try to which the process belonged.
            log_tail: last lines of what it printed.
        """
        self._inbox.put(("died", rank, cause, generation, log_tail))

    def stop(self) -> None:
        """Ask all ranks to stop, those that are still to join too."""
        self._stopping = True
        for member in self._now.members.values():
            member.connection.send({"kind": "stop"})

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
        self._inbox.put(("left", connection))
        connection.close()

    # The launcher's thread, in poll().

    def _take(self, what: str, *facts: Any) -> None:
        if what == "said":
            self._hear(*facts)
        elif what == "left":
            self._lost_connection(*facts)
        else:
            self._process_ended(*facts)

    def _hear(self, connection: wire.Connection, message: dict[str, Any], when: float) -> None:
        kind = message["kind"]
        if kind == "join":
            self._let_join(connection, message, when)
            return
        member = self._member(connection)
        if member is None:  # of an older generation, or before it joined
            return
        member.pulse.seen = when
        if kind == "alive":
            member.pulse.beat(when, message["progress"], tuple(message["waiting_for"]))
        elif kind == "met":
            member.met = True
            if sum(other.met for other in self._now.members.values()) == self.size:
                self._now.met_at = when
        elif kind == "event":
            if self._on_event is not None:
                self._on_event(member.rank, message["event"])
        elif kind == "result":
            self._now.results[member.rank] = message["value"]
            self._part(member)
        elif kind == "error":
            self._part(member)
            self._heard_error(member, Fault.from_plain(message["fault"]))
        elif kind == "stacks" and self._now.asked_for_stack is not None:
            verdict, _ = self._now.asked_for_stack
            if verdict.rank == member.rank:
                self._convict(verdict, tuple(message["lines"]))

    def _part(self, member: Member) -> None:
        member.done = member.pulse.done = True
        member.connection.send({"kind": "bye"})

    def _let_join(self, connection: wire.Connection, message: dict[str, Any], when: float) -> None:
        generation, rank = message["generation"], message["rank"]
        refusal = ""
        if self.fault is not None and not self.fault.curable:
            refusal = f"the run has failed: {self.fault.cause}"
        elif generation < self._now.number:
            refusal = f"generation {generation} was superseded by {self._now.number}"
        elif generation == self._now.number and (self.fault is not None or self.finished):
            refusal = "it is over"
        elif message["size"] != self.size or not 0 <= rank < self.size:
            refusal = f"there is no rank {rank} of {message['size']}, only {self.size} ranks"
        elif generation == self._now.number and rank in self._now.members:
            refusal = f"rank {rank} has joined already"
        if refusal:
            connection.send({"kind": "refuse", "reason": refusal})
            connection.shut()
            return
        if generation > self._now.number:
            self.admit(generation)
        self._now.members[rank] = Member(
            rank=rank,
            host=message["host"],
            pid=message["pid"],
            address=(message["address"][0], message["address"][1]),
            first_line=when - message["age_s"],
            connection=connection,
            pulse=watch.Pulse(seen=when, moved=when),
        )
        if self._stopping:
            connection.send({"kind": "stop"})
        if len(self._now.members) == self.size:
            self._start()

    def _start(self) -> None:
        peers = [list(self._now.members[rank].address) for rank in range(self.size)]
        for member in self._now.members.values():
            member.connection.send({"kind": "start", "attempt": self._now.attempt, "peers": peers})

    def _member(self, connection: wire.Connection) -> Member | None:
        for member in self._now.members.values():
            if member.connection is connection:
                return member
        return None

    # Faults: see `sixfold.world.inquest`.

    def _heard_error(self, member: Member, fault: Fault) -> None:
        if fault.kind != "peer":
            self._settle(fault)
        elif fault.peer in self._now.results:
            cause = f"rank {fault.rank} wanted an exchange with it after it had finished"
            host = self._now.members[fault.peer].host
            self._settle(Fault(kind="raised", rank=fault.peer, host=host, cause=cause))
        else:
            accused = self._now.members.get(fault.peer, member)
            cause = f"lost by rank {fault.rank}: {fault.cause}"
            lost = Fault(kind="lost", rank=accused.rank, host=accused.host, cause=cause)
            self._now.inquest.add(lost, "peer", time.monotonic())

    def _lost_connection(self, connection: wire.Connection) -> None:
        member = self._member(connection)
        if member is None or member.done:
            return
        fault = Fault(
            kind="lost",
            rank=member.rank,
            host=member.host,
            cause=f"its connection broke (process {member.pid} was killed, or its host vanished)",
        )
        self._now.inquest.add(fault, "connection", time.monotonic())

    def _process_ended(
        self, rank: int, cause: str, generation: int, log_tail: tuple[str, ...]
    ) -> None:
        member = self._now.members.get(rank)
        if generation != self._now.number or (member is not None and member.done):
            return
        host = member.host if member else socket.gethostname()
        self._settle(Fault(kind="lost", rank=rank, host=host, cause=cause, log_tail=log_tail))

    def _settle(self, fault: Fault) -> None:
        if self.fault is None and not self.finished:
            self.fault = fault
            self._shut_members()

    def _shut_members(self) -> None:
        for member in self._now.members.values():
            member.connection.shut()

    # Hung ranks.

    def _judge(self) -> None:
        now = time.monotonic()
        if self.fault is not None or self.finished:
            return
        fault = self._now.inquest.verdict(now)
        if fault is not None:
            self._settle(fault)
        elif self._now.asked_for_stack is not None:
            verdict, due = self._now.asked_for_stack
            if now >= due:
                self._convict(verdict, ())
        elif self._now.inquest.due is None:
            self._look_for_hung_ranks(now)

    def _look_for_hung_ranks(self, now: float) -> None:
        verdict = watch.judge(
            {member.rank: member.pulse for member in self._now.members.values()},
            now,
            hang_s=self._hang_s,
            stall_s=self._stall_s,
            since=self._attentive_since,
        )
        if verdict is not None and verdict.wants_stack:
            self._now.asked_for_stack = (verdict, now + STACK_S)
            self._now.members[verdict.rank].connection.send({"kind": "dump"})
        elif verdict is not None:
            self._convict(verdict, ())

    def _convict(self, verdict: watch.Verdict, stack: tuple[str, ...]) -> None:
        host = self._now.members[verdict.rank].host
        self._settle(
            Fault(kind="lost", rank=verdict.rank, host=host, cause=verdict.cause, log_tail=stack)
        )


def with_log(fault: Fault, log_tail: tuple[str, ...]) -> Fault:
    """The fault with what the rank had printed, if nothing better is known."""
    return fault if fault.log_tail else dataclasses.replace(fault, log_tail=log_tail)
