"""The section on merges: what a run directory says of them, whole, damaged or strange."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.html.page import Cell
from sixfold.training.config import TrainConfig
from sixfold.training.report import write_report
from sixfold.training.report.merging import MAX_ROUNDS, merge_section
from sixfold.training.report.record import Record, read_record
from sixfold.training.run import train

MakeRun = Callable[..., Path]
Configure = Callable[..., TrainConfig]


def merge(step: int, **more: Any) -> dict[str, Any]:
    layer = {"absolute": [0.01, 0.02], "percent": [5.0, 15.0], "agreement": 0.75}
    return {
        "step": step,
        "round": step // 10,
        "aggregation": "mean",
        "examples": [100, 90],
        "layers": {"all weights": layer, "features.0.weight": layer},
    } | more


def texts(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    return [(cell.text, cell.detail) for cell in cells]


def section_of(folder: Path, *merges: Any) -> tuple[Record, Any]:
    text = "".join(json.dumps(line) + "\n" for line in merges)
    (folder / "merges.jsonl").write_text(text)
    record = read_record(folder)
    return record, merge_section(record)


def test_a_run_without_merges_has_no_section(make_run: MakeRun) -> None:
    folder = make_run()
    assert merge_section(read_record(folder)) is None
    assert 'id="merges"' not in write_report(folder).read_text()


def test_every_merge_has_a_table_the_last_first(make_run: MakeRun) -> None:
    _, section = section_of(make_run(), *[merge(step) for step in (10, 20, 30)])
    assert [fold.summary for fold in section.tables] == [
        f"Merge {n}, after step {10 * n}" for n in (3, 2, 1)
    ]
    rows = section.tables[0].blocks[0].cells
    assert [row[0].text for row in rows] == ["all weights", "features.0.weight"]
    assert texts(rows[0][1:]) == [
        ("0.015", "0.01 to 0.02"),
        ("10%", "5% to 15%"),
        ("75.0%", ""),
    ]
    for workers in (section.workers, *(fold.blocks[1] for fold in section.tables[1:])):
        assert [row[0] for row in workers.rows] == ["worker 0", "worker 1"]
    assert section.workers.rows[1][1:] == ["90", "15%", "0.02"]


def test_a_serial_run_stands_beside_the_workers(make_run: MakeRun) -> None:
    folder = make_run()
    result = json.loads((folder / "result.json").read_text())
    result |= {"serial_test_accuracy": 0.61, "workers_test_accuracy": [0.5, 0.55]}
    result["test_accuracy"] = 0.58
    (folder / "result.json").write_text(json.dumps(result))
    serial = {"absolute": [1, 2], "percent": [3, 4], "absolute_all": 5, "percent_all": 6}
    layers = {"all weights": serial, "features.0.weight": serial}
    _, section = section_of(folder, merge(10, serial={"layers": layers, "cosine": 0.9}))
    assert "ends at 61.00%" in section.lead
    assert "the merged network at 58.00%" in section.lead
    assert section.workers.head[-1] == "test accuracy"
    named = {row[0]: row for row in section.workers.rows}
    assert named["worker 1"][-1] == "55.00%"
    assert named["serial, all images"][-1] == "61.00%"
    assert named["merged"][-1] == "58.00%"
    assert texts(section.tables[0].blocks[0].cells[1][-2:]) == [("3.5%", "3% to 4%"), ("6%", "")]
    assert len(section.charts) == 2
    assert "by chance 75.0%" in section.charts[1].note
    assert {key.name for key in section.charts[0].keys} >= {"serial, all images"}


def test_moved_maps_are_counted(make_run: MakeRun) -> None:
    folder = make_run()
    still = {"moved": {"features.0": [0, 0]}, "maps": {"features.0": 32}}
    _, section = section_of(folder, merge(10, **still))
    assert "Of 64 feature maps" in section.lead
    assert "their order was preserved" in section.lead
    _, section = section_of(folder, merge(10, **still | {"moved": {"features.0": [2, 0]}}))
    assert "2 had moved." in section.lead
    assert texts(section.tables[0].blocks[0].cells[1][-1:]) == [("2", "2 0")]


def test_many_merges_are_thinned_out_and_that_is_told(make_run: MakeRun) -> None:
    folder = make_run()
    _, section = section_of(folder, *[merge(step) for step in range(1, 101)])
    assert len(section.tables) == MAX_ROUNDS
    assert section.hidden == 100 - MAX_ROUNDS
    assert "60 merges in between" in write_report(folder).read_text()


@pytest.mark.parametrize(
    "line",
    [
        {"step": 10},
        merge(10, layers=[1, 2]),
        merge(10, layers={"all weights": {"percent": "much", "absolute": [None], "x": {}}}),
        merge(10, serial=7, moved=[1], taken={"features.0": "x"}, scores=[1, [None]]),
        merge(10, moved={"features.0": [1, None]}, maps={"features.0": "many"}, examples={}),
        merge(10, layers={"all weights": {"percent": [1e300, -5]}, "<b>": {"absolute": [1]}}),
    ],
)
def test_strange_lines_never_break_the_report(make_run: MakeRun, line: dict[str, Any]) -> None:
    folder = make_run()
    section_of(folder, line)
    page = write_report(folder).read_text()
    assert "<b>:" not in page
    (folder / "merges.jsonl").write_text('{"step": 1, "lay\n[1]\n{"step": "x"}\n')
    assert "3 lines of merges.jsonl could not be read" in write_report(folder).read_text()


def test_a_real_run_has_the_section(configure: Configure, tmp_path: Path) -> None:
    config = configure(
        out=str(tmp_path / "run"),
        strategy="local_sgd",
        local_steps=2,
        workers=2,
        compare_serial=True,
        align=True,
        aggregation="map_delta",
    )
    train(config)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Merges" in page
    assert "3 merges by the rule map delta." in page
    assert "maps taken" in page
    assert "serial, all images" in page
