"""Who gets which lease, and when a lease counts as accepted."""

import pytest

from sixfold.training.step.schedule import TrainingLength
from sixfold.training.strategies.param_server.leases import (
    PATIENCE_S,
    LeaseBook,
    Setback,
    plan_leases,
)
from sixfold.training.strategies.param_server.server import LeaseName


@pytest.mark.parametrize(("images", "batch", "total"), [(10, 3, 9), (1000, 1, 2500), (7, 7, 1)])
def test_leases_cover_every_step_once_and_never_cross_an_epoch(
    images: int, batch: int, total: int
) -> None:
    budget = TrainingLength(images=images, batch_size=batch, total_steps=total)
    leases = plan_leases(budget)
    steps = [(lease.name, step) for lease in leases for step in range(lease.first, _end(lease))]
    assert [step for _, step in steps] == list(range(total))
    assert all(budget.place(step)[0] == name.epoch for name, step in steps)
    assert len({lease.name for lease in leases}) == len(leases)


def _end(lease: object) -> int:
    return lease.first + lease.steps  # type: ignore[attr-defined, no-any-return]


def book(epochs: int = 1, per_epoch: int = 4) -> LeaseBook:
    """A book of leases of one step each."""
    budget = TrainingLength(images=per_epoch, batch_size=1, total_steps=epochs * per_epoch)
    return LeaseBook(plan_leases(budget))


def test_every_lease_is_given_to_one_worker_in_order() -> None:
    leases = book()
    grants = [leases.take(worker, 0.0) for worker in range(5)]
    assert [grant and grant.lease.first for grant in grants] == [0, 1, 2, 3, None]
    assert len({grant.attempt for grant in grants if grant}) == 4


def test_what_a_dead_worker_held_comes_first_under_a_new_attempt() -> None:
    leases = book()
    first = leases.take(0, 0.0)
    leases.take(1, 0.0)
    leases.release(0)
    again = leases.take(2, 1.0)
    assert first is not None
    assert again is not None
    assert again.lease == first.lease
    assert again.attempt > first.attempt


def test_a_lease_is_accepted_once_and_the_book_is_finished_when_all_are() -> None:
    leases = book(per_epoch=2)
    heard = []
    for _ in range(2):
        grant = leases.take(0, 0.0)
        assert grant is not None
        heard.append(leases.advance(grant.lease.name, grant.attempt, 1, 0.0))
        heard.append(leases.advance(grant.lease.name, grant.attempt, 1, 0.0))
    assert heard == [1, 0, 1, 0]
    assert leases.finished
    assert leases.take(0, 0.0) is None
    assert leases.steps_logged == 2


def test_a_lease_that_does_not_move_is_given_to_an_idle_worker_too() -> None:
    leases = book(per_epoch=1)
    slow = leases.take(0, 0.0)
    assert leases.take(1, PATIENCE_S / 2) is None
    backup = leases.take(1, PATIENCE_S + 1)
    assert slow is not None
    assert backup is not None
    assert backup.lease == slow.lease
    assert backup.attempt > slow.attempt
    # Whoever ends it first, ends it; what the other one says later changes nothing.
    assert leases.advance(backup.lease.name, backup.attempt, 1, 20.0) == 1
    assert leases.advance(slow.lease.name, slow.attempt, 1, 21.0) == 0
    assert leases.finished


def test_what_a_server_has_forgotten_is_issued_again() -> None:
    leases = book(per_epoch=3)
    for _ in range(3):
        grant = leases.take(0, 0.0)
        assert grant is not None
        leases.advance(grant.lease.name, grant.attempt, 1, 0.0)
    assert leases.restored({LeaseName(0, 0): 1}) == Setback(steps=2, leases=2)
    assert not leases.finished
    again = [leases.take(worker, 1.0) for worker in range(3)]
    assert [grant and grant.lease.first for grant in again] == [1, 2, None]
    for grant in again[:2]:
        assert grant is not None
        assert leases.advance(grant.lease.name, grant.attempt, 1, 1.0) == 0
    assert leases.finished
    assert leases.steps_logged == 3


def test_a_book_begins_where_the_servers_tables_stand() -> None:
    budget = TrainingLength(images=128, batch_size=1, total_steps=256)
    leases = plan_leases(budget)
    assert leases[0].steps == 2
    behind = {leases[0].name: 2, leases[1].name: 1, leases[2].name: 2}
    ahead = {leases[0].name: 2, leases[1].name: 2}
    begun = LeaseBook(leases, tables=[behind, ahead], first_attempt=50)
    assert list(begun.steps_done()) == [0, 1, 2]
    grants = [begun.take(worker, 0.0) for worker in range(2)]
    assert [grant and grant.lease.first for grant in grants] == [2, 4]
    assert [grant and grant.attempt for grant in grants] == [50, 51]
