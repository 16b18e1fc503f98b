"""The protocol by which ranks come and go, without sockets and without a clock.

A process group that may change has numbered *views*: which processes are its ranks. One
coordinator, in the launcher, decides (`Membership`); what a process may do follows from the newest
message that it has understood (`Standing`). Messages may be late or come twice: each has the number
of its view, and whoever is not meant by that number passes it over.

* A process that joins before the first view waits for it; later it prepares, then says that it is
  ready, and the others are asked to end their view when it suits them.
* A loss ends the view at once. It is over for a process when that one has said so; the next is
  formed when all of the old that live have, so no two views are ever acted in together.
* Every process has a slot, and a number that tells it from those before it in the slot. A second
  one whose slot is taken (a speculative copy) is a spare until the first is lost.
* A host may be excluded: who comes from there, or is not yet in a view, never gets into one, and
  leaves its slot to others.

State after a step is the same bits wherever it is, so nobody votes on it: `holder` says who hands
the newest on.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class MemberId(NamedTuple):
    """A process of the group."""

    slot: int  # a place among those that can be taken; ranks are numbered in their order
    life: int  # higher for a process that takes the slot after another


class Phase(enum.Enum):
    """How far a process has come."""

    SPARE = "its slot is taken"
    PREPARING = "it makes itself ready for its first view"
    READY = "it acts in no view, and waits for the next"
    ACTING = "it acts in the newest view, or has not yet said that it no longer does"
    DONE = "it has handed over its result"
    EXCLUDED = "its host is excluded: it keeps Spark from starting another process there"


@dataclass(frozen=True)
class View:
    """Who the ranks are, from one change to the next."""

    number: int  # from 1
    members: tuple[MemberId, ...]  # by rank


class Notice(NamedTuple):
    """What the coordinator has to tell a process."""

    to: MemberId
    kind: str  # "wait", "prepare", "start", "ask", "end" or "refuse"
    view: int = 0


class Membership:
    """The coordinator's side; every method returns what is to be told, in order."""

    def __init__(self, least: int, most: int) -> None:
        """Form views of `least` to `most` processes; the first waits for `most` until `begin`."""
        if not 1 <= least <= most:
            raise ValueError(f"{least} to {most} members: expected 1 <= least <= most")
        self.least, self.most = least, most
        self.phases: dict[MemberId, Phase] = {}  # of all that live
        self.view = View(0, ())  # the newest
        self.is_current = False  # whether the newest view has not ended
        self.finished = False  # rank 0 of the newest view has handed over its result
        self._begun = False
        self._asked = False  # the current view to end
        self._lost: dict[int, int] = {}  # slot -> the newest life that was lost there
        self._hosts: dict[MemberId, str] = {}  # of all that live
        self.excluded_hosts: set[str] = set()

    @property
    def ready(self) -> list[MemberId]:
        """Those that wait for the next view, in the order of their slots."""
        return sorted(member for member, phase in self.phases.items() if phase is Phase.READY)

    def rank(self, member: MemberId) -> int | None:
        """Its number in the newest view."""
        return self.view.members.index(member) if member in self.view.members else None

    def vacant(self) -> list[int]:
        """Slots that nobody has, or that somebody has left who would be needed again."""
        free = {Phase.EXCLUDED} if self.is_current else {Phase.EXCLUDED, Phase.DONE}
        taken = {member.slot for member, phase in self.phases.items() if phase not in free}
        return sorted(set(range(self.most)) - taken)

    def join(self, member: MemberId, host: str = "") -> list[Notice]:
        """A process has come."""
        if member in self.phases:
            return []
        is_late = member.life <= self._lost.get(member.slot, -1)
        if is_late or self.finished or not 0 <= member.slot < self.most:
            return [Notice(member, "refuse")]
        self._hosts[member] = host
        if host in self.excluded_hosts:
            self.phases[member] = Phase.EXCLUDED
            return [Notice(member, "wait")]
        if member.slot not in self.vacant():
            self.phases[member] = Phase.SPARE
            return [Notice(member, "wait")]
        return self._admit(member)

    def become_ready(self, member: MemberId, view: int) -> list[Notice]:
        """A process acts no longer in a view, its newest, and waits; 0: in none yet."""
        phase = self.phases.get(member)
        if phase is Phase.ACTING and view == self.view.number:
            self.phases[member] = Phase.READY
            return [*self._end(), *self._form()]
        if phase is Phase.PREPARING and view == 0:
            self.phases[member] = Phase.READY
            return [*self._ask(), *self._form()]
        return []

    def lose(self, member: MemberId) -> list[Notice]:
        """A process is gone, or is to be taken for it: what it says from now on is not heard."""
        self._lost[member.slot] = max(member.life, self._lost.get(member.slot, -1))
        phase = self.phases.pop(member, None)
        self._hosts.pop(member, None)
        told = self._end() if phase is Phase.ACTING else []
        if phase not in (None, Phase.SPARE, Phase.EXCLUDED):
            told += self._admit_spare(member.slot)
        return told + self._form()

    def exclude(self, host: str) -> list[Notice]:
        """Let nobody of a host into a view who was not in the newest."""
        self.excluded_hosts.add(host)
        told = []
        for member in sorted(self.phases):
            phase = self.phases[member]
            if self._hosts[member] == host and member not in self.view.members:
                self.phases[member] = Phase.EXCLUDED
                if phase not in (Phase.SPARE, Phase.EXCLUDED):  # those had no slot to leave
                    told += self._admit_spare(member.slot)
        return told

    def finish(self, member: MemberId, view: int) -> list[Notice]:
        """A process has handed over its result; that of rank 0 ends it for all."""
        if self.phases.get(member) is Phase.ACTING and view == self.view.number:
            self.phases[member] = Phase.DONE
            self.finished = self.finished or self.rank(member) == 0
        return self._form()

    def begin(self) -> list[Notice]:
        """Wait no longer for all: the first view may be of `least`."""
        self._begun = True
        return self._form()

    def _admit_spare(self, slot: int) -> list[Notice]:
        """Give a slot to the first that waits for it."""
        waiting = (m for m, p in self.phases.items() if p is Phase.SPARE and m.slot == slot)
        spare = min(waiting, default=None)
        return [] if spare is None else self._admit(spare)

    def _admit(self, member: MemberId) -> list[Notice]:
        if self.view.number > 0:
            self.phases[member] = Phase.PREPARING
            return [Notice(member, "prepare")]
        self.phases[member] = Phase.READY
        return self._form()

    def _ask(self) -> list[Notice]:
        if not self.is_current or self._asked:
            return []
        self._asked = True
        return self._tell_acting("ask")

    def _end(self) -> list[Notice]:
        if not self.is_current:
            return []
        self.is_current = False
        return self._tell_acting("end")

    def _tell_acting(self, kind: str) -> list[Notice]:
        acting = [m for m in self.view.members if self.phases.get(m) is Phase.ACTING]
        return [Notice(member, kind, self.view.number) for member in acting]

    def _form(self) -> list[Notice]:
        """The next view, if the time has come."""
        still_acting = Phase.ACTING in self.phases.values()
        if self.is_current or still_acting or self.finished:
            return []
        ready = self.ready
        if len(ready) < (self.least if self._begun else self.most):
            return []
        self._begun = self.is_current = True
        self._asked = False
        self.view = View(self.view.number + 1, tuple(ready))
        for member in ready:
            self.phases[member] = Phase.ACTING
        return [Notice(member, "start", self.view.number) for member in ready]


class Standing:
    """A process's side: in which view it may act."""

    def __init__(self) -> None:
        self.view = 0  # the newest in which it has acted
        self.acting = False
        self.asked = False  # to end the view when it suits
        self._waiting = True  # to be told of the next
        self._ended = 0  # the newest that is known to have ended

    def start(self, view: int) -> bool:
        """A view has begun; whether that is news. It may have ended again: see `acting`."""
        if not self._waiting or view <= self.view:
            return False
        self.view, self.acting, self._waiting, self.asked = view, view > self._ended, False, False
        return True

    def end(self, view: int) -> bool:
        """A view has ended; whether this process has acted in it until now."""
        self._ended = max(self._ended, view)
        if not self.acting or view != self.view:
            return False
        self.acting = False
        return True

    def ask(self, view: int) -> None:
        """Somebody waits to be let in."""
        self.asked = self.asked or (self.acting and view == self.view)

    def renew(self) -> int:
        """Act no longer, and wait for the next view; the number to be said."""
        self.acting, self._waiting = False, True
        return self.view


def holder(versions: Sequence[int]) -> int | None:
    """The rank that hands on its state: the lowest that has the newest; None if all are negative.

    >>> holder([3, 4, 4, -1]), holder([-1, -1])
    (1, None)
    """
    newest = max(versions)
    return None if newest < 0 else list(versions).index(newest)
