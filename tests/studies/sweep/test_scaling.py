"""Speed-up, efficiency and the laws, from rates that follow them."""

from typing import Any

import pytest

from sixfold.studies.sweep.fits import FittedLaw, LawPoint, ScaledPoint, Spread
from sixfold.studies.sweep.scaling import (
    Point,
    amdahl,
    ernest,
    ernest_whole,
    gustafson,
    series,
    speedups,
)


def point(n: int, batch: int, *rates: float, **values: Any) -> Point:
    return Point(
        values={"workers": n, "batch_size": batch, **values},
        workers=n,
        batch_size=batch,
        rates=rates,
    )


def test_ratios_are_of_the_same_repeat() -> None:
    own = [point(1, 10, 100.0, 200.0, 150.0), point(2, 10, 190.0, 300.0, 285.0)]
    alone, two = speedups(own)
    assert alone is not None
    assert two is not None
    assert alone[0] == Spread(median=1.0, least=1.0, most=1.0)
    assert two[0] == Spread(median=1.9, least=1.5, most=1.9)
    assert two[1].median == pytest.approx(0.95)
    assert speedups([own[1]]) == [None]


def test_series_differ_in_the_named_settings_only() -> None:
    points = [
        point(n, b, 1.0, strategy=s) for n in (4, 1) for b in (10, 20) for s in ("sync", "hogwild")
    ]
    found = series(points, "workers")
    assert len(found) == 4
    assert all([p.workers for p in own] == [1, 4] for own in found)
    assert len(series(points, "workers", "batch_size")) == 2


def serial_part(law: FittedLaw) -> float:
    assert law.serial_part is not None
    return law.serial_part.value


def amdahls(n: int, batch: int, serial: float) -> float:
    """Rate where a step of a batch takes batch (s + (1 - s)/n) ms."""
    return 1000 / (serial + (1 - serial) / n)


def test_amdahls_serial_part_is_found() -> None:
    own = [point(n, 10, *[amdahls(n, 10, 0.1)] * 3) for n in (1, 2, 4, 8)]
    found = amdahl(own, 50)
    assert found is not None
    assert serial_part(found) == pytest.approx(0.1)
    assert found.most_speedup == pytest.approx(10)
    assert not found.exact
    assert found.held_out_error == pytest.approx(0, abs=1e-9)
    for entry in found.points:
        assert isinstance(entry, LawPoint)
        assert entry.predicted_s == pytest.approx(entry.measured_s.median)
    assert amdahl(own[:1], 0) is None
    two = amdahl(own[:2], 0)
    assert two is not None
    assert two.exact
    assert two.serial_part is not None
    assert two.serial_part.low is None


def test_gustafsons_serial_part_is_found_where_batches_grow() -> None:
    def rate(n: int) -> float:
        return 500 * (n - 0.2 * (n - 1))

    own = [point(n, 10 * n, rate(n), rate(n)) for n in (1, 2, 4)] + [point(4, 10, 9.0, 9.0)]
    (found,) = gustafson(own, 20)
    assert serial_part(found) == pytest.approx(0.2)
    assert all(isinstance(entry, ScaledPoint) for entry in found.points)
    assert [entry.workers for entry in found.points] == [2, 4]
    assert found.batch_per_worker == 10
    assert gustafson(own[1:], 20) == []


def test_ernest_predicts_what_was_left_out() -> None:
    def rate(n: int, batch: int) -> float:
        return batch / (1e-3 + 1e-4 * batch / n + 2e-4 * n)

    own = [point(n, b, rate(n, b)) for n in (1, 2, 4) for b in (10, 100, 1000)]
    found = ernest(own, 0)
    assert found is not None
    assert found.held_out_error == pytest.approx(0, abs=1e-6)
    assert found.value("per_size_s") == pytest.approx(1e-4)
    assert found.value("per_worker_s") == pytest.approx(2e-4)
    assert ernest(own[:3], 0) is None


def test_whole_trainings_follow_ernest_over_workers_and_images() -> None:
    own = [
        Point(
            values={"workers": n, "max_images": images},
            workers=n,
            batch_size=10,
            rates=(1.0,),
            images=images,
            whole_s=(2.0 + 1e-3 * images / n + 0.1 * n,),
        )
        for n in (1, 2, 4)
        for images in (1000, 5000)
    ]
    found = ernest_whole(own, 0)
    assert found is not None
    assert found.value("per_size_s") == pytest.approx(1e-3)
    assert found.values == {}
    first = found.points[0]
    assert isinstance(first, LawPoint)
    assert first.measured_s.median == pytest.approx(3.1)
    assert ernest_whole(own[:1], 0) is None
