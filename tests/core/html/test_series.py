"""Thinning and smoothing, against slow obvious versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.core.html.series import bins, extremes, smooth, spread, without_pauses

floats = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=80)


@given(floats, st.integers(0, 9))
def test_smooth_equals_the_mean_of_each_window(values: list[float], half: int) -> None:
    array = np.array(values)
    result = smooth(array, 2 * half + 1)
    for k in range(len(array)):
        window = array[max(0, k - half) : k + half + 1]
        window = window[np.isfinite(window)]
        if len(window):
            assert result[k] == pytest.approx(window.mean(), abs=1e-6)
        else:
            assert np.isnan(result[k])


@given(floats, st.integers(2, 40))
def test_extremes_keep_ends_and_range(values: list[float], limit: int) -> None:
    array = np.array(values)
    kept = extremes(array, limit)
    assert len(kept) <= limit + 2
    assert (np.diff(kept) > 0).all()
    assert kept[0] == 0
    assert kept[-1] == len(array) - 1
    if np.isfinite(array).any():
        assert np.nanmin(array[kept]) == np.nanmin(array)
        assert np.nanmax(array[kept]) == np.nanmax(array)


@given(st.integers(1, 10_000), st.integers(2, 300))
def test_spread_and_bins_cover_everything(n: int, limit: int) -> None:
    indices, borders = spread(n, limit), bins(n, limit)
    assert indices[0] == 0
    assert indices[-1] == n - 1
    assert len(indices) <= limit
    assert borders[0] == 0
    assert borders[-1] == n
    assert (np.diff(borders) >= 1).all()
    assert len(borders) <= limit + 1


def test_clocks_that_run_backwards_do_not() -> None:
    run, pauses = without_pauses(np.array([10.0, 11.0, 5.0, 6.0, np.nan, 8.0]))
    assert (np.diff(run) >= 0).all()
    assert np.isfinite(run).all()
    assert not len(pauses)


def test_a_day_between_stop_and_resumption_is_cut_out() -> None:
    time = np.concatenate([np.arange(100.0), 86_400 + np.arange(100.0)])
    run, pauses = without_pauses(time)
    assert run[-1] == 199.0
    assert pauses.tolist() == [99.0]
