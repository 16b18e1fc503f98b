"""A process group whose ranks may come and go, as its launcher sees it.

`Membership` decides who belongs to which view; here is what surrounds that: connections, signs of
life, causes. A rank that is lost ends the view, an exception in one ends the group.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from sixfold.distributed.process_group import failure_detector, wire
from sixfold.distributed.process_group.communicator import PlainData
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.generation import (
    STACK_S,
    Member,
    OnEvent,
    Patience,
    lost,
    state_of,
)
from sixfold.distributed.process_group.views import MemberId, Membership, Notice, Phase


class ElasticGroup:
    """The state of one group, from its first view to its last."""

    number = 0  # there is only one, unlike `Generation`

    def __init__(
        self,
        least: int,
        most: int,
        patience: Patience,
        claim: Callable[[], int] | None,
        on_event: OnEvent | None,
    ) -> None:
        self.membership = Membership(least, most)
        self.attempt = -1  # number under which the ranks of the view may write to the run directory
        self.met_at: float | None = None  # when the ranks of the first view had met
        # Why it failed; None while it has not. All connections are shut then.
        self.fault: Fault | None = None
        self.last_loss: Fault | None = None
        self._patience, self._claim, self._on_event = patience, claim, on_event
        self._people: dict[MemberId, Member] = {}
        self._lost: set[MemberId] = set()
        # What is to be told of losses, and when at the latest: the cause may be on its way.
        self._untold: dict[MemberId, tuple[Fault, float]] = {}
        self._given_up: set[MemberId] = set()
        self._results: dict[int, Any] = {}
        self._ended_at: float | None = None  # when the newest view ended, if it has
        self._asked_for_stack: tuple[MemberId, failure_detector.Verdict, float] | None = None
        self._now = 0.0

    @property
    def finished(self) -> bool:
        """Whether rank 0 has handed over its result, and nobody is still at work."""
        membership = self.membership
        return membership.finished and Phase.ACTING not in membership.phases.values()

    @property
    def results(self) -> list[Any]:
        """The results of the last view's ranks, once `finished`; None for one that was lost."""
        return [self._results.get(rank) for rank in range(len(self.membership.view.members))]

    @property
    def over(self) -> bool:
        """Whether nothing that can still be heard would change how it ended."""
        return self.finished or self.fault is not None

    @property
    def best_guess(self) -> Fault | None:
        """Why it failed, as far as it is known."""
        return self.fault or self.last_loss

    @property
    def members(self) -> dict[int, Member]:
        """Those that have come, are not lost and may take part, by slot."""
        phases = self.membership.phases.items()
        able = [member for member, phase in phases if phase is not Phase.EXCLUDED]
        return {member.slot: self._people[member] for member in able}

    @property
    def due(self) -> float | None:
        """When `decide` will have something to decide, if nothing happens before."""
        return None if self.over else min((at for _, at in self._untold.values()), default=None)

    def is_lost(self, slot: int, life: int) -> bool:
        """Whether a process was given up or has died."""
        return MemberId(slot, life) in self._lost

    def is_gone(self, slot: int, life: int) -> bool:
        """Whether a process will do no more, lost or done."""
        is_done = self.membership.phases.get(MemberId(slot, life)) is Phase.DONE
        return is_done or self.is_lost(slot, life)

    def is_excluded(self, slot: int, life: int) -> bool:
        """Whether a process waits in vain, on a host that was excluded."""
        return self.membership.phases.get(MemberId(slot, life)) is Phase.EXCLUDED

    def member(self, connection: wire.Connection) -> Member | None:
        """Whose connection it is."""
        return next((m for m in self._people.values() if m.connection is connection), None)

    def add(self, member: Member) -> None:
        """A process has come."""
        identity = _identity(member)
        if identity in self._people and identity not in self._lost:
            return  # a second try at the same process waits, unheard
        self._people[identity] = member
        self._tell(self.membership.join(identity, member.host))

    def begin(self) -> None:
        """Wait no longer for all: the first view may be smaller."""
        self._tell(self.membership.begin())

    def send_all(self, message: PlainData) -> None:
        """Send a message to every process that has joined."""
        for member in self._people.values():
            member.connection.send(message)

    def shut(self) -> None:
        """End all connections, and with them the ranks."""
        for member in self._people.values():
            member.connection.shut()

    def _tell(self, notices: list[Notice]) -> None:
        view = self.membership.view
        for notice in notices:
            member = self._people[notice.to]
            if notice.kind == "refuse":
                _refuse(member, "its place was taken, or the run is over")
            elif notice.kind == "start":
                if notice.to == view.members[0]:
                    self._begin_view()
                rank = self.membership.rank(notice.to)
                peers = [list(self._people[peer].address) for peer in view.members]
                facts = {"rank": rank, "attempt": self.attempt, "peers": peers}
                member.connection.send({"kind": "start", "view": view.number, **facts})
            elif notice.kind != "wait":
                member.connection.send({"kind": notice.kind, "view": notice.view})
            if notice.kind == "end":
                self._ended_at = self._now

    def _begin_view(self) -> None:
        self.attempt = self.membership.view.number if self._claim is None else self._claim()
        self._results.clear()
        self._ended_at = None
        for identity in self.membership.view.members:
            member = self._people[identity]
            member.met, member.waiting_for, member.moved = False, (), self._now

    # What is heard of a process.

    def hear(
        self, member: Member, message: Mapping[str, Any], when: float, on_event: OnEvent | None
    ) -> None:
        """Take in what a process has said at a time."""
        kind, identity = message["kind"], _identity(member)
        self._now = member.seen = when
        if identity in self._lost:
            return
        if kind == "alive":
            waiting_for, stack = tuple(message["waiting_for"]), tuple(message["stack"])
            member.beat(when, message["progress"], waiting_for, stack)
        elif kind == "ready":
            self._tell(self.membership.become_ready(identity, message["view"]))
        elif kind == "met":
            member.met = True
            view = self.membership.view.members
            if self.met_at is None and all(self._people[other].met for other in view):
                self.met_at = when
        elif kind == "event" and on_event is not None:
            on_event(member.rank, message["event"])
        elif kind == "result":
            rank = self.membership.rank(identity)
            if rank is not None and message["view"] == self.membership.view.number:
                self._results[rank] = message["value"]
            _part(member)
            self._tell(self.membership.finish(identity, message["view"]))
        elif kind == "error":
            _part(member)
            fault = Fault.from_plain(message["fault"])
            if fault.kind == "unfit":
                self._tell(self.membership.exclude(member.host))
            if fault.retryable:
                self._lose(identity, fault)
            else:
                self.settle(fault)
        elif kind == "stacks" and self._asked_for_stack is not None:
            asked, verdict, _ = self._asked_for_stack
            if asked == identity:
                self._give_up(identity, verdict, tuple(message["lines"]))

    def connection_broke(self, member: Member, when: float) -> None:
        """A process can no longer be heard: no surprise after its last word."""
        self._now, identity = when, _identity(member)
        if not member.done and identity not in self._lost:  # of which better is known
            cause = f"its connection broke (process {member.pid} was killed, or its host vanished)"
            self._lose(identity, lost(member, cause))

    def process_ended(
        self, slot: int, cause: str, log_tail: tuple[str, ...], life: int = 0
    ) -> None:
        """A process has ended; it may not have joined."""
        identity = MemberId(slot, life)
        member = self._people.get(identity)
        if (member is not None and member.done) or identity in self._given_up:
            return  # it was killed because it hung: that is told already
        host = member.host if member else socket.gethostname()
        fault = Fault(kind="lost", rank=slot, host=host, cause=cause, log_tail=log_tail)
        self._lose(identity, fault)
        if identity in self._untold:
            self._untold[identity] = fault, self._now  # nothing better will be known

    def settle(self, fault: Fault) -> None:
        """It has failed, for this reason if for no earlier one."""
        if not self.over:
            self.fault = fault
            self.shut()

    def _lose(self, identity: MemberId, fault: Fault) -> None:
        self.last_loss = fault
        if identity in self._lost:
            return
        self._lost.add(identity)
        if (member := self._people.get(identity)) is not None:
            member.connection.shut()
        if not self.over:
            is_cause = fault.kind == "unfit"  # nothing better will be known
            grace_s = 0.0 if is_cause else self._patience.graces_s["connection"]
            self._untold[identity] = fault, self._now + grace_s
            self._tell(self.membership.lose(identity))

    # What follows from time passing.

    def decide(self, now: float, attentive_since: float) -> None:
        """Decide what is due: tell of losses, give up a rank that hangs."""
        self._now = now
        for identity, (fault, due) in list(self._untold.items()):
            if now >= due or self.finished:  # nobody will tell a better reason after the end
                del self._untold[identity]
                # What a dead one printed last is in the log; where a hanging one was is nowhere.
                self._tell_loss(fault, fault.log_tail if identity in self._given_up else ())
        if self.over:
            return
        if self._asked_for_stack is not None:
            identity, verdict, due = self._asked_for_stack
            if now >= due or identity in self._lost:
                self._give_up(identity, verdict, ())
            return
        found = self._hung(now, attentive_since)
        if found is not None and found[1].wants_stack:
            self._asked_for_stack = (*found, now + STACK_S)
            self._people[found[0]].connection.send({"kind": "dump"})
        elif found is not None:
            self._give_up(*found, ())

    def _tell_loss(self, fault: Fault, where: tuple[str, ...]) -> None:
        if self._on_event is None or self.membership.view.number == 0:
            return
        phases = self.membership.phases
        left = sum(phase in (Phase.ACTING, Phase.READY) for phase in phases.values())
        least = self.membership.least
        what = f"{left} go on" if left >= least else f"{left} left, others are waited for"
        if fault.kind == "unfit":
            what += f"; {fault.host} gets no rank any more"
        text = f"rank {fault.rank} on {fault.host} was lost ({fault.cause}): {what}"
        text = "\n  ".join((text, *where))
        self._on_event(fault.rank, {"kind": "note", "text": text})

    def _hung(
        self, now: float, attentive_since: float
    ) -> tuple[MemberId, failure_detector.Verdict] | None:
        """A process that hangs, and why that is believed."""
        membership = self.membership
        view = dict(enumerate(membership.view.members)) if membership.is_current else {}
        together = {rank: member for rank, member in view.items() if member in membership.phases}
        alone = [
            {member.slot: member} for member in membership.phases if member not in view.values()
        ]
        for group in (together, *alone):
            people = {rank: self._people[member] for rank, member in group.items()}
            verdict = failure_detector.judge(
                people,
                now,
                hang_s=self._patience.hang_s,
                stall_s=self._patience.stall_s,
                since=attentive_since,
                is_stopped=lambda rank, people=people: (  # type: ignore[misc]
                    state_of(people[rank]) == psutil.STATUS_STOPPED
                ),
            )
            if verdict is not None:
                return group[verdict.rank], verdict
        if self._ended_at is None or now - max(self._ended_at, attentive_since) <= (
            stall_s := self._patience.stall_s
        ):
            return None
        for identity, phase in membership.phases.items():
            if phase is Phase.ACTING and not membership.is_current:
                cause = f"it has not noticed for {stall_s:g} s that another rank is gone"
                return identity, failure_detector.Verdict(identity.slot, cause, wants_stack=True)
        return None

    def _give_up(
        self, identity: MemberId, verdict: failure_detector.Verdict, stack: tuple[str, ...]
    ) -> None:
        self._asked_for_stack = None
        member = self._people[identity]
        cause = f"{verdict.cause} (process {member.pid}: {state_of(member)})"
        if not stack and member.stack:
            stack = ("where it was at its last sign of life:", *member.stack)
        self._given_up.add(identity)
        self._lose(identity, lost(member, cause, stack))


def _identity(member: Member) -> MemberId:
    return MemberId(member.rank, member.life)


def _part(member: Member) -> None:
    member.done = True
    member.connection.send({"kind": "bye"})


def _refuse(member: Member, reason: str) -> None:
    member.connection.send({"kind": "refuse", "reason": reason})
    member.connection.shut()
