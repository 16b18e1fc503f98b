"""Whatever dies, repeats itself or overtakes: every update counts once in what survives.

Servers and lease book are real, the network between them is a bag of messages of which any may
arrive next, late, or twice. Every update adds a number of its own to the weights, so the weights
tell which updates are in them.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.step.schedule import TrainingLength
from sixfold.training.strategies.param_server.leases import Grant, LeaseBook, plan_leases
from sixfold.training.strategies.param_server.server import (
    Answer,
    LeaseName,
    Ledger,
    Push,
    ShardServer,
    Snapshot,
    Version,
)

SERVERS = 2
BUDGET = TrainingLength(images=130, batch_size=1, total_steps=20)
LEASES = plan_leases(BUDGET)  # of three steps each, the last of two
EMPTY = torch.zeros(0, dtype=torch.float64)


def worth(lease: LeaseName, sequence: int) -> float:
    """What an update adds: a power of two of its own, so that sums cannot be mistaken."""
    place = next(i for i, other in enumerate(LEASES) if other.name == lease)
    return float(2 ** (LEASES[place].first + sequence))


@dataclass
class Worker:
    """What a worker knows; it does nothing by itself."""

    number: int
    grant: Grant | None = None
    next: int = 0
    applied: list[int | None] = field(default_factory=lambda: [None] * SERVERS)
    bases: list[Version | None] = field(default_factory=lambda: [None] * SERVERS)


class Cluster(RuleBasedStateMachine):
    """Servers, workers, messages on their way, and everything that can befall them."""

    def __init__(self) -> None:
        super().__init__()
        self.life = 0
        self.snapshots = [self._blank() for _ in range(SERVERS)]
        self.servers = [self._start(i) for i in range(SERVERS)]
        self.book = LeaseBook(LEASES)
        self.now = 0.0
        self.workers = {number: Worker(number) for number in range(3)}
        self.bag: list[tuple[int, Push, Worker]] = []

    def _blank(self) -> Snapshot:
        return Snapshot(
            weights=torch.zeros(1, dtype=torch.float64),
            buffers=EMPTY.clone(),
            counters=torch.zeros(0, dtype=torch.int64),
            slots={},
            updates=0,
            ledger=Ledger(),
        )

    def _start(self, i: int) -> ShardServer:
        self.life += 1
        kept = self.snapshots[i]
        copy = Snapshot(
            weights=kept.weights.clone(),
            buffers=kept.buffers,
            counters=kept.counters,
            slots={},
            updates=kept.updates,
            ledger=kept.ledger.copy(),
        )
        optimizer = make_optimizer(OptimizerConfig(momentum=0.0), copy.weights)
        return ShardServer(copy, optimizer, staleness=3, life=self.life)

    # What workers do.

    @rule(number=st.integers(0, 2))
    def take(self, number: int) -> None:
        """An idle worker asks for a lease, opens it everywhere and pulls."""
        worker = self.workers[number]
        self.now += 1.0
        if worker.grant is None:
            worker.grant = self.book.take(number, self.now)
            if worker.grant is not None:
                self._open(worker)

    def _open(self, worker: Worker) -> None:
        assert worker.grant is not None
        grant = worker.grant
        answers = [server.open(grant.lease.name, grant.attempt) for server in self.servers]
        if any(answer.outcome == "fenced" for answer in answers):
            worker.grant = None
            return
        worker.applied = [answer.applied for answer in answers]
        worker.bases = [server.pull().version for server in self.servers]
        self._note(worker)

    def _note(self, worker: Worker) -> None:
        """Tell the book how far the lease is on every server."""
        assert worker.grant is not None
        lease, attempt = worker.grant.lease, worker.grant.attempt
        known = [count for count in worker.applied if count is not None]
        worker.next = min(known)
        if len(known) == SERVERS:
            self.book.advance(lease.name, attempt, worker.next, self.now)
        if worker.next >= lease.steps:
            worker.grant = None

    @rule(number=st.integers(0, 2), server=st.integers(0, SERVERS - 1))
    def push(self, number: int, server: int) -> None:
        """A worker sends the update of its present step to one of the servers."""
        worker = self.workers[number]
        if worker.grant is None or worker.bases[server] is None:
            return
        if worker.applied[server] != worker.next:
            return
        base = worker.bases[server]
        assert base is not None
        self.bag.append((server, self._update(worker, base), worker))

    def _update(self, worker: Worker, base: Version) -> Push:
        assert worker.grant is not None
        name = worker.grant.lease.name
        return Push(
            lease=name,
            sequence=worker.next,
            attempt=worker.grant.attempt,
            base=base,
            lr=-1.0,
            gradient=torch.full((1,), worth(name, worker.next), dtype=torch.float64),
            before=EMPTY,
            after=EMPTY,
            moved=torch.zeros(0, dtype=torch.int64),
        )

    # What the network does.

    @precondition(lambda self: self.bag)
    @rule(data=st.data(), twice=st.booleans(), answered=st.booleans())
    def deliver(self, data: Any, twice: bool, answered: bool) -> None:
        """Any message arrives next, perhaps again later; its answer may get lost."""
        place = data.draw(st.integers(0, len(self.bag) - 1))
        server, push, worker = self.bag[place] if twice else self.bag.pop(place)
        copy = Push(**{**push.__dict__, "gradient": push.gradient.clone()})
        answer = self.servers[server].push(copy)
        if answered:
            self._answered(worker, server, push, answer)

    def _answered(self, worker: Worker, server: int, push: Push, answer: Answer) -> None:
        grant = worker.grant
        if grant is None or grant.attempt != push.attempt or worker.next != push.sequence:
            return  # of a step that the worker has left behind
        if answer.outcome == "fenced":
            worker.grant = None
        elif answer.outcome == "gap":
            self._open(worker)
        elif answer.outcome in ("stale", "lapsed"):
            worker.bases[server] = self.servers[server].pull().version
        elif self.servers[server].version.life == answer.version.life:
            worker.applied[server] = answer.applied
            self._note(worker)

    # What befalls them.

    @rule(number=st.integers(0, 2))
    def kill_worker(self, number: int) -> None:
        """A worker dies with all it knew; its messages may still arrive."""
        self.book.release(number)
        self.workers[number] = Worker(number)

    @rule()
    def time_passes(self) -> None:
        """So long that idle workers take over leases that do not move."""
        self.now += 1000.0

    @rule(server=st.integers(0, SERVERS - 1))
    def take_snapshot(self, server: int) -> None:
        self.snapshots[server] = self.servers[server].snapshot()

    @rule(server=st.integers(0, SERVERS - 1))
    def kill_server(self, server: int) -> None:
        """A server dies and starts again from its snapshot; answers on their way are lost."""
        self.servers[server] = self._start(server)
        self.book.restored(self.servers[server].snapshot().ledger.applied)
        for worker in self.workers.values():  # their connections are broken
            worker.bases[server] = None
            if worker.grant is not None:
                self._open(worker)

    # What must hold.

    @invariant()
    def the_weights_are_the_sum_of_what_the_table_says(self) -> None:
        for server in self.servers:
            kept = server.snapshot()
            expected = sum(
                worth(name, sequence)
                for name, count in kept.ledger.applied.items()
                for sequence in range(count)
            )
            assert float(kept.weights[0]) == expected
            assert sum(kept.ledger.applied.values()) == kept.ledger.clock
            assert max(kept.ledger.stalenesses, default=0) <= 3

    @invariant()
    def the_book_never_claims_what_a_server_does_not_have(self) -> None:
        done = set(self.book.steps_done())
        for server in self.servers:
            table = server.snapshot().ledger.applied
            steps = {
                step
                for lease in LEASES
                for step in range(lease.first, lease.first + table.get(lease.name, 0))
            }
            assert done <= steps

    def teardown(self) -> None:
        """Left in peace, the work is done to its end, and nothing is in it twice or missing."""
        for number in self.workers:
            self.book.release(number)
        worker = Worker(9)
        for _ in range(10 * len(LEASES)):
            if self.book.finished:
                break
            self.now += 1000.0
            worker.grant = self.book.take(worker.number, self.now)
            if worker.grant is not None:
                self._open(worker)
            while worker.grant is not None:
                for place, server in enumerate(self.servers):
                    if worker.applied[place] == worker.next:
                        answer = server.push(self._update(worker, server.version))
                        assert answer.outcome == "applied"
                        worker.applied[place] = answer.applied
                self._note(worker)
        assert self.book.finished
        assert list(self.book.steps_done()) == list(range(BUDGET.total_steps))
        for server in self.servers:
            assert float(server.pull().weights[0]) == 2**BUDGET.total_steps - 1


Cluster.TestCase.settings = settings(stateful_step_count=60)
TestExactlyOnce = Cluster.TestCase
