"""The page of Spark's roofline, and what the terminal shows of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, logarithmic, percent
from sixfold.core.html.charts import COLOURS, Chart, Series
from sixfold.core.html.page import Page, Section, Table, pairs
from sixfold.core.run_directory import typed
from sixfold.studies.sweep.plots import MOST_LINES
from sixfold.studies.sweep.roofline import DrawnRoof, Panel, Point, RooflineResult

_ROOFS = (
    *("Roof", "Workers", "Peak", "Overhead of a job"),
    *("Half is overhead at tasks of", "which compute for"),
)
_PLACED = (
    *("", "Group", "Workers", "Task", "Reached", "Of the machine"),
    *("Ceiling of jobs", "Times Spark", "Times job per step"),
)


def write_page(run: Path, _: object, result: Mapping[str, Any]) -> None:
    """Write `report.html` from the result as its file holds it."""
    found = typed(RooflineResult, result)
    roofs, placed = _tables(found)
    page = Page(
        title=f"{run.name} · Sixfold",
        eyebrow="Sixfold: roofline of Spark",
        heading=run.name,
        subtitle=f"{found.machine.processor}, {found.precision}; Spark "
        + ", ".join(session.master for session in found.sessions),
        notes=found.left_out,
        sections=[
            Section(
                id="roofs",
                title="Roofs",
                lead="A job of one task for each worker, each of so many floating-point "
                "operations, reaches no more than its line: what scheduling and shuffling take "
                "does not compute. The slanted part is overhead, the flat part the machine. A "
                "training's task is what one rank computes in a step: it is one long job, so the "
                "ceiling is what the same steps would reach as a job each.",
                blocks=[*(_chart(panel, k) for k, panel in enumerate(found.panels)), roofs],
            ),
            Section(
                id="placed",
                title="Placed",
                lead="“Times Spark”: reached, over the ceiling of jobs of such tasks that move "
                "nothing. “Times job per step”: over what would be left if every step, as fast as "
                "it was measured, were a job of its own, weights broadcast and gradients returned.",
                blocks=[placed] if placed.rows else [],
            ),
            Section(title="Versions", blocks=[pairs(sorted(found.versions.items()))]),
        ],
    )
    write_atomically(run / "report.html", page.html().encode())


def roofline_lines(result: Mapping[str, Any]) -> list[str]:
    """The roofs, and what was placed beneath them."""
    found = typed(RooflineResult, result)
    tables = [line for table in _tables(found) if table.rows for line in table.lines()]
    return [*tables, *found.left_out, f"report  {found.report}"]


def _tables(result: RooflineResult) -> tuple[Table, Table]:
    roofs = [_roof(roof) for panel in result.panels for roof in panel.roofs]
    placed = [_row(point) for panel in result.panels for point in panel.points]
    return Table(head=_ROOFS, rows=roofs), Table(head=_PLACED, rows=placed, texts=(0, 1))


def flops(value: float) -> str:
    """Operations, or operations a second, with a prefix.

    >>> flops(2.5e9), flops(930), flops(1.2e13)
    ('2.5 G', '930', '12 T')
    """
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def _chart(panel: Panel, number: int) -> Chart:
    xs, points = panel.task_flops, panel.points
    values = [value for roof in panel.roofs for value in roof.flops]
    values += [point.flops for point in points]
    series = [
        Series(name=roof.name, x=xs, y=roof.flops, colour=COLOURS[k % MOST_LINES])
        for k, roof in enumerate(panel.roofs)
    ]
    groups = list(dict.fromkeys(point.group for point in points))
    for k, group in enumerate(groups, start=len(series)):
        own = [point for point in points if point.group == group]
        series.append(
            Series(
                name=group,
                x=[point.task_flops for point in own],
                y=[point.flops for point in own],
                colour=COLOURS[k % MOST_LINES],
                kind="dots",
                hover=False,
            )
        )
    return Chart(
        id=f"roofline-{number}",
        title=f"{panel.workers} worker{'' if panel.workers == 1 else 's'}",
        note="operations a second that all workers reach; lines: ceilings, dots: measured",
        summary=f"Roofline of Spark with {panel.workers} workers and {len(points)} points.",
        x=logarithmic(min(xs), max(xs), flops),
        y=logarithmic(min(values), max(values), flops),
        x_label="operations of a task (log)",
        series=series,
        write=lambda value: f"{flops(value)}FLOP/s",
        css="tall",
        head=lambda value: f"tasks of {flops(value)}FLOP",
    )


def _roof(roof: DrawnRoof) -> tuple[str, ...]:
    free = roof.overhead_s == 0
    return (
        roof.name,
        str(roof.workers),
        f"{flops(roof.workers * roof.peak_flops)}FLOP/s",
        "" if free else duration(roof.overhead_s),
        "" if free else f"{flops(roof.ridge_flops)}FLOP",
        "" if free else duration(roof.ridge_flops / roof.peak_flops),
    )


def _row(point: Point) -> tuple[str, ...]:
    per_step = point.job_per_step_flops
    return (
        point.name,
        point.group,
        str(point.workers),
        f"{flops(point.task_flops)}FLOP",
        f"{flops(point.flops)}FLOP/s",
        percent(point.part_of_machine),
        f"{flops(point.spark_flops)}FLOP/s",
        _times(point.times_spark),
        "" if per_step is None else _times(point.flops / per_step),
    )


def _times(value: float) -> str:
    """How many times, in three digits."""
    return f"{value:.3g}" if math.isfinite(value) else ""
