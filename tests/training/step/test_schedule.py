"""Steps, epochs and learning rates."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig, TrainingConfig
from sixfold.training.step.schedule import TrainingLength, budget, parse_schedule


@given(st.integers(1, 500), st.integers(1, 600), st.integers(1, 5))
def test_an_epoch_takes_every_place_once(images: int, batch: int, epochs: int) -> None:
    plan = budget(TrainingConfig(batch_size=batch, epochs=epochs), images)
    assert plan.total_steps == epochs * plan.steps_per_epoch
    places = [plan.place(step) for step in range(plan.total_steps)]
    for epoch in range(epochs):
        spans = [(start, stop) for e, start, stop in places if e == epoch]
        taken = [place for start, stop in spans for place in range(start, stop)]
        assert taken == list(range(images))
    assert plan.epochs_done(plan.total_steps) == epochs


def test_steps_win_over_epochs_and_default_is_ten_epochs() -> None:
    assert budget(TrainingConfig(batch_size=10, steps=7), 100).total_steps == 7
    assert budget(TrainingConfig(batch_size=10), 100).total_steps == 100


PLAN = TrainingLength(images=100, batch_size=10, total_steps=100)


def test_warm_up_rises_to_the_peak_and_cosine_falls_to_nothing() -> None:
    schedule = parse_schedule(OptimizerConfig(lr=0.4, schedule="cosine", warmup=2))
    rates = [schedule.rate(step, PLAN) for step in range(100)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[19] == pytest.approx(0.4)
    assert rates[20] == pytest.approx(0.4)
    assert rates[60] == pytest.approx(0.2)
    assert all(a > b for a, b in pairwise(rates[20:]))
    assert rates[99] == pytest.approx(0.2 * (1 + math.cos(math.pi * 79 / 80)))


def test_steps_drop_at_whole_epochs() -> None:
    schedule = parse_schedule(OptimizerConfig(lr=1.0, schedule="step:3:0.5"))
    assert [schedule.rate(step, PLAN) for step in (0, 29, 30, 59, 60)] == [1, 1, 0.5, 0.5, 0.25]


def test_constant_stays() -> None:
    schedule = parse_schedule(OptimizerConfig(lr=0.3))
    assert {schedule.rate(step, PLAN) for step in range(100)} == {0.3}


@pytest.mark.parametrize(
    "text", ["linear", "step", "step:0", "step:-1", "step:3:0", "step:a", "cosine:3", "step:1:2:3"]
)
def test_a_wrong_schedule_is_explained(text: str) -> None:
    with pytest.raises(UserError, match="expected constant, cosine, or step"):
        parse_schedule(OptimizerConfig(schedule=text))
