"""The protocol of membership: losses, joins, leaves, late and doubled messages in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sixfold.distributed.process_group.views import (
    MemberId,
    Membership,
    Notice,
    Phase,
    Standing,
    View,
    holder,
)


@dataclass
class Process:
    """A rank of which the test decides when it does what."""

    standing: Standing = field(default_factory=Standing)
    view: View = field(default_factory=lambda: View(0, ()))
    state: int = -1  # the newest step that it holds whole
    has_entered: bool = False  # it has the state of its view
    contributed: bool = False  # its part of the step under way is with the others
    is_preparing: bool = False


class World:
    """A coordinator, processes, and messages on their way, which are never lost but with one."""

    def __init__(self, least: int, most: int) -> None:
        self.coordinator = Membership(least, most)
        self.processes: dict[MemberId, Process] = {}
        self.zombies: dict[MemberId, Process] = {}  # given up, but not dead
        self.said: list[tuple[str, MemberId, int]] = []
        self.told: list[Notice] = []
        self.views: dict[int, View] = {0: View(0, ())}
        self.lives = [0] * most
        self.hosts: dict[MemberId, str] = {}
        self.written: list[tuple[int, int]] = []  # view and step of what the run directory took

    def everyone(self) -> dict[MemberId, Process]:
        return self.processes | self.zombies

    def coordinate(self, notices: list[Notice]) -> None:
        view = self.coordinator.view
        assert view.number - max(self.views) <= 1  # numbered in order
        if view.number not in self.views:  # who was there stays, nobody comes from there any more
            new = set(view.members) - set(self.views[view.number - 1].members)
            assert not self.coordinator.excluded_hosts & {self.hosts[member] for member in new}
        self.views.setdefault(view.number, view)
        assert self.views[view.number] == view  # a view never changes
        self.told += notices

    # What may happen at any time.

    def spawn(self, slot: int, host: str = "a") -> None:
        member = MemberId(slot, self.lives[slot])
        self.hosts[member] = host
        self.lives[slot] += 1
        self.processes[member] = Process()
        self.said.append(("join", member, 0))

    def kill(self, member: MemberId) -> None:
        self.everyone()[member].standing.renew()
        self.processes.pop(member, None)
        self.zombies.pop(member, None)
        self.said.append(("lose", member, 0))

    def suspect(self, member: MemberId) -> None:
        """Give up a process that lives: it goes on until it hears of it."""
        self.zombies[member] = self.processes.pop(member)
        self.coordinate(self.coordinator.lose(member))

    def convict(self, member: MemberId) -> None:
        """It leaves, and its host is excluded."""
        self.kill(member)
        self.coordinate(self.coordinator.exclude(self.hosts[member]))

    def hear(self, place: int, *, twice: bool) -> None:
        """The coordinator gets a message, not necessarily the oldest."""
        kind, member, view = self.said[place] if twice else self.said.pop(place)
        act: Callable[[], list[Notice]] = {
            "join": lambda: self.coordinator.join(member, self.hosts[member]),
            "ready": lambda: self.coordinator.become_ready(member, view),
            "lose": lambda: self.coordinator.lose(member),
        }[kind]
        self.coordinate(act())

    def deliver(self, place: int, *, twice: bool) -> None:
        """A process gets a notice, not necessarily the oldest."""
        notice = self.told[place] if twice else self.told.pop(place)
        process = self.everyone().get(notice.to)
        if process is None:
            return
        if notice.kind == "start" and process.standing.start(notice.view):
            process.view = self.views[notice.view]
            process.has_entered = process.contributed = process.is_preparing = False
            if not process.standing.acting:
                self.renew(notice.to)
        elif notice.kind == "end" and process.standing.end(notice.view):
            self.renew(notice.to)
        elif notice.kind == "ask":
            process.standing.ask(notice.view)
        elif notice.kind == "prepare":
            process.is_preparing = True
        elif notice.kind == "refuse":
            self.zombies.pop(notice.to, None)  # it ends itself
            self.processes.pop(notice.to, None)

    # What processes do.

    def renew(self, member: MemberId) -> None:
        process = self.everyone()[member]
        if process.standing.view or process.is_preparing:
            process.is_preparing = False
            self.said.append(("ready", member, process.standing.renew()))

    def peers(self, process: Process) -> list[Process] | None:
        """The ranks of its view, if all act in it."""
        found = [self.everyone().get(member) for member in process.view.members]
        alive = [p for p in found if p and p.standing.acting and p.view == process.view]
        return alive if len(alive) == len(found) else None

    def act(self, member: MemberId) -> None:
        """Enter the view, give a part of the step, or make the step; whichever is next."""
        process = self.everyone()[member]
        if not process.standing.acting or (peers := self.peers(process)) is None:
            return
        if not process.has_entered:
            if any(peer.contributed for peer in peers):
                return  # the exchange of states has been passed, so this one was in it
            source = holder([peer.state for peer in peers])
            newest = 0 if source is None else peers[source].state
            for peer in peers:  # an exchange with all: it happens to all or to none
                peer.state, peer.has_entered = newest, True
        elif not process.contributed:
            process.contributed = True
        elif all(p.contributed or p.state > process.state for p in peers):
            process.state += 1
            process.contributed = False
            rank = process.view.members.index(member)
            if rank == 0 and process.view.number == self.coordinator.view.number:  # the fence
                self.written.append((process.view.number, process.state))

    def check(self) -> None:
        coordinator, view = self.coordinator, self.coordinator.view
        assert len({member.slot for member in view.members}) == len(view.members)
        for member, process in self.processes.items():
            if process.standing.acting:
                assert member in process.view.members
                # Nobody acts in an old view once the next has begun.
                assert process.view.number == view.number
        acting = [p.view for p in self.processes.values() if p.standing.acting]
        assert len(set(acting)) <= 1
        if coordinator.is_current:
            assert all(coordinator.phases[m] in (Phase.ACTING, Phase.DONE) for m in view.members)
            assert coordinator.least <= len(view.members) <= coordinator.most

    def settle(self) -> None:
        """Let every message arrive, and everybody that lives say that it is ready."""
        for _ in range(200):
            while self.said or self.told:
                while self.said:
                    self.hear(0, twice=False)
                while self.told:
                    self.deliver(0, twice=False)
            for member in list(self.processes):
                if self.processes[member].is_preparing:
                    self.renew(member)
            if not (self.said or self.told):
                return
        raise AssertionError("it never comes to rest")


Happening = tuple[int, int, bool]
"""What kind of thing, which of those that it may happen to, and how."""

HAPPENINGS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 23), st.booleans()), max_size=100
)


def happen(world: World, happening: Happening) -> None:
    """Let one thing happen, if it can."""
    kind, which, how = happening
    members = sorted(world.everyone())
    if kind <= 2 and world.said:
        world.hear(which % len(world.said), twice=how)
    elif kind <= 5 and world.told:
        world.deliver(which % len(world.told), twice=how)
    elif kind == 11:
        world.spawn(which % world.coordinator.most, "b" if how else "a")
    elif members and kind > 5:
        member = members[which % len(members)]
        if kind <= 8:
            world.act(member)
        elif kind == 9:
            world.renew(member)
        elif kind == 12:
            world.convict(member)
        elif how and member in world.processes:
            world.suspect(member)
        else:
            world.kill(member)


@settings(max_examples=2 * settings().max_examples)
@given(st.integers(1, 4), st.integers(0, 3), HAPPENINGS)
@example(4, 0, [*[(0, 0, False)] * 5, (9, 0, False), (0, 0, False), (0, 3, False)])
def test_whatever_happens_one_view_is_current_and_no_state_is_lost(
    most: int, more: int, happenings: list[Happening]
) -> None:
    world = World(least=max(most - more, 1), most=most)
    for slot in range(most):
        world.spawn(slot, "ab"[slot % 2])
    for happening in happenings:
        held_before = {member: p.state for member, p in world.processes.items()}
        happen(world, happening)
        world.check()
        # While one process that holds the newest state lives, that state is not lost.
        left = [state for member, state in held_before.items() if member in world.processes]
        assert max((p.state for p in world.processes.values()), default=-1) >= max(left, default=-1)
    assert [view for view, _ in world.written] == sorted(view for view, _ in world.written)
    for member in sorted(world.zombies):
        world.kill(member)
    world.coordinate(world.coordinator.begin())
    world.settle()
    world.check()
    phases = world.coordinator.phases
    slots = {m.slot for m in world.processes if phases.get(m) is not Phase.EXCLUDED}
    is_there = len(slots) >= world.coordinator.least
    assert world.coordinator.is_current == is_there
    if is_there:
        before = max(p.state for p in world.processes.values())
        first = world.coordinator.view.members[0]
        world.act(first)
        assert world.processes[first].state >= max(before, 0)


def formed(least: int = 1, most: int = 3) -> Membership:
    """A membership whose first view is full."""
    membership = Membership(least, most)
    for slot in range(most):
        membership.join(MemberId(slot, 0))
    assert membership.view.number == 1
    return membership


A, B, C = (MemberId(slot, 0) for slot in range(3))


def test_the_first_view_waits_for_all_until_it_is_told_not_to() -> None:
    membership = Membership(1, 3)
    assert membership.join(A) == []
    assert membership.join(B) == []
    assert membership.begin() == [Notice(A, "start", 1), Notice(B, "start", 1)]
    assert membership.join(C) == [Notice(C, "prepare")]


def test_survivors_are_told_and_go_on_when_all_of_them_have_let_go() -> None:
    membership = formed()
    assert membership.lose(B) == [Notice(A, "end", 1), Notice(C, "end", 1)]
    assert membership.become_ready(C, 1) == []
    assert membership.become_ready(C, 1) == []  # twice
    assert membership.become_ready(A, 1) == [Notice(A, "start", 2), Notice(C, "start", 2)]
    assert membership.rank(C) == 1
    assert membership.vacant() == [1]


def test_a_newcomer_prepares_while_the_others_work_and_then_they_are_asked() -> None:
    membership = formed(most=2)
    membership.lose(B)
    membership.become_ready(A, 1)
    late = MemberId(1, 1)
    assert membership.join(late) == [Notice(late, "prepare")]
    assert membership.become_ready(late, 0) == [Notice(A, "ask", 2)]
    assert membership.become_ready(A, 2) == [Notice(A, "start", 3), Notice(late, "start", 3)]


def test_a_copy_waits_and_takes_the_place_of_the_first_when_that_is_lost() -> None:
    membership = formed(most=2)
    copy = MemberId(1, 1)
    assert membership.join(copy) == [Notice(copy, "wait")]
    assert membership.lose(B) == [Notice(A, "end", 1), Notice(copy, "prepare")]


def test_a_process_that_was_given_up_is_not_heard_again() -> None:
    membership = formed()
    membership.lose(B)
    assert membership.become_ready(B, 1) == []
    assert membership.join(B) == [Notice(B, "refuse")]


def test_nobody_comes_from_an_excluded_host_and_who_is_there_stays() -> None:
    membership = Membership(1, 3)
    for member, host in ((A, "good"), (B, "bad"), (C, "bad")):
        membership.join(member, host)
    copy, late, other = MemberId(1, 1), MemberId(1, 2), MemberId(1, 3)
    assert membership.join(copy, "bad") == [Notice(copy, "wait")]
    membership.exclude("bad")
    membership.lose(B)
    assert membership.phases[copy] is Phase.EXCLUDED
    assert membership.join(late, "bad") == [Notice(late, "wait")]
    assert membership.become_ready(late, 0) == []
    assert membership.vacant() == [1]
    assert membership.join(other, "good") == [Notice(other, "prepare")]
    membership.become_ready(A, 1)
    assert membership.become_ready(C, 1) == [Notice(A, "start", 2), Notice(C, "start", 2)]


def test_a_host_that_is_excluded_twice_gives_away_no_slot_that_somebody_has() -> None:
    membership = formed(most=2)
    membership.exclude("bad")
    waits, spare = MemberId(1, 1), MemberId(1, 2)
    assert membership.join(waits, "bad") == [Notice(waits, "wait")]
    assert membership.join(spare, "good") == [Notice(spare, "wait")]
    assert membership.exclude("bad") == []
    assert membership.phases[spare] is Phase.SPARE


def test_fewer_than_the_least_wait_for_others() -> None:
    membership = formed(least=2, most=2)
    membership.lose(B)
    assert membership.become_ready(A, 1) == []
    late = MemberId(1, 1)
    membership.join(late)
    assert membership.become_ready(late, 0) == [Notice(A, "start", 2), Notice(late, "start", 2)]


def test_the_result_of_rank_0_ends_it() -> None:
    membership = formed()
    membership.finish(C, 1)
    assert not membership.finished
    membership.lose(B)
    assert membership.become_ready(C, 1) == []  # it has gone
    membership.finish(A, 1)
    assert membership.finished
    assert membership.join(MemberId(1, 1)) == [Notice(MemberId(1, 1), "refuse")]


def test_impossible_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 <= least <= most"):
        Membership(3, 2)
