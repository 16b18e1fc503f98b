"""Ticks are round and inside, places are right, numbers are written as one would."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.core.html.axes import (
    duration,
    linear,
    logarithmic,
    milliseconds,
    percent_tick,
    plain,
    round_steps,
    time_axis,
)

values = st.floats(-1e12, 1e12)


@given(values, values, st.booleans())
def test_a_linear_axis_holds_its_values_and_few_ticks(a: float, b: float, snug: bool) -> None:
    axis = linear(min(a, b), max(a, b), plain, snug=snug)
    assert axis.low < axis.high
    slack = 1e-8 * (axis.high - axis.low)
    assert axis.low <= min(a, b) + slack
    assert axis.high >= max(a, b) - slack
    assert len(axis.ticks) <= 8
    assert all(-1e-6 <= tick.at <= 100 + 1e-6 for tick in axis.ticks)
    places = axis.place([a, b])
    assert ((places >= 0) & (places <= 1)).all()


def test_counted_things_have_whole_ticks() -> None:
    assert [tick.label for tick in linear(0, 2, plain, least=1).ticks] == ["0", "1", "2"]


def test_a_logarithmic_axis_places_by_ratio() -> None:
    axis = logarithmic(1.0, 10_000.0, plain)
    one, hundred, most = axis.place([1.0, 100.0, 10_000.0])
    assert hundred - one == pytest.approx(most - hundred)
    assert [tick.label for tick in axis.ticks] == ["1", "10", "100", "1,000", "10,000"]
    assert axis.place([0.0, -1.0])[0] == 0.0
    assert math.isnan(axis.place([-1.0])[0])


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.3, 0.9), (0, 1000), (1e-9, 3e-9), (-5, 5), (123, 124)]
)
def test_round_steps_are_multiples_of_one_step(low: float, high: float) -> None:
    steps = np.array(round_steps(low, high, 5))
    assert 2 <= len(steps) <= 7
    ratios = steps / (steps[1] - steps[0])
    assert np.allclose(ratios, np.round(ratios), atol=1e-6)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (0.5, "0.5"), (2.302585, "2.303"), (1e-7, "1e-07"),
     (12345.6, "12,346"), (float("inf"), "–"), (-0.25, "-0.25")],  # noqa: RUF001
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4 ms"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3600, "1 h 00 min"),
     (float("nan"), "–")],  # noqa: RUF001
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_milliseconds_keep_three_digits() -> None:
    assert [milliseconds(s) for s in (0.0001, 0.0123, 0.456, 12.0)] == [
        "0.10", "12.3", "456.0", "12,000",
    ]  # fmt: skip


def test_time_has_the_unit_that_suits() -> None:
    assert [time_axis(s)[1] for s in (0, 90, 1000, 90_000)] == ["s", "s", "min", "h"]


def test_percent_ticks() -> None:
    assert [percent_tick(v) for v in (0, 0.1 + 0.2, 0.9975)] == ["0%", "30%", "99.75%"]
