"""What the page of a sweep says of its figures."""

from __future__ import annotations

import pytest

from sixfold.core.statistics import Interval
from sixfold.studies.sweep.plots import exactness
from sixfold.studies.sweep.quality import Cell, Difference, Effect, Level
from sixfold.studies.sweep.report import effect_table, rivals
from sixfold.studies.sweep.scaling import Point, amdahl


def _two(rates: tuple[float, float]) -> str:
    points = [
        Point(values={}, workers=n, batch_size=10, rates=(rate,), images=10, whole_s=(1.0,))
        for n, rate in zip((1, 2), rates, strict=True)
    ]
    law = amdahl(points, 0)
    assert law is not None
    return exactness(law)


def test_a_law_goes_through_its_points_only_where_it_does() -> None:
    assert "goes through all of them, whatever they are" in _two((100.0, 150.0))
    # Two workers are slower than one: that would take a parallel part below 0.
    slower = _two((100.0, 40.0))
    assert "keep it from going through all of them" in slower


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.2, "above"), (-0.2, -0.01, "below"), (-1.0, 0.23, "not told apart")],
)
def test_an_interval_that_holds_0_gives_no_verdict(low: float, high: float, verdict: str) -> None:
    gap = Difference(mean=(low + high) / 2, low=low, high=high, pairs=2)
    levels = [
        Level(value=1, trainings=2, accuracy=0.5),
        Level(value=2, trainings=2, accuracy=0.4, difference=gap),
    ]
    made = effect_table(Effect(name="lr", share_of_variance=None, levels=levels))
    assert [row[3] for row in made.rows] == ["", verdict]


def test_the_best_of_a_sweep_is_told_with_those_that_may_be_as_good() -> None:
    def cell(low: float, high: float) -> Cell:
        return Cell(values={}, loss=0.0, accuracy=Interval(mean=0.5, low=low, high=high, seeds=2))

    best = cell(0.8, 1.0)
    told = rivals(best, [best, cell(0.7, 0.85), cell(0.1, 0.2)])
    assert told == "; intervals of 1 of the 2 others reach into its own"
    assert rivals(best, [best, cell(0.1, 0.2)]) == ""
