"""Tables of Sixfold beside its peers and the limit: ratios by repeat, shares, and the files."""

import json
from pathlib import Path
from typing import Any

from benchmarks.bench.comparison import Comparison, Spread, as_json, spread, table
from benchmarks.bench.options import TrainBenchConfig
from benchmarks.bench.publish import begin, publish


def times() -> Comparison:
    found = Comparison(
        title="sums",
        unit="us",
        form=".1f",
        less_is_better=True,
        what={"sixfold": "ours", "peer": "theirs <b>", "other": "none"},
        limit_name="copy",
    )
    found.extend("sixfold", "4 KB", [2.0, 1.0, None])
    found.extend("peer", "4 KB", [8.0, 8.0, 8.0])
    found.extend("other", "4 KB", [None, None, None])
    found.limits["4 KB"] = 0.75
    found.notes.append("a note")
    return found


def test_ratios_are_taken_repeat_by_repeat_and_above_1_means_better() -> None:
    found = times()
    ratio = found.ratio("peer", "4 KB")
    assert ratio is not None
    assert (ratio.least, ratio.median, ratio.most) == (4.0, 6.0, 8.0)
    assert found.ratio("other", "4 KB") is None
    assert found.share("4 KB") == 0.5


def test_of_rates_more_is_better() -> None:
    found = Comparison(
        title="rates", unit="images/s", form=".0f", less_is_better=False,
        what={"sixfold": "", "peer": ""},
    )  # fmt: skip
    found.extend("sixfold", "B = 10", [300.0])
    found.extend("peer", "B = 10", [100.0])
    found.limits["B = 10"] = 600.0
    ratio = found.ratio("peer", "B = 10")
    assert ratio is not None
    assert ratio.median == 3.0
    assert found.share("B = 10") == 0.5


def test_table_and_json_hold_every_sample_limit_and_note() -> None:
    lines = table(times())
    assert lines[0] == "sums, us: median (least - most)"
    assert lines[-1] == "a note"
    assert "1.5 (1.0 - 2.0)" in lines[2]
    assert "absent" in lines[2]
    assert lines[2].endswith("50%")
    rows: Any = as_json(times())["rows"]
    (row,) = rows
    assert row["measured"]["sixfold"]["samples"] == [2.0, 1.0, None]
    assert row["limit"] == 0.75


def test_published_files_are_complete_and_escaped(tmp_path: Path) -> None:
    said: list[str] = []
    publish(begin("sums", str(tmp_path / "out")), TrainBenchConfig(), [times()], said.append)
    record = json.loads((tmp_path / "out" / "sums.json").read_text())
    assert record["tables"][0]["rows"][0]["case"] == "4 KB"
    page = (tmp_path / "out" / "sums.html").read_text()
    assert "theirs &lt;b&gt;" in page
    assert "sixfold is 6.00 (4.00 to 8.00) times better" in page
    assert said[-1].startswith("written: ")


def test_spread_is_median_least_and_most() -> None:
    assert spread([5.0]) == Spread(median=5, least=5, most=5)
    assert spread([1.0, 9.0, 2.0]) == Spread(median=2, least=1, most=9)


def test_a_repeat_that_failed_does_not_shift_the_pairs() -> None:
    found = times()
    found.samples.clear()
    found.extend("sixfold", "4 KB", [1.0, 2.0, 3.0])
    found.add("peer", "4 KB", 1.0)
    found.fail("peer", "4 KB", "hung")
    found.add("peer", "4 KB", 9.0)
    assert found.ratio("peer", "4 KB") == Spread(median=2.0, least=1.0, most=3.0)
    assert found.troubles() == ["peer failed 1 of 3 times: hung"]
    assert not found.is_out("peer")
    found.fail("peer", "4 KB", "hung again")
    assert found.is_out("peer")
    assert table(found)[-1] == "peer failed 2 of 4 times: hung again"


def test_who_fails_at_once_is_out() -> None:
    found = times()
    found.fail("other", "4 KB", "no Java")
    assert found.is_out("other")
    assert not found.is_out("sixfold")
    assert found.troubles() == ["other absent: no Java"]
    assert as_json(found)["failures"] == {"other": ["no Java"]}


def test_each_contender_is_held_against_the_fastest_of_its_rivals() -> None:
    found = Comparison(
        title="x",
        unit="images/s",
        form=".0f",
        less_is_better=False,
        what=dict.fromkeys(("own", "slow", "fast", "narrow", "narrow peer"), ""),
        rivals={"own": ("slow", "fast", "gone"), "narrow": ("slow", "fast", "narrow peer")},
    )
    samples = {"own": 30, "slow": 10, "fast": 20, "narrow": 60, "narrow peer": 40}
    for name, value in samples.items():
        found.extend(name, "row", [value, 2.0 * value])
    assert (found.fastest("own", "row"), found.fastest("narrow", "row")) == ("fast", "narrow peer")
    assert found.fastest("slow", "row") is None
    lines = table(found)
    assert "own vs the fastest" in lines[1]
    assert "1.50 (1.50 - 1.50) fast" in lines[2]
    assert "1.50 (1.50 - 1.50) narrow peer" in lines[2]
    found.less_is_better = True
    assert found.fastest("own", "row") == "slow"
