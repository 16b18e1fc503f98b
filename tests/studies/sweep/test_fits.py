"""Fits against what the times were made from, and against trying all sets of coefficients."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.studies.sweep.fits import (
    AMDAHL,
    ERNEST,
    fit,
    non_negative,
    resampled,
)

GRID = [{"n": float(n), "size": float(size)} for n in (1, 2, 4, 8) for size in (10, 100, 1000)]


def test_a_law_is_found_again_from_its_own_times() -> None:
    wanted = np.array([2e-3, 3e-4, 1e-3, 2e-5])
    times = ERNEST.matrix(GRID) @ wanted
    found = fit(ERNEST, GRID, [[time] for time in times])
    np.testing.assert_allclose(found.coefficients, wanted, rtol=1e-6)
    assert found.error() == pytest.approx(0, abs=1e-9)
    assert found.interval(GRID[0]) is None  # nothing was repeated
    more = {"n": 64.0, "size": 1e5}
    assert found.predict(more) == pytest.approx(float(ERNEST.matrix([more])[0] @ wanted))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    wanted = np.array([1.0, 3.0])
    settings_ = [{"n": float(n)} for n in (1, 2, 3, 4, 6, 8)]
    times = AMDAHL.matrix(settings_) @ wanted
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        samples = [list(time * np.exp(0.05 * generator.standard_normal(15))) for time in times]
        found = fit(AMDAHL, settings_, samples, draws=200)
        low, high = np.percentile(found.draws[:, 0], [2.5, 97.5])
        held += bool(low <= wanted[0] <= high)
    assert held >= 48  # of 57 expected


def reference_non_negative(matrix: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Coefficients by trying every set of coefficients that may differ from 0: slow and obvious."""
    count = matrix.shape[1]
    rows, ones = matrix / times[:, None], np.ones(len(times))
    best, least = np.zeros(count), float(len(times))
    for size in range(1, count + 1):
        for chosen in itertools.combinations(range(count), size):
            own = rows[:, chosen]
            some, *_ = np.linalg.lstsq(own, ones, rcond=None)
            error = float(((own @ some - ones) ** 2).sum())
            if (some >= 0).all() and error < least - 1e-15:
                best, least = np.zeros(count), error
                best[list(chosen)] = some
    return best


@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(
            st.tuples(
                st.lists(st.just(0.0) | st.floats(0.01, 10), min_size=k, max_size=k),
                st.floats(0.01, 100),
            ),
            min_size=k,
            max_size=9,
        )
    )
)
def test_coefficients_are_those_of_trying_everything(
    rows: list[tuple[list[float], float]],
) -> None:
    matrix = np.array([row for row, _ in rows])
    times = np.array([time for _, time in rows])

    def error(coefficients: np.ndarray) -> float:
        return float(((matrix @ coefficients / times - 1) ** 2).sum())

    found, wanted = non_negative(matrix, times), reference_non_negative(matrix, times)
    assert (found >= 0).all()
    assert error(found) <= error(wanted) + 1e-7


def test_held_out_errors_need_more_configurations_than_coefficients() -> None:
    assert fit(AMDAHL, [{"n": 1.0}, {"n": 2.0}], [[1.0], [0.6]]).error() is None
    three = fit(AMDAHL, [{"n": 1.0}, {"n": 2.0}, {"n": 4.0}], [[1.0], [0.6], [0.4]])
    assert three.error() == pytest.approx(0, abs=1e-6)


def test_the_bootstrap_draws_medians_of_each_configurations_own_times() -> None:
    drawn = resampled([[1.0, 2.0, 3.0], [10.0]], 500, np.random.default_rng(0))
    assert set(drawn[:, 0]) == {1.0, 2.0, 3.0}
    assert set(drawn[:, 1]) == {10.0}
    # The median of three draws is the middle one in 13 of 27 cases.
    assert (drawn[:, 0] == 2.0).mean() == pytest.approx(13 / 27, abs=0.08)
