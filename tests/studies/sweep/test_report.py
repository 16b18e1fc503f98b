"""What the page of a sweep says of its figures."""

from __future__ import annotations

import pytest

from sixfold.studies.sweep import report
from sixfold.studies.sweep.scaling import Point, amdahl


def _two(rates: tuple[float, float]) -> str:
    points = [
        Point(values={}, workers=n, batch_size=10, rates=(rate,), images=10, whole_s=(1.0,))
        for n, rate in zip((1, 2), rates, strict=True)
    ]
    law = amdahl(points, 0)
    assert law is not None
    return str(report._law(law).blocks[0].note)


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
    gap = {"mean": (low + high) / 2, "low": low, "high": high, "pairs": 2}
    levels: list[dict[str, object]] = [{"value": 1, "trainings": 2, "accuracy": 0.5}]
    levels.append({"value": 2, "trainings": 2, "accuracy": 0.4, "difference": gap})
    made = report._effect({"name": "lr", "share_of_variance": None, "levels": levels})
    assert [row[3] for row in made.rows] == ["", verdict]


def test_the_best_of_a_sweep_is_told_with_those_that_may_be_as_good() -> None:
    def cell(low: float, high: float) -> dict[str, object]:
        return {"accuracy": {"low": low, "high": high}}

    best = cell(0.8, 1.0)
    told = report._rivals(best, [best, cell(0.7, 0.85), cell(0.1, 0.2)])
    assert told == "; intervals of 1 of the 2 others reach into its own"
    assert report._rivals(best, [best, cell(0.1, 0.2)]) == ""
