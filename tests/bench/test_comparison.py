"""Tables of Sixfold beside its peers and the limit: ratios by repeat, shares, and the files."""

import json
from pathlib import Path
from typing import Any

from benchmarks.bench.comparison import Comparison, as_json, table
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
