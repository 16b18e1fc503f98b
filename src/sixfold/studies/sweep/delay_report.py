"""The report of a sweep over Spark's delays: curves, parts and laws in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, milliseconds, percent, plain
from sixfold.core.html.charts import Chart
from sixfold.core.html.settings import setting_sections
from sixfold.studies.sweep.config import SweepDelayConfig
from sixfold.studies.sweep.delay_plan import KINDS, written
from sixfold.studies.sweep.events import TASK_PARTS
from sixfold.studies.sweep.plots import MOST_LINES, Line, chart
from sixfold.training.report import render_page

COLOURS = dict(
    zip(
        TASK_PARTS,
        ("waiting", "data", "compute", "update", "communication"),
        strict=True,
    )
)
"""Part of a task to its colour's class."""

Figures = Mapping[str, Any]


def write_page(path: Path, config: Figures, result: Figures) -> None:
    """Write the report.

    Args:
        path: of the file.
        config: settings as `config.json` holds them.
        result: figures as `result.json` holds them.

    Raises:
        RunError: if the file cannot be written.
    """
    write_atomically(path, render(path.parent.name, config, result).encode())


def render(name: str, config: Figures, result: Figures) -> str:
    """The page as text."""
    points = result["points"]
    charts = [
        _over_tasks(points, "wall_s", "Milliseconds of an empty job", "what the driver waits"),
        _over_tasks(points, "delay_s", "Scheduler delay of a task", "milliseconds, mean of a job"),
        *(_over_bytes(points, kind) for kind in KINDS if kind != "empty"),
    ]
    return render_page(
        __package__,
        "delay.html",
        name=name,
        subtitle="; ".join(
            f"{session['master']}: {session['workers']} workers, started in "
            f"{duration(session['session_s'])}"
            for session in result["sessions"]
        ),
        failures=sorted(result["failures"].items()),
        figures=_headline(result),
        charts=[made for made in charts if made is not None],
        kinds=KINDS,
        colours=COLOURS,
        rows=[_row(point) for point in points],
        laws=[_law(law) for law in result["laws"]],
        sections=setting_sections(config, SweepDelayConfig),
        versions=sorted(result["versions"].items()),
    )


def _over_tasks(points: Sequence[Figures], figure: str, title: str, note: str) -> Chart | None:
    lines = []
    for workers in sorted({point["workers"] for point in points})[:MOST_LINES]:
        own = [p for p in points if p["workers"] == workers and p["kind"] == "empty"]
        own.sort(key=lambda point: float(point["tasks"]))
        lines.append(_line(f"{workers} workers", [p["tasks"] for p in own], own, figure))
    return chart(figure, title, f"{note}; bars: least to most", lines, x_label="tasks (log)")


def _over_bytes(points: Sequence[Figures], kind: str) -> Chart | None:
    """Time of jobs over the bytes that they move, at the fewest and the most tasks."""
    own = [point for point in points if point["kind"] == kind]
    lines = []
    for workers, tasks in sorted({(p["workers"], p["tasks"]) for p in own}):
        same = [p for p in own if (p["workers"], p["tasks"]) == (workers, tasks)]
        same.sort(key=lambda point: float(point["moved_bytes"]))
        name = f"{workers} workers, {tasks} tasks"
        lines.append(_line(name, [p["moved_bytes"] / 2**20 for p in same], same, "wall_s"))
    return chart(
        kind,
        f"Milliseconds of a job: {KINDS[kind]}",
        "bars: least to most",
        lines[:MOST_LINES],
        x_label="MB moved in all (log)",
        log_y=True,
    )


def _line(name: str, x: Sequence[float], own: Sequence[Figures], figure: str) -> Line:
    return Line(
        name=name,
        x=x,
        y=[1000 * point[figure]["median"] for point in own],
        low=[1000 * point[figure]["least"] for point in own],
        high=[1000 * point[figure]["most"] for point in own],
    )


def _headline(result: Figures) -> list[tuple[str, str, str]]:
    empty = [point for point in result["points"] if point["kind"] == "empty"]
    found = []
    if empty:
        least = min(empty, key=lambda point: float(point["wall_s"]["median"]))
        found.append(
            (
                "Smallest job",
                f"{milliseconds(least['wall_s']['median'])} ms",
                f"{least['tasks']} tasks on {least['workers']} workers; scheduler delay of a task "
                f"{milliseconds(least['delay_s']['median'])} ms",
            )
        )
    for law in result["laws"]:
        if (law["law"], law["outcome"], law["kind"]) == ("load/overhead", "job", "empty"):
            values = {one["name"]: one["value"] for one in law["coefficients"]}
            found += [
                ("Each job", f"{milliseconds(values['job_s'])} ms", "whatever it holds"),
                (
                    "Each task",
                    f"{milliseconds(values['task_s'])} ms",
                    f"in the driver, one after another; and {milliseconds(values['wave_s'])} ms "
                    "for each round of tasks",
                ),
            ]
    found.append(
        (
            "Jobs",
            plain(sum(len(point["runs"]) for point in result["points"])),
            f"{len(result['points'])} kinds, {len(result['points'][0]['runs'])} repeats of each"
            if result["points"]
            else "",
        )
    )
    return found


def _row(point: Figures) -> dict[str, Any]:
    parts = point["parts"]
    whole = sum(parts.values()) or 1.0
    return {
        "kind": point["kind"],
        "size": written(point["payload_bytes"]) if point["payload_bytes"] else "",
        "workers": point["workers"],
        "tasks": point["tasks"],
        "wall": milliseconds(point["wall_s"]["median"]),
        "range": f"{milliseconds(point['wall_s']['least'])} to "
        f"{milliseconds(point['wall_s']['most'])}",
        "job": milliseconds(point["job_s"]["median"]),
        "launch": milliseconds(point["launch_wait_s"]),
        "delay": milliseconds(point["delay_s"]["median"]),
        "longest": milliseconds(point["longest_delay_s"]),
        "parts": [
            (
                name.replace("_", " "),
                COLOURS[name],
                round(100 * parts[name] / whole, 2),
                milliseconds(parts[name]),
            )
            for name in TASK_PARTS
        ],
    }


def _law(law: Figures) -> dict[str, Any]:
    rows = []
    for point in law["points"]:
        measured, predicted = point["measured_s"]["median"], point["predicted_s"]
        held_out = point["held_out_s"]
        rows.append(
            {
                "kind": point["kind"],
                "workers": point["workers"],
                "tasks": point["tasks"],
                "size": written(point["moved_bytes"]),
                "measured": milliseconds(measured),
                "predicted": milliseconds(predicted),
                "interval": ""
                if point["low_s"] is None
                else f"{milliseconds(point['low_s'])} to {milliseconds(point['high_s'])}",
                "error": f"{100 * (predicted / measured - 1):+.0f}%",
                "held_out": ""
                if held_out is None
                else f"{milliseconds(held_out)} ({100 * (held_out / measured - 1):+.0f}%)",
            }
        )
    error = law["held_out_error"]
    return {
        "name": f"{law['law'].capitalize()}, {law['kind']}",
        "outcome": "time of a job" if law["outcome"] == "job" else "scheduler delay of a task",
        "formula": law["formula"],
        "values": [
            (
                one["name"],
                f"{one['value']:.3g} s"
                + ("" if one["low"] is None else f" ({one['low']:.3g} to {one['high']:.3g})"),
            )
            for one in law["coefficients"]
        ],
        "error": "" if error is None else percent(error),
        "exact": law["exact"],
        "rows": rows,
    }
