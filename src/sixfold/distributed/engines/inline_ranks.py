"""What the ranks of the inline engine share, and how each reaches the others."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sixfold.core.errors import PeerLostError, SixfoldError, UnfitRankError
from sixfold.distributed.engines.engine import GroupCall
from sixfold.distributed.process_group import Buffer, Communicator, PlainData, wire
from sixfold.distributed.process_group.ambient import use_one_thread
from sixfold.distributed.process_group.communicator import (
    Seat,
    SingleProcess,
    bytes_of,
    check_length,
)
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.scheduler import CooperativeScheduler, DeadlockError
from sixfold.distributed.process_group.views import MemberId, Membership, Notice, Standing

Strike = Callable[[int, int, int], bool]
"""Whether a process dies now; called with its slot, which process in the slot it is, and how many
exchanges it has begun."""


def plain(value: Any) -> Any:
    """The value as other engines deliver it: through JSON."""
    wire.encode(value)
    return json.loads(json.dumps(value))


@dataclass
class Room:
    """What the ranks of one process group share."""

    scheduler: CooperativeScheduler[Any]
    size: int
    on_event: Callable[[int, PlainData], None] | None
    # (view, sender, receiver) -> the array that waits to be taken
    posts: dict[tuple[int, int, int], Buffer] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)  # ranks whose function has returned

    def explain(self, error: DeadlockError, host: str) -> SixfoldError:
        """The error of ranks that wait for each other."""
        rank = self.scheduler.failed or 0
        return Fault(kind="raised", rank=rank, host=host, cause=str(error)).exception()


class InlineSeat(SingleProcess):
    """The transport of one rank."""

    def __init__(self, room: Room, rank: int, size: int) -> None:
        self.room, self.rank, self.size, self.view = room, rank, size, 1

    def has_ended(self) -> bool:
        """Whether nothing more will come in this view."""
        return False

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """Post what is to be sent, take what has come, until nothing is left of either."""
        began = time.perf_counter()
        waiting_s = 0.0
        view, me, posts = self.view, self.rank, self.room.posts
        others = [rank for rank in range(self.size) if rank != me]
        for peer in {*sends, *receives}.difference(others):
            raise ValueError(f"no rank {peer} to talk to, only {others}")
        for peer, array in sends.items():
            posts[view, me, peer] = array
        sent, wanted = set(sends), dict(receives)

        def can_go_on() -> bool:
            arrived = any((view, peer, me) in posts for peer in wanted)
            done = not (wanted or any((view, me, peer) in posts for peer in sent))
            return arrived or done or self.has_ended()

        def reason() -> str:
            names = [
                f"rank {peer}" + (" (which has finished)" if peer in self.room.finished else "")
                for peer in sorted({*sent, *wanted})
            ]
            return f"rank {me} waits for " + " and ".join(names)

        while True:
            for peer in [peer for peer in wanted if (view, peer, me) in posts]:
                source, target = posts.pop((view, peer, me)), wanted.pop(peer)
                check_length(peer, source.nbytes, target.nbytes)
                np.copyto(bytes_of(target), bytes_of(source))
            sent = {peer for peer in sent if (view, me, peer) in posts}
            if not sent and not wanted:
                return time.perf_counter() - began - waiting_s, waiting_s
            if self.has_ended():
                raise PeerLostError(min({*sent, *wanted}), "the view has ended")
            since = time.perf_counter()
            self.room.scheduler.wait_until(can_go_on, reason)
            waiting_s += time.perf_counter() - since

    def report(self, event: PlainData) -> None:
        """Call the launcher's `on_event` at once."""
        message = plain(dict(event))
        if self.room.on_event is not None:
            self.room.on_event(self.rank, message)


class _EndedError(BaseException):
    """Unwinds a process that has been struck, or that nobody needs any more."""


class ElasticRoom(Room):
    """The same for ranks that may come and go: coordinator and processes in one."""

    def __init__(
        self, scheduler: CooperativeScheduler[Any], call: GroupCall, strike: Strike | None
    ) -> None:
        super().__init__(scheduler, call.size, call.on_event)
        self.call, self.strike = call, strike
        self.membership = Membership(call.least or 1, call.size)
        self.attempt = 0
        self.restarts = 0  # processes that have taken the place of others
        self._seats: dict[MemberId, ElasticSeat] = {}
        self._vacancies: deque[MemberId] = deque()  # to be taken by processes that wait
        self._results: dict[int, Any] = {}
        self._last_loss: Fault | None = None

    def seats(self) -> Iterator[ElasticSeat]:
        """The processes that begin, then those that may take their places."""
        for slot in range(self.size):
            yield ElasticSeat(self, MemberId(slot, 0))
        for _ in range(self.call.max_restarts):
            yield ElasticSeat(self, None)

    def play(self, seat: ElasticSeat, host: str) -> None:
        """The life of a process."""
        use_one_thread()  # a setting of each thread
        try:
            place = seat.join()
            comm = Communicator(
                rank=place.rank,
                size=place.size,
                host=host,
                attempt=place.attempt,
                transport=seat,
                view=place.view,
                elastic=True,
            )
            self._results[comm.rank] = plain(self.call.function(comm))
        except (_EndedError, PeerLostError) as error:
            if isinstance(error, UnfitRankError):
                self.tell(self.membership.exclude(host))
            if not self.membership.finished:
                fault = Fault(kind="lost", rank=seat.rank, host=host, cause=str(error))
                self._lose(seat, fault)
            return
        self.finished.add(seat.rank)
        self.tell(self.membership.finish(seat.identity, seat.standing.view))

    def explain(self, error: DeadlockError, host: str) -> SixfoldError:
        """The same; ranks that wait for a lost one that nobody replaces are no deadlock."""
        if self._last_loss is not None and not self.membership.is_current:
            return self._last_loss.exception(self.restarts)
        return super().explain(error, host)

    def results(self) -> list[Any]:
        """By rank."""
        return [self._results.get(rank) for rank in range(len(self.membership.view.members))]

    def _lose(self, seat: ElasticSeat, fault: Fault) -> None:
        self._last_loss = fault
        identity = seat.identity
        self.tell(self.membership.lose(identity))
        if self.restarts < self.call.max_restarts and not self.membership.excluded_hosts:
            self.restarts += 1
            self._vacancies.append(MemberId(identity.slot, identity.life + 1))

    def take_place(self) -> MemberId:
        """Wait until a process is to be replaced; its place."""
        over = "a process waits for one to be lost"
        self.scheduler.wait_until(lambda: bool(self._vacancies) or self.membership.finished, over)
        if not self._vacancies:
            raise _EndedError
        return self._vacancies.popleft()

    def join(self, seat: ElasticSeat) -> None:
        """A process has come."""
        self._seats[seat.identity] = seat
        self.tell(self.membership.join(seat.identity))

    def tell(self, notices: list[Notice]) -> None:
        """What goes over connections elsewhere."""
        view = self.membership.view
        for notice in notices:
            seat = self._seats[notice.to]
            if notice.kind == "start" and notice.to == view.members[0]:
                self.attempt = view.number if self.call.claim is None else self.call.claim()
                self._results.clear()
                self.finished.clear()
                self.posts.clear()
            seat.hear(notice, self.membership.rank(notice.to), len(view.members))


class ElasticSeat(InlineSeat):
    """The transport of a process whose rank may change."""

    room: ElasticRoom

    def __init__(self, room: ElasticRoom, identity: MemberId | None) -> None:
        super().__init__(room, -1, 0)
        self._identity = identity
        self.standing = Standing()
        self._prepares = False
        self._has_news = False  # of a view, which may have ended again before this one's turn
        self._exchanges = 0

    @property
    def identity(self) -> MemberId:
        """Which process it is, once it has a place."""
        assert self._identity is not None
        return self._identity

    def join(self) -> Seat:
        """Come, and wait for the first view, or for being told to prepare for a later one."""
        if self._identity is None:
            self._identity = self.room.take_place()
        self.rank = self.identity.slot
        self.room.join(self)
        self._await_news()
        if self._prepares:
            return Seat(view=0, rank=self.rank or self.room.size, size=0, attempt=-1)
        return self._place()

    def hear(self, notice: Notice, rank: int | None, size: int) -> None:
        """Take in what the coordinator says."""
        if notice.kind == "start" and self.standing.start(notice.view):
            assert rank is not None
            self.view, self.rank, self.size = notice.view, rank, size
            self._has_news = True
        elif notice.kind == "end":
            self.standing.end(notice.view)
        elif notice.kind == "ask":
            self.standing.ask(notice.view)
        elif notice.kind == "prepare":
            self._prepares = self._has_news = True

    def has_ended(self) -> bool:
        """Whether the view is over."""
        return not self.standing.acting

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """The same, unless this process is to die now."""
        strike, identity = self.room.strike, self.identity
        self._exchanges += 1
        if strike is not None and strike(identity.slot, identity.life, self._exchanges):
            raise _EndedError("it was struck")
        return super().exchange(sends, receives)

    def should_renew(self) -> bool:
        """Whether somebody waits, or the view is over."""
        return self.standing.asked or not self.standing.acting

    def renew(self) -> Seat:
        """Leave the view and wait for the next."""
        number = self.standing.renew()
        self._has_news = False
        self.room.tell(self.room.membership.become_ready(self.identity, number))
        self._await_news()
        return self._place()

    def _place(self) -> Seat:
        return Seat(view=self.view, rank=self.rank, size=self.size, attempt=self.room.attempt)

    def _await_news(self) -> None:
        membership = self.room.membership
        reason = f"rank {self.rank} waits for the next view"
        self.room.scheduler.wait_until(lambda: self._has_news or membership.finished, reason)
        if not self._has_news:
            raise _EndedError("nobody needs it any more")
