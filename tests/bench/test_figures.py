"""The arithmetic and the table."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.bench.figures import Results, Spread, as_json, spread, steps_for, table


def results() -> Results:
    found = Results(contenders=("sixfold", "eager", "ddp"), batches=(10, 100))
    for mine, theirs in ((100.0, 50.0), (300.0, 100.0), (200.0, 400.0)):
        found.add("sixfold", 10, mine)
        found.add("eager", 10, theirs)
    found.add("sixfold", 100, 1234.6)
    found.add("eager", 100, 1000.0)
    found.fail("ddp", 10, "no Java")
    return found


def test_spread_is_median_least_and_most() -> None:
    assert spread([5.0]) == Spread(median=5, least=5, most=5)
    assert spread([1.0, 9.0, 2.0]) == Spread(median=2, least=1, most=9)


def test_ratios_are_taken_repeat_by_repeat() -> None:
    # 2, 3 and 0.5: their median is not the ratio of the medians (200 / 100).
    found = results()
    assert found.ratios("eager", 10) == Spread(median=2.0, least=0.5, most=3.0)
    assert found.rates("sixfold", 10) == Spread(median=200, least=100, most=300)
    assert found.ratios("ddp", 10) is None


def test_a_repeat_that_failed_does_not_shift_the_pairs() -> None:
    found = Results(contenders=("sixfold", "ddp"), batches=(10,))
    for rate in (10.0, 20.0, 30.0):
        found.add("sixfold", 10, rate)
    found.add("ddp", 10, 10.0)
    found.fail("ddp", 10, "hung")
    found.add("ddp", 10, 10.0)
    assert found.ratios("ddp", 10) == Spread(median=2.0, least=1.0, most=3.0)
    assert found.troubles() == ["ddp failed 1 of 3 times: hung"]
    assert not found.is_out("ddp")
    found.fail("ddp", 10, "hung again")
    assert found.is_out("ddp")


def test_who_fails_at_once_is_out() -> None:
    found = results()
    assert found.is_out("ddp")
    assert not found.is_out("eager")
    assert found.troubles() == ["ddp absent: no Java"]


def test_the_table_shows_medians_ranges_ratios_and_who_is_absent() -> None:
    assert table(results()) == [
        "images/s and ratios: median (least - most)",
        "batch                sixfold                  eager     ddp            vs eager  vs ddp",
        "   10        200 (100 - 300)         100 (50 - 400)  absent  2.00 (0.50 - 3.00)  absent",
        "  100  1,235 (1,235 - 1,235)  1,000 (1,000 - 1,000)  absent  1.23 (1.23 - 1.23)  absent",
        "ddp absent: no Java",
    ]


def test_json_holds_every_sample() -> None:
    plain = as_json(results())
    rows = plain["rows"]
    assert isinstance(rows, list)
    assert rows[0]["images_per_s"]["eager"]["samples"] == [50.0, 100.0, 400.0]
    assert rows[0]["ratios"]["eager"]["median"] == 2.0
    assert rows[0]["images_per_s"]["ddp"] == {"samples": [None]}
    assert plain["failures"] == {"ddp": ["no Java"]}


@pytest.mark.parametrize(
    ("seconds", "rate", "batch", "steps"),
    [(1.0, 1000.0, 10, 103), (1.0, 10.0, 1000, 8), (0.001, 1.0, 1, 8)],
)
def test_steps_fill_the_time_but_never_fall_below_five(
    seconds: float, rate: float, batch: int, steps: int
) -> None:
    assert steps_for(seconds, rate, batch, 3) == steps


def test_the_share_of_the_limit_stands_in_table_and_json() -> None:
    found = Results(contenders=("sixfold", "eager"), batches=(10,), limit=400.0)
    found.add("sixfold", 10, 100.0)
    lines = table(found)
    assert lines[1].endswith("of the limit")
    assert lines[2].endswith("25%")
    assert lines[3].startswith("limit: 400 images/s")
    rows: Any = as_json(found)["rows"]
    assert rows[0]["share_of_limit"] == 0.25
