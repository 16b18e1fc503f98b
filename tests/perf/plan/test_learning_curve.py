"""Epochs to a target, from the course of a short training."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.perf.plan.learning_curve import (
    CARRIED_ON,
    COMPARED,
    MEASURED,
    TOO_FEW,
    UNKNOWN,
    Curve,
    epochs_needed,
)
from sixfold.training.selection import Target


def course(epochs: np.ndarray, speed: float = 1.0, noise: float = 0.0, seed: int = 0) -> Curve:
    """An accuracy that follows a power law, and comes sooner or later."""
    drawn = np.random.default_rng(seed).standard_normal(len(epochs))
    values = 0.9 - 0.5 * (1 + epochs * speed) ** -0.7 + noise * drawn
    return Curve(tuple(map(float, epochs)), tuple(map(float, values)))


def true_need(accuracy: float, speed: float = 1.0) -> float:
    return float(((0.5 / (0.9 - accuracy)) ** (1 / 0.7) - 1) / speed)


EARLY, LONG = np.linspace(0.5, 6, 12), np.linspace(1, 40, 40)


def test_what_was_reached_is_measured_between_two_evaluations() -> None:
    found = epochs_needed(Curve((1.0, 2.0, 3.0), (0.5, 0.7, 0.9)), Target("accuracy", 0.75))
    assert found.how == MEASURED
    assert found.epochs == pytest.approx(2.25)
    assert (found.low, found.high) == (2.0, 3.0)
    first = epochs_needed(Curve((1.0,), (0.5,)), Target("accuracy", 0.4))
    assert (first.epochs, first.low, first.high) == (1.0, 0.0, 1.0)


def test_a_loss_is_reached_from_above() -> None:
    found = epochs_needed(Curve((1.0, 2.0), (0.5, 0.3)), Target("loss", 0.4))
    assert found.epochs == pytest.approx(1.5)
    assert found.how == MEASURED


@given(speed=st.floats(0.3, 3.0), seed=st.integers(0, 1000))
def test_a_slower_or_quicker_course_is_a_stretched_one(speed: float, seed: int) -> None:
    own = course(EARLY, speed, noise=0.003, seed=seed)
    found = epochs_needed(own, Target("accuracy", 0.82), course(LONG, noise=0.003, seed=seed + 1))
    if found.how == COMPARED:  # not if the noise reached it
        wanted = true_need(0.82, speed)
        assert 0.6 * wanted < found.epochs < 1.6 * wanted
        assert found.low <= found.epochs <= found.high


@pytest.mark.full
def test_a_power_law_is_carried_on() -> None:
    long = np.linspace(2, 12, 24)
    values = 0.9 - 0.5 * long**-0.7
    found = epochs_needed(Curve(tuple(long), tuple(values)), Target("accuracy", 0.85))
    assert found.how == CARRIED_ON
    assert found.epochs == pytest.approx((0.5 / 0.05) ** (1 / 0.7), rel=0.02)
    noisy = values + 0.003 * np.random.default_rng(3).standard_normal(24)
    found = epochs_needed(Curve(tuple(long), tuple(noisy)), Target("accuracy", 0.85))
    assert found.low < (0.5 / 0.05) ** (1 / 0.7) < found.high


def test_what_levels_off_below_is_never_reached() -> None:
    epochs = np.linspace(1, 20, 20)
    values = 0.6 - 0.3 * epochs**-2.0
    found = epochs_needed(Curve(tuple(epochs), tuple(values)), Target("accuracy", 0.9))
    assert (found.epochs, found.how) == (math.inf, UNKNOWN)


def test_few_evaluations_tell_nothing() -> None:
    found = epochs_needed(Curve((1.0, 2.0), (0.1, 0.2)), Target("accuracy", 0.9))
    assert (found.epochs, found.how) == (math.inf, TOO_FEW)
