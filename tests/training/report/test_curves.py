"""Curves: where lines lie, what hovering tells, which axis they get."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sixfold.core.html.charts import Chart, dots_path, line_path
from sixfold.core.html.json_lines import tabulate
from sixfold.training.report.curves import learning_charts, throughput_chart
from sixfold.training.report.record import EVALUATION, TRAINING, Record


def record(losses: list[float], evaluations: dict[str, list[tuple[int, float]]]) -> Record:
    rows = [
        [k, 100.0 + k, k / 10, loss, 0.5, 0.1, 2000.0] for k, loss in enumerate(losses, start=1)
    ]
    return Record(
        name="run",
        config={},
        result={},
        finished=True,
        training=tabulate(rows, TRAINING),
        evaluations={
            part: tabulate([[step, 0, 0, value, 0.5] for step, value in found], EVALUATION)
            for part, found in evaluations.items()
        },
        timelines=[],
    )


def loss_chart(losses: list[float], evaluations: dict[str, list[tuple[int, float]]]) -> Chart:
    return next(c for c in learning_charts(record(losses, evaluations)) if c.id == "loss")


def test_the_line_goes_through_the_values() -> None:
    chart = loss_chart([2.0, 1.0, 0.5], {})
    points = re.findall(r"([\d.]+),([\d.]+)", chart.paths[0].d)
    values = [chart.y.low + (1 - float(y) / 1000) * (chart.y.high - chart.y.low) for _, y in points]
    assert values == pytest.approx([2.0, 1.0, 0.5], abs=0.01)
    steps = [chart.x.low + float(x) / 1000 * (chart.x.high - chart.x.low) for x, _ in points]
    assert steps == pytest.approx([1, 2, 3], abs=0.01)


def test_nan_breaks_a_line_and_lone_points_stay_visible() -> None:
    y = np.array([0.0, np.nan, 1.0, 1.0])
    assert line_path(np.linspace(0, 1, 4), y) == "M0,1000L0,1000M666.7,0L1000,0"
    assert dots_path(np.linspace(0, 1, 4), y).count("M") == 3


def test_hovering_tells_the_newest_evaluation_so_far() -> None:
    chart = loss_chart([1.0] * 10, {"validation": [(3, 0.9), (6, 0.7)]})
    rows = {name: texts for name, _, texts in chart.hover["rows"]}
    assert rows["validation"] == ["\N{EN DASH}"] * 2 + ["0.9"] * 3 + ["0.7"] * 5
    assert rows["training"] == ["1"] * 10
    assert chart.hover["head"][2] == "step 3 · epoch 0.30"


def test_losses_over_orders_of_magnitude_get_a_log_scale() -> None:
    chart = loss_chart(list(np.geomspace(10, 0.001, 40)), {})
    assert chart.y.log
    assert chart.note.startswith("log scale")
    assert not loss_chart([2.0, 1.0, 0.1], {}).y.log


def test_one_spike_does_not_flatten_the_curve() -> None:
    losses = [1.0] * 1000
    losses[500] = 1e6
    assert loss_chart(losses, {}).y.high < 1e6 / 10


def test_evaluations_alone_make_a_chart() -> None:
    chart = loss_chart([], {"test": [(10, 0.4)]})
    assert [key.name for key in chart.keys] == ["test"]
    assert chart.summary == "Loss up to step 10: test 0.4 at the end."


def test_a_constant_learning_rate_needs_no_chart() -> None:
    assert [c.id for c in learning_charts(record([1.0, 2.0], {}))] == ["loss", "accuracy"]


def test_throughput_marks_the_resumption(tmp_path: Path) -> None:
    found = record([1.0] * 100, {})
    found.training["time"][50:] += 10_000
    chart = throughput_chart(found)
    assert chart is not None
    assert len(chart.marks) == 1
    assert chart.marks[0] == pytest.approx(100 * 49 / 99, abs=0.1)
    assert "median 2,000" in chart.note
    assert chart.x_label == "time since the first logged step (s)"
