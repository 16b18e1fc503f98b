"""Steps, epochs and learning rates."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as scheduler
from torch.optim.lr_scheduler import LRScheduler

from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig, TrainingConfig
from sixfold.training.step.schedule import TrainingLength, budget, parse_schedule
from sixfold.training.step.schedule_kinds import KINDS, schedule_problems


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


Peers = dict[str, tuple[str, Callable[[torch.optim.Optimizer], LRScheduler], int]]
PEERS: Peers = {
    "cosine": ("cosine", lambda o: scheduler.CosineAnnealingLR(o, 100), 1),
    "step": ("step:3:0.5", lambda o: scheduler.StepLR(o, 3, 0.5), 10),
    "multistep": ("multistep:2,5,6:0.3", lambda o: scheduler.MultiStepLR(o, [2, 5, 6], 0.3), 10),
    "multistep by default": ("multistep:4", lambda o: scheduler.MultiStepLR(o, [4]), 10),
    "linear": ("polynomial", lambda o: scheduler.PolynomialLR(o, 100), 1),
    "polynomial": ("polynomial:2.5", lambda o: scheduler.PolynomialLR(o, 100, 2.5), 1),
    "one-cycle": (
        "one-cycle",
        lambda o: scheduler.OneCycleLR(o, 0.3, total_steps=100, cycle_momentum=False),
        1,
    ),
    "one-cycle with numbers": (
        "one-cycle:0.45:10:100",
        lambda o: scheduler.OneCycleLR(
            o,
            0.3,
            total_steps=100,
            pct_start=0.45,
            div_factor=10,
            final_div_factor=100,
            cycle_momentum=False,
        ),
        1,
    ),
    "restarts": ("restarts:3", lambda o: scheduler.CosineAnnealingWarmRestarts(o, 30), 1),
    "longer restarts": (
        "restarts:1.5:2",
        lambda o: scheduler.CosineAnnealingWarmRestarts(o, 15, T_mult=2),
        1,
    ),
}
"""How it is written, torch's class, and after how many steps that one advances."""


@pytest.mark.parametrize("name", PEERS)
def test_schedules_are_those_of_torch(name: str) -> None:
    text, make, every = PEERS[name]
    schedule = parse_schedule(OptimizerConfig(lr=0.3, schedule=text))
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    theirs = torch.optim.SGD([parameter], lr=0.3)
    peer = make(theirs)
    for step in range(100):
        rate = schedule.rate(step, PLAN)
        assert rate == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12, abs=1e-14), step
        theirs.step()
        if (step + 1) % every == 0:
            peer.step()


@given(st.sampled_from(sorted(KINDS)), st.integers(1, 300), st.integers(1, 7), st.floats(0, 2))
def test_every_rate_lies_between_nothing_and_the_peak(
    kind: str, steps: int, per_epoch: int, warmup: float
) -> None:
    text = {
        "step": "step:2",
        "multistep": "multistep:1,3",
        "restarts": "restarts:2:2",
        "rise": "rise:1e6",
    }.get(kind, kind)
    warmup = 0.0 if kind == "one-cycle" else warmup
    schedule = parse_schedule(OptimizerConfig(lr=0.5, schedule=text, warmup=warmup))
    plan = TrainingLength(images=per_epoch, batch_size=1, total_steps=steps)
    rates = [schedule.rate(step, plan) for step in range(steps)]
    assert all(0 <= rate <= 0.5 + 1e-12 for rate in rates)


def test_one_cycle_has_a_warm_up_of_its_own() -> None:
    assert schedule_problems(OptimizerConfig(schedule="one-cycle")) == []
    [line] = schedule_problems(OptimizerConfig(schedule="one-cycle", warmup=1))
    assert "--warmup: not with --schedule one-cycle" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one-cycle:1.5", "must be below 1"),
        ("restarts:2:1.5", "must be a whole number"),
        ("multistep:1,x", "expected constant"),
        ("multistep", "expected constant"),
        ("polynomial:inf", "must be finite"),
    ],
)
def test_numbers_of_a_schedule_are_checked(text: str, said: str) -> None:
    [line] = schedule_problems(OptimizerConfig(schedule=text))
    assert said in line


@pytest.mark.parametrize(
    "text", ["linear", "step", "step:0", "step:-1", "step:3:0", "step:a", "cosine:3", "step:1:2:3"]
)
def test_a_wrong_schedule_is_explained(text: str) -> None:
    with pytest.raises(UserError, match="expected constant, cosine, step:"):
        parse_schedule(OptimizerConfig(schedule=text))
