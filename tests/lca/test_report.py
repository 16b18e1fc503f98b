"""The page of `sixfold lca learn`: the frame of all pages, and charts with axes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sixfold.lca import report
from sixfold.lca.report import render
from sixfold.lca.results import Update


def _run(folder: Path) -> Path:
    updates = [
        Update(
            step=step,
            epoch=step / 8,
            energy=3 - step / 10,
            sparsity=0.9,
            error=0.01,
            code_steps=30.0,
            certified=1.0,
            dead_atoms=0,
            revived=0,
            lr=1.0,
            images=8,
            images_per_s=None,
        )
        for step in range(1, 9)
    ]
    lines = [json.dumps(vars(update)) for update in updates]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "config.json").write_text(json.dumps({"learn": {"steps": 8, "lr": 1.0}}))
    return folder


def test_curves_have_axes_and_settings_the_look_of_all_pages(tmp_path: Path) -> None:
    page = render(_run(tmp_path))
    assert page.count('<figure class="chart">') == 4
    assert '<span class="axis">update</span>' in page
    for label in (">2.2<", ">2.8<"):  # of the energy's axis
        assert label in page, label
    assert ">--steps<" in page
    assert 'class="changed"' in page


def test_a_histogram_keeps_its_counts_between_its_edges() -> None:
    samples = {"histogram": np.array([4.0, 2.0]), "histogram_top": np.array([0.5])}
    sizes, usage = report._bars(samples, np.array([1.0, 5.0, 3.0]))
    assert (sizes.x.low, sizes.x.high) == (0.0, 0.5)
    assert sizes.y.low == 0.0
    assert sizes.hover["rows"][0][2] == ["4", "2"]
    assert usage.hover["rows"][0][2] == ["5", "3", "1"]
    assert usage.hover["at"] == [16.67, 50.0, 83.33]
    assert report._bars({}, None) == []


def test_a_run_without_an_update_is_shown(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    assert "not finished" in render(tmp_path)
