"""Who works on what: leases of (epoch, shard), handed out, taken back, and accepted exactly once.

A lease is accepted when every server has applied all of its updates. That is read off the
servers' own tables and kept nowhere else: when a server comes back with an older table, the leases
that it does not know to be complete are issued again, and nothing can disagree.

A state machine without a clock: whoever calls says what time it is.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sixfold.training.step.schedule import TrainingLength
from sixfold.training.strategies.param_server.server import LeaseName

LEASES_PER_EPOCH = 64
"""Enough that workers of unequal speed end an epoch together, few enough that asking for the next
lease costs little beside its steps."""

PATIENCE_S = 10.0
PATIENCE_FACTOR = 10.0
"""A lease without progress for so many seconds, and for so many times the usual pause between two
steps, may be given to an idle worker as well; the first one's pushes are refused from then on."""

Tables = Sequence[Mapping[LeaseName, int]]
"""Of every server: lease -> how many of its updates have been applied."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The steps of a piece of an epoch."""

    name: LeaseName  # (epoch, shard)
    first: int  # number of its first step in the run, from 0
    steps: int  # how many; their sequence numbers are 0 to steps - 1


def plan_leases(budget: TrainingLength) -> list[Lease]:
    """Cut a run into leases; depends on the number of steps alone, never on the workers.

    >>> plan = plan_leases(TrainingLength(images=640, batch_size=4, total_steps=200))
    >>> len(plan), plan[1]
    (67, Lease(name=LeaseName(epoch=0, shard=1), first=3, steps=3))
    """
    per_epoch = budget.steps_per_epoch
    length = -(-per_epoch // LEASES_PER_EPOCH)
    leases = []
    for epoch in range(-(-budget.total_steps // per_epoch)):
        begin = epoch * per_epoch
        end = min(begin + per_epoch, budget.total_steps)
        for shard, first in enumerate(range(begin, end, length)):
            steps = min(length, end - first)
            leases.append(Lease(name=LeaseName(epoch, shard), first=first, steps=steps))
    return leases


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A lease in a worker's hands."""

    lease: Lease  # the work
    attempt: int  # the number of this attempt at it, higher than any before


@dataclass(kw_only=True)
class _Holding:
    worker: int
    attempt: int
    moved_at: float


@dataclass(frozen=True, kw_only=True)
class Setback:
    """What a server has forgotten."""

    steps: int  # acknowledged updates that its snapshot did not hold; each will be made again
    leases: int  # how many leases they belong to


@dataclass
class LeaseBook:
    """Which leases, in the order in which they are to be issued, are open, held and accepted.

    `tables` are what the servers have applied before; `first_attempt` lies above all attempts that
    servers may have heard of.
    """

    leases: Sequence[Lease]
    tables: Tables = ()
    first_attempt: int = 1
    _held: dict[LeaseName, _Holding] = field(default_factory=dict, init=False)
    _pause_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._places = {lease.name: place for place, lease in enumerate(self.leases)}
        self._done = {lease.name: 0 for lease in self.leases}
        self._logged = dict(self._done)
        for lease in self.leases:
            done = min((table.get(lease.name, 0) for table in self.tables), default=0)
            self._done[lease.name] = self._logged[lease.name] = done
        self._attempt = self.first_attempt
        self._open = [place for place in range(len(self.leases)) if not self._complete(place)]
        self._incomplete = len(self._open)
        self.steps_logged = sum(self._logged.values())

    @property
    def finished(self) -> bool:
        """Whether every lease has been accepted."""
        return self._incomplete == 0

    def steps_done(self) -> Iterator[int]:
        """Numbers of the steps that every server has applied."""
        for lease in self.leases:
            yield from range(lease.first, lease.first + self._done[lease.name])

    def take(self, worker: int, now: float) -> Grant | None:
        """The next piece of work for an idle worker; None if there is none at present."""
        self.release(worker)
        while self._open:
            place = heapq.heappop(self._open)
            if not self._complete(place) and self.leases[place].name not in self._held:
                return self._grant(place, worker, now)
        patience_s = max(PATIENCE_S, PATIENCE_FACTOR * self._pause_s)
        if self._held:
            name = min(self._held, key=lambda held: self._held[held].moved_at)
            if now - self._held[name].moved_at > patience_s:
                return self._grant(self._places[name], worker, now)
        return None

    def advance(self, name: LeaseName, attempt: int, count: int, now: float) -> int:
        """Every server has applied a lease's first `count` updates; how many of them is news."""
        place = self._places.get(name)
        if place is None:
            return 0
        if count > self._done[name]:
            self._done[name] = count
            if self._complete(place):
                self._incomplete -= 1
        holding = self._held.get(name)
        if holding is not None and holding.attempt == attempt:
            pause_s = now - holding.moved_at
            self._pause_s = pause_s if not self._pause_s else 0.9 * self._pause_s + 0.1 * pause_s
            holding.moved_at = now
            if self._complete(place):
                del self._held[name]
        new = max(count - self._logged[name], 0)
        self._logged[name] += new
        self.steps_logged += new
        return new

    def release(self, worker: int) -> None:
        """Open again what a worker held that has died, or that has given it up."""
        for name, holding in list(self._held.items()):
            if holding.worker == worker:
                del self._held[name]
                heapq.heappush(self._open, self._places[name])

    def restored(self, table: Mapping[LeaseName, int]) -> Setback:
        """A server has started again, with this table; open what it does not know any more."""
        steps = leases = 0
        for place, lease in enumerate(self.leases):
            known, done = table.get(lease.name, 0), self._done[lease.name]
            if known >= done:
                continue
            steps, leases = steps + done - known, leases + 1
            if self._complete(place):
                self._incomplete += 1
                heapq.heappush(self._open, place)
            self._done[lease.name] = known
        return Setback(steps=steps, leases=leases)

    def _complete(self, place: int) -> bool:
        return self._done[self.leases[place].name] == self.leases[place].steps

    def _grant(self, place: int, worker: int, now: float) -> Grant:
        lease, attempt = self.leases[place], self._attempt
        self._attempt += 1
        self._held[lease.name] = _Holding(worker=worker, attempt=attempt, moved_at=now)
        return Grant(lease=lease, attempt=attempt)
