"""Where the time went: means, shares, bars."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sixfold.training.report.record import PHASES, Timeline
from sixfold.training.report.steptime import MAX_BINS, MAX_CHARTS, STACK, step_time


def timeline(rank: int, steps: int, seconds: tuple[float, ...]) -> Timeline:
    return Timeline(
        rank=rank,
        step=np.arange(1.0, steps + 1),
        seconds=np.tile(np.array(seconds), (steps, 1)),
        sampled=1.0,
    )


MEANS = (0.002, 0.014, 0.001, 0.002, 0.001, 0.0)
"""Data, compute, communication, waiting, update, scheduler."""


def test_phases_are_all_shown_once() -> None:
    assert sorted(STACK) == sorted(PHASES)


def test_means_and_shares() -> None:
    found = step_time([timeline(0, 100, MEANS), timeline(1, 100, tuple(2 * s for s in MEANS))])
    assert found is not None
    assert [row[0].text for row in found.table.cells] == ["all ranks", "rank 0", "rank 1"]
    assert [row[1].text for row in found.table.cells] == ["30.0", "20.0", "40.0"]
    by_name = dict(zip(found.table.head, found.table.cells[1], strict=True))
    assert by_name["compute"].detail == "70.0%"
    assert by_name["waiting for data"].text == "2.00"
    for row in found.table.cells:
        assert sum(part.width for part in row[-1].parts) == pytest.approx(100, abs=0.1)
    assert "idle for data 10.0%" in found.verdict
    assert found.note == "Means over 97 steps, without the first 3."


def test_the_first_steps_do_not_count_in_the_means() -> None:
    slow = timeline(0, 50, MEANS)
    slow.seconds[:3] = 10.0
    found = step_time([slow])
    assert found is not None
    assert [row[1].text for row in found.table.cells] == ["20.0"]


def test_bars_are_stacked_up_to_the_whole() -> None:
    found = step_time([timeline(0, 4, MEANS)])
    assert found is not None
    chart = found.charts[0]
    # From the axis' top and the last area's highest edge (small y is high) back to milliseconds.
    top = min(float(y) for y in re.findall(r"V([\d.]+)", chart.paths[-1].d))
    assert (1000 - top) / 1000 * chart.y.high == pytest.approx(0.020, rel=1e-3)
    assert len(chart.hover["at"]) == 4
    assert chart.hover["rows"][-1] == ["compute", "compute", ["14.0 ms"] * 4]


def test_long_runs_are_thinned_and_many_ranks_keep_to_the_table() -> None:
    ranks = [timeline(rank, 3000, MEANS) for rank in range(MAX_CHARTS + 3)]
    found = step_time(ranks)
    assert found is not None
    assert len(found.charts) == MAX_CHARTS
    assert found.hidden == 3
    assert len(found.table.rows) == 1 + len(ranks)
    assert len(found.charts[0].hover["at"]) == MAX_BINS
    assert found.charts[0].hover["head"][-1] == "steps 2,986 to 3,000"


def test_one_step_and_no_time_at_all() -> None:
    assert step_time([]) is None
    found = step_time([timeline(0, 1, (0.0,) * 6)])
    assert found is not None
    assert found.verdict == "The timelines hold no time."
