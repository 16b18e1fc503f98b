"""One try of a process group, as its launcher sees it: who joined, what they said, how it ended.

It only takes in what it is given and decides; `Rendezvous` reads connections and knows the time.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from sixfold.distributed.process_group import failure_detector, wire
from sixfold.distributed.process_group.communicator import PlainData
from sixfold.distributed.process_group.faults import GRACE_S, FailureDiagnosis, Fault

STACK_S = 5.0  # for a rank under suspicion to report its stack

OnEvent = Callable[[int, PlainData], None]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the launcher waits before it believes the worst."""

    hang_s: float = 60.0  # with a rank that gives no sign of life, and with a deadlock
    stall_s: float = 600.0  # with a rank that makes no exchange while others wait for it
    # with symptoms, for their cause; see `FailureDiagnosis`
    graces_s: Mapping[str, float] = field(default_factory=lambda: GRACE_S)


PATIENCE = Patience()


@dataclass(kw_only=True)
class Member(failure_detector.Heartbeat):
    """A rank that has joined."""

    rank: int
    host: str
    pid: int
    address: tuple[str, int]  # where its peers reach it
    first_line: float  # when our first line of code ran in it (`time.monotonic()` of the launcher)
    connection: wire.Connection  # to its control thread
    life: int = 0  # in a group that may change: which process in its slot it is
    met: bool = False  # it is connected to all others


class Generation:
    """The state of one try."""

    def __init__(self, number: int, size: int, patience: Patience) -> None:
        self.number = number  # of the try; -1 before the first
        self.attempt = -1  # number under which its ranks may write to the run directory
        self.members: dict[int, Member] = {}  # the ranks that have joined, by rank
        self.met_at: float | None = None  # when all ranks had met; None before
        # Why it failed; None while it has not. All connections are shut then.
        self.fault: Fault | None = None
        self._size = size
        self._patience = patience
        self._results: dict[int, Any] = {}
        self._diagnosis = FailureDiagnosis(patience.graces_s)
        self._asked_for_stack: tuple[failure_detector.Verdict, float] | None = None

    @property
    def finished(self) -> bool:
        """Whether all ranks have handed over their results."""
        return len(self._results) == self._size

    @property
    def results(self) -> list[Any]:
        """The ranks' results, by rank, once `finished`."""
        return [self._results[rank] for rank in range(self._size)]

    @property
    def over(self) -> bool:
        """Whether nothing that can still be heard would change how it ended."""
        return self.finished or self.fault is not None

    @property
    def best_guess(self) -> Fault | None:
        """Why it failed, as far as it is known."""
        return self.fault or self._diagnosis.best

    @property
    def due(self) -> float | None:
        """When `decide` will have something to decide, if nothing happens before."""
        return None if self.over else self._diagnosis.due

    def member(self, connection: wire.Connection) -> Member | None:
        """Whose connection it is."""
        return next((m for m in self.members.values() if m.connection is connection), None)

    def add(self, member: Member) -> None:
        """A rank joins; the last to join lets all begin."""
        self.members[member.rank] = member
        if len(self.members) == self._size:
            peers = [list(self.members[rank].address) for rank in range(self._size)]
            self.send_all({"kind": "start", "attempt": self.attempt, "peers": peers})

    def send_all(self, message: PlainData) -> None:
        """Send a message to every rank that has joined."""
        for member in self.members.values():
            member.connection.send(message)

    def shut(self) -> None:
        """End all connections, and with them the ranks."""
        for member in self.members.values():
            member.connection.shut()

    # What is heard of a rank.

    def hear(
        self, member: Member, message: Mapping[str, Any], when: float, on_event: OnEvent | None
    ) -> None:
        """Take in what a rank has said at a time."""
        kind = message["kind"]
        member.seen = when
        if kind == "alive":
            waiting_for, stack = tuple(message["waiting_for"]), tuple(message["stack"])
            member.beat(when, message["progress"], waiting_for, stack)
        elif kind == "met":
            member.met = True
            if sum(other.met for other in self.members.values()) == self._size:
                self.met_at = when
        elif kind == "event" and on_event is not None:
            on_event(member.rank, message["event"])
        elif kind == "result":
            self._results[member.rank] = message["value"]
            self._part(member)
        elif kind == "error":
            self._part(member)
            self._hear_error(member, Fault.from_plain(message["fault"]), when)
        elif kind == "stacks" and self._asked_for_stack is not None:
            verdict, _ = self._asked_for_stack
            if verdict.rank == member.rank:
                self._give_up(verdict, tuple(message["lines"]))

    def connection_broke(self, member: Member, when: float) -> None:
        """A rank can no longer be heard: no surprise after its last word, a symptom before."""
        if not member.done:
            cause = f"its connection broke (process {member.pid} was killed, or its host vanished)"
            self._diagnosis.add(lost(member, cause), "connection", when)

    def process_ended(self, rank: int, cause: str, log_tail: tuple[str, ...]) -> None:
        """A rank's process has ended; it may not have joined yet."""
        member = self.members.get(rank)
        if member is None or not member.done:
            host = member.host if member else socket.gethostname()
            self.settle(Fault(kind="lost", rank=rank, host=host, cause=cause, log_tail=log_tail))

    def _part(self, member: Member) -> None:
        member.done = True
        member.connection.send({"kind": "bye"})

    def _hear_error(self, member: Member, fault: Fault, when: float) -> None:
        if fault.kind != "peer":
            self.settle(fault)
        elif fault.peer in self._results:  # a restart would end the same way
            cause = f"rank {fault.rank} wanted an exchange with it after it had finished"
            host = self.members[fault.peer].host
            self.settle(Fault(kind="raised", rank=fault.peer, host=host, cause=cause))
        else:
            accused = self.members.get(fault.peer, member)
            cause = f"lost by rank {fault.rank}: {fault.cause}"
            self._diagnosis.add(lost(accused, cause), "peer", when)

    def settle(self, fault: Fault) -> None:
        """It has failed, for this reason if for no earlier one."""
        if not self.over:
            self.fault = fault
            self.shut()

    # What follows from time passing.

    def decide(self, now: float, attentive_since: float) -> None:
        """Decide what is due: believe a symptom, give up a rank that hangs."""
        if self.over:
            return
        fault = self._diagnosis.verdict(now)
        if fault is not None:
            self.settle(fault)
        elif self._asked_for_stack is not None:
            verdict, due = self._asked_for_stack
            if now >= due:
                self._give_up(verdict, ())
        elif self._diagnosis.best is None:
            self._look_for_hung_ranks(now, attentive_since)

    def _look_for_hung_ranks(self, now: float, attentive_since: float) -> None:
        verdict = failure_detector.judge(
            self.members,
            now,
            hang_s=self._patience.hang_s,
            stall_s=self._patience.stall_s,
            since=attentive_since,
            is_stopped=lambda rank: state_of(self.members[rank]) == psutil.STATUS_STOPPED,
        )
        if verdict is not None and verdict.wants_stack:
            self._asked_for_stack = (verdict, now + STACK_S)
            self.members[verdict.rank].connection.send({"kind": "dump"})
        elif verdict is not None:
            self._give_up(verdict, ())

    def _give_up(self, verdict: failure_detector.Verdict, stack: tuple[str, ...]) -> None:
        member = self.members[verdict.rank]
        cause = f"{verdict.cause} (process {member.pid}: {state_of(member)})"
        if not stack and member.stack:
            stack = ("where it was at its last sign of life:", *member.stack)
        self.settle(lost(member, cause, stack))


def lost(member: Member, cause: str, log_tail: tuple[str, ...] = ()) -> Fault:
    """The fault of a rank that died or hangs."""
    return Fault(kind="lost", rank=member.rank, host=member.host, cause=cause, log_tail=log_tail)


def state_of(member: Member) -> str:
    """The state of a rank's process, if it runs on this host."""
    if not member.connection.is_local():
        return "on another host, its state is not known"
    try:
        return str(psutil.Process(member.pid).status())
    except psutil.NoSuchProcess:
        return "gone"
    except psutil.Error:
        return "its state is not known"
