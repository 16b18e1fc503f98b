"""The report of a sweep over Spark's delays: curves, parts and laws in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, milliseconds, percent, plain
from sixfold.core.html.charts import Chart
from sixfold.core.html.page import (
    Card,
    Cell,
    Figure,
    Fold,
    Page,
    Part,
    Section,
    Table,
    configuration,
)
from sixfold.studies.sweep.config import SweepDelayConfig
from sixfold.studies.sweep.delay_plan import KINDS, written
from sixfold.studies.sweep.events import TASK_PARTS
from sixfold.studies.sweep.plots import MOST_LINES, Line, chart, interval

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
    failures = [f"{job}: {reason}" for job, reason in sorted(result["failures"].items())]
    return Page(
        title=f"{name} · Sixfold",
        eyebrow="Sixfold: what Spark adds to a job",
        heading=name,
        state="not finished" if failures else "finished",
        good=not failures,
        subtitle="; ".join(
            f"{session['master']}: {session['workers']} workers, started in "
            f"{duration(session['session_s'])}"
            for session in result["sessions"]
        ),
        notes=failures,
        figures=_headline(result),
        sections=[
            Section(
                id="curves",
                title="Curves",
                css="grid",
                blocks=[made for made in charts if made is not None],
            ),
            Section(
                id="jobs",
                title="Jobs",
                lead="Milliseconds, from Spark's event log but for the driver's own clock in "
                "“driver”. Launch: from a stage's submission to its first task. Delay: of a task, "
                "as Spark's web page defines it. Parts: of a task's time from launch to end.",
                keys=[(part.replace("_", " "), colour) for part, colour in COLOURS.items()],
                blocks=[_jobs(points)],
            ),
            Section(
                id="laws",
                title="Laws",
                css="grid",
                lead="Fitted with non-negative coefficients to relative errors; n workers, m "
                "tasks, size in bytes. Intervals: 95% of a bootstrap over the repeats. Held out: "
                "each job predicted from all others.",
                blocks=[_law(law) for law in result["laws"]],
            ),
            configuration(config, SweepDelayConfig, sorted(result["versions"].items())),
        ],
    ).html()


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


def _headline(result: Figures) -> list[Figure]:
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


def _jobs(points: Sequence[Figures]) -> Table:
    rows: list[list[str | Cell]] = []
    for point in points:
        parts = point["parts"]
        whole = sum(parts.values()) or 1.0
        wall = point["wall_s"]
        figures = (
            wall["median"],
            point["job_s"]["median"],
            point["launch_wait_s"],
            point["delay_s"]["median"],
            point["longest_delay_s"],
        )
        driver, *others = map(milliseconds, figures)
        shares = [
            Part(
                colour=COLOURS[name],
                width=round(100 * parts[name] / whole, 2),
                title=f"{name.replace('_', ' ')} {milliseconds(parts[name])} ms",
            )
            for name in TASK_PARTS
        ]
        rows.append(
            [
                point["kind"],
                written(point["payload_bytes"]) if point["payload_bytes"] else "",
                str(point["workers"]),
                str(point["tasks"]),
                driver,
                f"{milliseconds(wall['least'])} to {milliseconds(wall['most'])}",
                *others,
                Cell(parts=shares),
            ]
        )
    head = ("Payload", "Bytes", "Workers", "Tasks", "Driver", "Range", "Job", "Launch", "Delay")
    return Table(head=(*head, "Longest", "Parts of a task"), rows=rows, texts=(0, 10))


def _law(law: Figures) -> Card:
    rows = []
    for point in law["points"]:
        measured, predicted = point["measured_s"]["median"], point["predicted_s"]
        held_out = point["held_out_s"]
        rows.append(
            (
                point["kind"],
                str(point["workers"]),
                str(point["tasks"]),
                written(point["moved_bytes"]),
                milliseconds(measured),
                milliseconds(predicted),
                ""
                if point["low_s"] is None
                else f"{milliseconds(point['low_s'])} to {milliseconds(point['high_s'])}",
                f"{100 * (predicted / measured - 1):+.0f}%",
                ""
                if held_out is None
                else f"{milliseconds(held_out)} ({100 * (held_out / measured - 1):+.0f}%)",
            )
        )
    values = [(one["name"], f"{interval(one)} s") for one in law["coefficients"]]
    if law["held_out_error"] is not None:
        values.append(("error on held-out jobs", percent(law["held_out_error"])))
    outcome = "time of a job" if law["outcome"] == "job" else "scheduler delay of a task"
    coefficients = Table(
        title=f"{law['law'].capitalize()}, {law['kind']}",
        detail=f"{outcome}: {law['formula']}",
        note="No more measurements than coefficients: it says nothing of its own fit."
        if law["exact"]
        else "",
        rows=values,
        css="",
    )
    head = ("Payload", "n", "m", "Size", "Measured", "Predicted", "95%", "Off by", "Held out")
    compared = Fold(
        summary="Predicted and measured, ms",
        blocks=[Table(head=head, rows=rows)],
    )
    return Card(blocks=[coefficients, compared])
