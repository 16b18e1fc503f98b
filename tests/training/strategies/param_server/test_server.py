"""One server by itself: what it applies, what it refuses, and what it remembers."""

import pytest
import torch

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.strategies.param_server.server import (
    LeaseName,
    Ledger,
    Push,
    ShardServer,
    Snapshot,
    Version,
)

A, B = LeaseName(0, 0), LeaseName(0, 1)


def fresh(*, weights: int = 3, buffers: int = 1, slots: tuple[str, ...] = ()) -> Snapshot:
    return Snapshot(
        weights=torch.zeros(weights, dtype=torch.float64),
        buffers=torch.ones(buffers, dtype=torch.float64),
        counters=torch.zeros(1, dtype=torch.int64),
        slots={name: torch.zeros(weights, dtype=torch.float64) for name in slots},
        updates=0,
        ledger=Ledger(),
    )


def server(snapshot: Snapshot | None = None, *, staleness: int = 9, life: int = 1) -> ShardServer:
    snapshot = snapshot or fresh()
    optimizer = make_optimizer(OptimizerConfig(momentum=0.0), snapshot.weights)
    return ShardServer(snapshot, optimizer, staleness=staleness, life=life)


def push(
    base: Version,
    lease: LeaseName = A,
    sequence: int = 0,
    *,
    attempt: int = 1,
    value: float = 1.0,
    before: float = 1.0,
    after: float = 2.0,
) -> Push:
    def vector(x: float, n: int) -> torch.Tensor:
        return torch.full((n,), x, dtype=torch.float64)

    return Push(
        lease=lease,
        sequence=sequence,
        attempt=attempt,
        base=base,
        lr=1.0,
        gradient=vector(value, 3),
        before=vector(before, 1),
        after=vector(after, 1),
        moved=torch.ones(1, dtype=torch.int64),
    )


def test_a_push_is_applied_once() -> None:
    one = server()
    base = one.pull().version
    assert one.push(push(base)).outcome == "applied"
    again = one.push(push(base))
    assert (again.outcome, again.applied) == ("duplicate", 1)
    held = one.pull()
    assert held.weights.tolist() == [-1.0, -1.0, -1.0]
    assert held.buffers.tolist() == [2.0]
    assert held.counters.tolist() == [1]
    assert held.version == Version(1, 1)


def test_a_lease_is_applied_in_order() -> None:
    one = server()
    base = one.pull().version
    assert one.push(push(base, sequence=1)).outcome == "gap"
    assert one.push(push(base, sequence=0)).outcome == "applied"
    assert one.push(push(base, sequence=1)).outcome == "applied"
    assert one.open(A, 1).applied == 2
    assert one.open(B, 1).applied == 0


def test_a_later_attempt_fences_off_an_earlier_one() -> None:
    one = server()
    base = one.pull().version
    one.open(A, 3)
    assert one.push(push(base, attempt=2)).outcome == "fenced"
    assert one.open(A, 2).outcome == "fenced"
    assert one.push(push(base, attempt=4)).outcome == "applied"
    assert one.push(push(base, sequence=1, attempt=3)).outcome == "fenced"
    assert one.push(push(base, lease=B, attempt=1)).outcome == "applied"


@pytest.mark.parametrize("bound", [0, 2])
def test_a_push_staler_than_the_bound_is_refused(bound: int) -> None:
    one = server(staleness=bound)
    old = one.pull().version
    for sequence in range(bound + 1):
        assert one.push(push(one.version, sequence=sequence)).staleness == 0
    assert one.push(push(old, lease=B)).outcome == "stale"
    one_less = Version(1, 1)
    assert one.push(push(one_less, lease=B)).staleness == bound
    ledger = one.snapshot().ledger
    assert ledger.stalenesses == ({0: bound + 1, bound: 1} if bound else {0: 2})
    assert ledger.refused == {"stale": 1}


def test_buffers_of_steps_that_overlap_add_up() -> None:
    one = server()
    base = one.pull().version
    one.push(push(base, before=1.0, after=2.0))
    one.push(push(base, lease=B, before=1.0, after=1.5))
    assert one.pull().buffers.tolist() == [2.5]


def test_weights_from_a_former_life_are_of_unknown_age() -> None:
    one = server(life=1)
    base = one.pull().version
    two = server(one.snapshot(), life=2)
    assert two.push(push(base)).outcome == "lapsed"
    assert two.push(push(two.version)).outcome == "applied"


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_a_server_that_starts_from_a_snapshot_goes_on_as_the_one_that_made_it(rule: str) -> None:
    config = OptimizerConfig(optimizer=rule, momentum=0.9)
    slots = tuple(make_optimizer(config, torch.zeros(3, dtype=torch.float64)).slots)

    def start(snapshot: Snapshot, life: int) -> ShardServer:
        optimizer = make_optimizer(config, snapshot.weights)
        return ShardServer(snapshot, optimizer, staleness=5, life=life)

    one = start(fresh(slots=slots), 1)
    for sequence in range(3):
        one.push(push(one.version, sequence=sequence, value=sequence + 1.0))
    kept = one.snapshot()
    two = start(one.snapshot(), 2)
    for each in (one, two):
        each.push(push(each.version, sequence=3, value=7.0))
    assert torch.equal(one.pull().weights, two.pull().weights)
    # What was copied is not touched by what came later.
    assert kept.ledger.applied == {A: 3}
    assert kept.updates == 3
    assert not torch.equal(kept.weights, one.pull().weights)
