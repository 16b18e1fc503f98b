"""The page of a sweep over Spark's delays, and what the terminal shows of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.byte_sizes import written
from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, milliseconds, plain
from sixfold.core.html.charts import Chart
from sixfold.core.html.page import Cell, Figure, Page, Section, Table, configuration
from sixfold.core.run_directory import typed
from sixfold.studies.sweep.config import SweepDelayConfig
from sixfold.studies.sweep.delay import LOAD, DelayPoint, DelayResult
from sixfold.studies.sweep.delay_plan import KINDS
from sixfold.studies.sweep.events import TASK_PARTS
from sixfold.studies.sweep.fits import LawPoint, ScaledPoint
from sixfold.studies.sweep.plots import (
    MOST_LINES,
    chart,
    law_card,
    law_text,
    measured,
    shares,
    span,
)
from sixfold.studies.sweep.results import Ending

_COLOURS = ("waiting", "data", "compute", "update", "communication")
COLOURS = dict(zip(TASK_PARTS, _COLOURS, strict=True))  # part of a task to its colour's class
_OUTCOMES = {"job": "time of a job", "delay": "scheduler delay of a task"}


def write_page(run: Path, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write `report.html` from settings and result as their files hold them."""
    found, ending = typed(DelayResult, result), typed(Ending, result)
    failures = [f"{job}: {reason}" for job, reason in sorted(ending.failures.items())]
    charts = [
        _over_tasks(
            found.points, "wall_s", "Milliseconds of an empty job", "what the driver waits"
        ),
        _over_tasks(
            found.points, "delay_s", "Scheduler delay of a task", "milliseconds, mean of a job"
        ),
        *(_over_bytes(found.points, kind) for kind in KINDS if kind != "empty"),
    ]
    page = Page(
        title=f"{run.name} · Sixfold",
        eyebrow="Sixfold: what Spark adds to a job",
        heading=run.name,
        state="not finished" if failures else "finished",
        good=not failures,
        subtitle="; ".join(
            f"{one.master}: {one.workers} workers, started in {duration(one.session_s)}"
            for one in found.sessions
        ),
        notes=failures,
        figures=_figures(found),
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
                blocks=[_jobs(found.points)],
            ),
            Section(
                id="laws",
                title="Laws",
                css="grid",
                lead="Fitted with non-negative coefficients to relative errors; n workers, m "
                "tasks, size in bytes. Intervals: 95% of a bootstrap over the repeats. Held out: "
                "each job predicted from all others.",
                blocks=[
                    law_card(
                        law,
                        ("Payload", "n", "m", "Size"),
                        _place,
                        title=f"{law.law.capitalize()}, {law.kind}",
                        detail=f"{_OUTCOMES[law.outcome]}: {law.formula}",
                    )
                    for law in found.laws
                ],
            ),
            configuration(config, SweepDelayConfig, sorted(ending.versions.items())),
        ],
    )
    write_atomically(run / "report.html", page.html().encode())


def delay_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a sweep over delays, times in milliseconds, and its laws."""
    found = typed(DelayResult, result)
    laws = [law_text(law) for law in found.laws]
    return [*_jobs(found.points).lines(), *laws, f"report  {result['report']}"]


def _over_tasks(points: Sequence[DelayPoint], figure: str, title: str, note: str) -> Chart | None:
    series = []
    for number, workers in enumerate(sorted({p.workers for p in points})[:MOST_LINES]):
        own = [p for p in points if p.workers == workers and p.kind == "empty"]
        own.sort(key=lambda point: point.tasks)
        spreads = [getattr(p, figure) for p in own]
        name = f"{workers} workers"
        series.append(measured(number, name, [p.tasks for p in own], spreads, 1000))
    return chart(figure, title, f"{note}; bars: least to most", series, x_label="tasks (log)")


def _over_bytes(points: Sequence[DelayPoint], kind: str) -> Chart | None:
    """Time of jobs over the bytes that they move, at the fewest and the most tasks."""
    own = sorted((p for p in points if p.kind == kind), key=lambda point: point.moved_bytes)
    series = []
    places = sorted({(p.workers, p.tasks) for p in own})[:MOST_LINES]
    for number, (workers, tasks) in enumerate(places):
        same = [p for p in own if (p.workers, p.tasks) == (workers, tasks)]
        x, spreads = [p.moved_bytes / 2**20 for p in same], [p.wall_s for p in same]
        series.append(measured(number, f"{workers} workers, {tasks} tasks", x, spreads, 1000))
    return chart(
        kind,
        f"Milliseconds of a job: {KINDS[kind]}",
        "bars: least to most",
        series,
        x_label="MB moved in all (log)",
        log_y=True,
    )


def _figures(result: DelayResult) -> list[Figure]:
    points, found = result.points, []
    empty = [point for point in points if point.kind == "empty"]
    if empty:
        least = min(empty, key=lambda point: point.wall_s.median)
        detail = (
            f"{least.tasks} tasks on {least.workers} workers; scheduler delay of a task "
            f"{milliseconds(least.delay_s.median)} ms"
        )
        found.append(("Smallest job", f"{milliseconds(least.wall_s.median)} ms", detail))
    for law in result.laws:
        if (law.law, law.outcome, law.kind) == (LOAD.name, "job", "empty"):
            job, task, wave = (milliseconds(law.value(n)) for n in ("job_s", "task_s", "wave_s"))
            detail = f"in the driver, one after another; and {wave} ms for each round of tasks"
            found.append(("Each job", f"{job} ms", "whatever it holds"))
            found.append(("Each task", f"{task} ms", detail))
    repeats = f"{len(points)} kinds, {len(points[0].runs)} repeats of each" if points else ""
    return [*found, ("Jobs", plain(sum(len(point.runs) for point in points)), repeats)]


def _jobs(points: Sequence[DelayPoint]) -> Table:
    rows: list[list[str | Cell]] = [
        [
            point.kind,
            written(point.payload_bytes) if point.payload_bytes else "",
            str(point.workers),
            str(point.tasks),
            milliseconds(point.wall_s.median),
            span(point.wall_s, milliseconds),
            milliseconds(point.job_s.median),
            milliseconds(point.launch_wait_s),
            milliseconds(point.delay_s.median),
            milliseconds(point.longest_delay_s),
            shares(point.parts, COLOURS),
        ]
        for point in points
    ]
    head = ("Payload", "Bytes", "Workers", "Tasks", "Driver", "Range", "Job", "Launch", "Delay")
    return Table(head=(*head, "Longest", "Parts of a task"), rows=rows, texts=(0, 10))


def _place(point: LawPoint | ScaledPoint) -> tuple[str, ...]:
    assert isinstance(point, LawPoint), "Gustafson's law is of trainings"
    return point.kind, str(point.workers), str(point.tasks), written(point.moved_bytes or 0)
