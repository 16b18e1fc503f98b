"""The roofline of Spark as one HTML file: roofs, and what was measured beneath and above them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, logarithmic, percent
from sixfold.core.html.charts import COLOURS, Chart, Series
from sixfold.studies.sweep.plots import MOST_LINES
from sixfold.training.report import render_page

Figures = Mapping[str, Any]


def write_page(path: Path, result: Figures) -> None:
    """Write the page.

    Args:
        path: of the file.
        result: figures as `result.json` holds them.

    Raises:
        RunError: if the file cannot be written.
    """
    write_atomically(path, render(path.parent.name, result).encode())


def render(name: str, result: Figures) -> str:
    """The page as text."""
    return render_page(
        __package__,
        "roofline.html",
        name=name,
        subtitle=f"{result['machine']['processor']}, {result['precision']}; Spark "
        + ", ".join(session["master"] for session in result["sessions"]),
        charts=[_chart(panel, number) for number, panel in enumerate(result["panels"])],
        roofs=[_roof(roof) for panel in result["panels"] for roof in panel["roofs"]],
        rows=[_row(point) for panel in result["panels"] for point in panel["points"]],
        left_out=result["left_out"],
        versions=sorted(result["versions"].items()),
    )


def flops(value: float) -> str:
    """Operations, or operations a second, with a prefix.

    >>> flops(2.5e9), flops(930), flops(1.2e13)
    ('2.5 G', '930', '12 T')
    """
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def _chart(panel: Figures, number: int) -> Chart:
    xs, points = panel["task_flops"], panel["points"]
    values = [value for roof in panel["roofs"] for value in roof["flops"]]
    values += [point["flops"] for point in points]
    series = [
        Series(name=roof["name"], x=xs, y=roof["flops"], colour=COLOURS[k % MOST_LINES])
        for k, roof in enumerate(panel["roofs"])
    ]
    groups = list(dict.fromkeys(point["group"] for point in points))
    for k, group in enumerate(groups, start=len(series)):
        own = [point for point in points if point["group"] == group]
        series.append(
            Series(
                name=group,
                x=[point["task_flops"] for point in own],
                y=[point["flops"] for point in own],
                colour=COLOURS[k % MOST_LINES],
                kind="dots",
                hover=False,
            )
        )
    return Chart(
        id=f"roofline-{number}",
        title=f"{panel['workers']} worker{'' if panel['workers'] == 1 else 's'}",
        note="operations a second that all workers reach; lines: ceilings, dots: measured",
        summary=f"Roofline of Spark with {panel['workers']} workers and {len(points)} points.",
        x=logarithmic(min(xs), max(xs), flops),
        y=logarithmic(min(values), max(values), flops),
        x_label="operations of a task (log)",
        series=series,
        write=lambda value: f"{flops(value)}FLOP/s",
        head=lambda value: f"tasks of {flops(value)}FLOP",
    )


def _roof(roof: Figures) -> dict[str, str]:
    free = roof["overhead_s"] == 0
    return {
        "name": roof["name"],
        "workers": str(roof["workers"]),
        "peak": f"{flops(roof['workers'] * roof['peak_flops'])}FLOP/s",
        "overhead": "" if free else duration(roof["overhead_s"]),
        "ridge": "" if free else f"{flops(roof['ridge_flops'])}FLOP",
        "ridge_s": "" if free else duration(roof["ridge_flops"] / roof["peak_flops"]),
    }


def _row(point: Figures) -> dict[str, str]:
    per_step = point.get("job_per_step_flops")
    return {
        "name": point["name"],
        "group": point["group"],
        "workers": str(point["workers"]),
        "task": f"{flops(point['task_flops'])}FLOP",
        "reached": f"{flops(point['flops'])}FLOP/s",
        "machine": percent(point["part_of_machine"]),
        "spark": f"{flops(point['spark_flops'])}FLOP/s",
        "times": _times(point["times_spark"]),
        "job_per_step": "" if per_step is None else _times(point["flops"] / per_step),
    }


def _times(value: float) -> str:
    """How many times, in three digits.

    >>> _times(0.5), _times(123.4)
    ('0.5', '123')
    """
    return f"{value:.3g}" if math.isfinite(value) else ""
