"""The page of a sweep over time or quality, and what the terminal shows of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, percent, plain, points_of
from sixfold.core.html.charts import Chart
from sixfold.core.html.page import Cell, Figure, Page, Section, Table, configuration
from sixfold.core.run_directory import typed
from sixfold.studies.sweep.config import SweepQualityConfig, SweepTimeConfig, TrainingsConfig
from sixfold.studies.sweep.fits import FittedLaw, LawPoint, ScaledPoint
from sixfold.studies.sweep.plots import (
    MOST_LINES,
    chart,
    law_card,
    law_line,
    law_text,
    line,
    measured,
    named,
    shares,
    span,
)
from sixfold.studies.sweep.quality import Cell as Reached
from sixfold.studies.sweep.quality import Difference, Effect
from sixfold.studies.sweep.results import Ending, QualityResult, TimedRow, TimeResult

PARTS = {name: name for name in ("compute", "data", "communication", "waiting", "update")}
"""Part of a step to its colour's class."""


def write_page(run: Path, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write `report.html` from settings and result as their files hold them."""
    ending = typed(Ending, result)
    figures: list[Figure]
    tree: type[TrainingsConfig] = SweepTimeConfig
    if result["what"] == "time":
        time = typed(TimeResult, result)
        varied, figures, sections = time.varied, _time_figures(time, ending), _time(time)
    else:
        quality, tree = typed(QualityResult, result), SweepQualityConfig
        varied, sections = quality.varied, _quality(quality)
        figures = _quality_figures(quality, ending)
    failures = [f"{member}: {reason}" for member, reason in sorted(ending.failures.items())]
    page = Page(
        title=f"{run.name} · Sixfold",
        eyebrow=f"Sixfold sweep over {result['what']}",
        heading=run.name,
        state="not finished" if failures else "finished",
        good=not failures,
        subtitle=f"{config['model']['model']} on {config['data']['data'].partition(':')[0]}; "
        + "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in varied.items()),
        notes=failures,
        figures=figures,
        sections=[*sections, configuration(config, tree, sorted(ending.versions.items()))],
    )
    write_atomically(run / "report.html", page.html().encode())


def time_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a sweep over time, and its laws."""
    found = typed(TimeResult, result)
    laws = [law_text(law) for law in found.laws]
    return [*_combinations(found).lines(), *laws, f"report  {result['report']}"]


def quality_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a sweep over quality, and what each setting does."""
    found = typed(QualityResult, result)
    effects = [text for effect in found.effects for text in effect_table(effect).lines()]
    return [*_reached(found).lines(), *effects, f"report  {result['report']}"]


def _time(result: TimeResult) -> list[Section]:
    groups: dict[str, list[TimedRow]] = {}
    for row in result.points:
        if row.images_per_s is not None:
            others = {name: value for name, value in row.values.items() if name != "workers"}
            groups.setdefault(named(others), []).append(row)
    for own in groups.values():
        own.sort(key=lambda row: row.workers)
    charts = [_rates(groups), _speedups(groups, result.laws)]
    charts += [_step_times(n, law) for n, law in enumerate(result.laws) if law.law == "ernest"]
    return [
        _curves(charts),
        Section(
            id="combinations",
            title="Combinations",
            lead="Images per second from the end of step 3 to the last step: median and range of "
            "the repeats. Speed-up and efficiency are medians of ratios within a repeat; “serial” "
            "is against one synchronous worker, where strategies are varied. Parts: where the time "
            "of a step went, mean over ranks.",
            keys=list(PARTS.items()),
            blocks=[_combinations(result)] if result.points else [],
        ),
        Section(
            id="laws",
            title="Laws",
            css="grid",
            lead="Fitted with non-negative coefficients to relative errors. Intervals: 95% of a "
            "bootstrap over the repeats. Held out: each combination predicted from all others."
            if result.laws
            else "",
            blocks=[
                law_card(
                    law,
                    ["Workers", "Batch", *(["Images"] if "whole" in law.law else [])],
                    lambda point, law=law: _place(law, point),  # type: ignore[misc]
                    detail="; ".join([law.formula, *([named(law.values)] if law.values else [])]),
                )
                for law in result.laws
            ],
        ),
    ]


def _place(law: FittedLaw, point: LawPoint | ScaledPoint) -> list[str]:
    images = getattr(point, "images", 0) if "whole" in law.law else None
    own = [f"{point.workers}", f"{point.batch_size:,}"]
    return own if images is None else [*own, f"{images:,}"]


def _curves(charts: Sequence[Chart | None]) -> Section:
    made = [one for one in charts if one is not None]
    return Section(id="curves", title="Curves", css="grid", blocks=made)


def _rates(groups: Mapping[str, Sequence[TimedRow]]) -> Chart | None:
    series = [
        measured(
            number,
            name,
            [row.workers for row in own],
            [row.images_per_s for row in own if row.images_per_s],
        )
        for number, (name, own) in enumerate(list(groups.items())[:MOST_LINES])
    ]
    note = "median of the repeats; bars: least to most"
    return chart("rates", "Images per second", note, series, x_label="workers")


def _speedups(groups: Mapping[str, Sequence[TimedRow]], laws: Sequence[FittedLaw]) -> Chart | None:
    own = {
        name: {row.workers: row.speedup for row in rows if row.speedup}
        for name, rows in groups.items()
    }
    shown = [(name, rows) for name, rows in own.items() if len(rows) > 1][:MOST_LINES]
    series = [
        measured(number, name, list(rows), list(rows.values()))
        for number, (name, rows) in enumerate(shown)
    ]
    most = max((n for _, rows in shown for n in rows), default=1)
    serial = {
        named(law.values): law.serial_part.value
        for law in laws
        if law.law == "amdahl" and not law.exact and law.serial_part
    }
    places = [1 + k * (most - 1) / 20 for k in range(21)]
    for number, (name, _) in enumerate(shown):
        if name in serial:
            s = serial[name]
            curve = [1 / (s + (1 - s) / n) for n in places]
            series.append(law_line(number, f"Amdahl, {name}", places, curve))
    if series:
        series.append(law_line(7, "as many times as workers", [1, most], [1, most]))
    return chart(
        "speedup",
        "Speed-up S",
        "against one worker in the same repeat; broken: Amdahl's law, and as many times as workers",
        series,
        x_label="workers",
    )


def _step_times(number: int, law: FittedLaw) -> Chart | None:
    """Ernest's law beside what was measured: step time over the batch, a line each n."""
    series = []
    points = [point for point in law.points if isinstance(point, LawPoint)]
    for colour, n in enumerate(sorted({point.workers for point in points})[:MOST_LINES]):
        own = sorted((p.batch_size or 0, k) for k, p in enumerate(points) if p.workers == n)
        x, rows = [size for size, _ in own], [points[k] for _, k in own]
        name = f"{n} worker{'s' if n > 1 else ''}"
        series.append(measured(colour, name, x, [row.measured_s for row in rows], 1000))
        series.append(law_line(colour, f"law, {n}", x, [1000 * row.predicted_s for row in rows]))
    return chart(
        f"ernest-{number}",
        f"Milliseconds of a step ({named(law.values)})",
        "bars: least to most; broken: Ernest's law",
        series,
        x_label="batch size (log)",
        log_y=True,
    )


def _time_figures(result: TimeResult, ending: Ending) -> list[Figure]:
    timed = [(row.images_per_s.median, row) for row in result.points if row.images_per_s]
    if not timed:
        return []
    rate, best = max(timed, key=lambda one: one[0])
    found = [("Fastest", f"{plain(round(rate))} images/s", named(best.values))]
    scaled = [
        (row.speedup.median, row.efficiency.median, row)
        for _, row in timed
        if row.speedup and row.efficiency and row.workers > 1
    ]
    if scaled:
        speedup, efficiency, top = max(scaled, key=lambda one: one[0])
        detail = f"{named(top.values)}; efficiency {percent(efficiency, 0)}"
        found.append(("Largest speed-up", f"{speedup:.2f} of {top.workers}", detail))
    errors = [law.held_out_error for law in result.laws if law.held_out_error is not None]
    if errors:
        detail = "mean absolute, each combination predicted from the others"
        found.append(("Error of the laws", percent(sum(errors) / len(errors)), detail))
    if result.load_before:
        detail = "processes that wanted to run, mean of a minute, this sweep's own included"
        found.append(("Load before", f"{result.load_before.median:.1f}", detail))
    detail = f"{result.repeats} repeats, {duration(ending.wall_s)}"
    return [*found, ("Combinations", str(len(result.points)), detail)]


def _combinations(result: TimeResult) -> Table:
    rows: list[list[str | Cell]] = []
    for row in result.points:
        if row.images_per_s is None or row.step_s is None:
            trouble = Cell(text=row.refused or "failed", css="trouble")
            rows.append([named(row.values), trouble])
            continue
        rows.append(
            [
                named(row.values),
                f"{row.images_per_s.median:,.0f}",
                span(row.images_per_s, "{:,.0f}".format),
                duration(row.step_s.median),
                "" if row.speedup is None else f"{row.speedup.median:.2f}",
                "" if row.efficiency is None else percent(row.efficiency.median, 0),
                "" if row.over_serial is None else f"{row.over_serial.median:.2f}",
                shares(row.parts, PARTS),
                duration(row.startup_s or 0.0),
                f"{row.steps:,}",
            ]
        )
    head = ("", "Images/s", "Range", "Step", "S", "E", "Serial", "Parts", "Start-up", "Steps")
    return Table(head=head, rows=rows, texts=(0, 7))


def _quality(result: QualityResult) -> list[Section]:
    charts = [
        _accuracies(name, values, result.cells)
        for name, values in result.varied.items()
        if name not in ("seed", *result.chosen) and len(values) > 1
    ]
    chosen = ""
    if result.chosen:
        chosen = f"The best {', '.join(result.chosen)} was chosen on the validation part."
    table = _reached(result)
    return [
        _curves(charts),
        Section(
            id="effects",
            title="What each setting does",
            css="grid",
            lead="Differences in points of test accuracy to the first value, over all pairs of "
            "trainings that differ in this setting alone, with 95% interval. The share of variance "
            "is that of the setting by itself.",
            blocks=[effect_table(effect) for effect in result.effects],
        ),
        Section(
            id="cells",
            title="Combinations",
            lead="Test accuracy: mean over seeds and half its 95% interval; of a single seed, the "
            f"interval of the number of test images alone. {chosen}".rstrip(),
            blocks=[table] if table.rows else [],
        ),
    ]


def _quality_figures(result: QualityResult, ending: Ending) -> list[Figure]:
    figures = []
    if result.cells:
        best = max(result.cells, key=lambda cell: cell.accuracy.mean)
        detail = f"test accuracy; {named(best.values)}{rivals(best, result.cells)}"
        figures.append(("Best", percent(best.accuracy.mean, 2), detail))
    known = [
        (e.share_of_variance, e.name) for e in result.effects if e.share_of_variance is not None
    ]
    for share, name in sorted(known, key=lambda one: -one[0])[:3]:
        detail = "of the variance between trainings"
        figures.append((f"Share of {name}", percent(share, 0), detail))
    count = str(len(result.trainings))
    return [*figures, ("Trainings", count, f"{duration(ending.wall_s)} in all")]


def rivals(best: Reached, cells: Sequence[Reached]) -> str:
    """How many others the intervals cannot tell from the best."""
    count = sum(cell is not best and cell.accuracy.high >= best.accuracy.low for cell in cells)
    others = len(cells) - 1
    return f"; intervals of {count} of the {others} others reach into its own" if count else ""


def _accuracies(name: str, values: Sequence[Any], cells: Sequence[Reached]) -> Chart | None:
    """Accuracy over one setting, a line for each choice of the others."""
    numeric = all(_is_number(value) for value in values)
    at = {value: float(value) if numeric else float(k) for k, value in enumerate(values)}
    groups: dict[str, list[Reached]] = {}
    for cell in cells:
        others = {other: value for other, value in cell.values.items() if other != name}
        groups.setdefault(named(others), []).append(cell)
    series = [
        line(
            number,
            words,
            [at[cell.values[name]] for cell in own],
            [cell.accuracy.mean for cell in own],
            low=[max(cell.accuracy.low, 0.0) for cell in own],
            high=[min(cell.accuracy.high, 1.0) for cell in own],
        )
        for number, (words, own) in enumerate(list(groups.items())[:MOST_LINES])
    ]
    more = len(groups) - len(series)
    return chart(
        f"accuracy-{name.replace('.', '-')}",
        f"Test accuracy over {name}",
        "bars: 95% interval" + (f"; {more} more lines are in the table" if more > 0 else ""),
        series,
        x_label=name,
        write=lambda value: percent(value, 0 if value >= 0.1 else 1),
        zero=False,
        labels=None if numeric else {at[value]: str(value) for value in values},
    )


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _reached(result: QualityResult) -> Table:
    rows: list[list[str | Cell]] = []
    for cell in result.cells:
        half = 50 * (cell.accuracy.high - cell.accuracy.low)
        reached = f"{percent(cell.accuracy.mean, 2)} ± {half:.2f}"
        rows.append([named(cell.values), reached, str(cell.accuracy.seeds)])
    for row in result.trainings:
        if trouble := row.refused or row.diverged:
            rows.append([named(row.values), Cell(text=trouble, css="trouble")])
    return Table(head=("", "Test accuracy", "Seeds"), rows=rows)


def effect_table(effect: Effect) -> Table:
    """What each value of a setting does."""
    share = effect.share_of_variance
    return Table(
        title=effect.name,
        detail="" if share is None else f"{percent(share, 0)} of the variance",
        head=("", "Accuracy", "Difference", "", "Trainings"),
        rows=[
            (
                str(level.value),
                "" if level.accuracy is None else percent(level.accuracy, 2),
                "" if level.difference is None else points_of(vars(level.difference)),
                "" if level.difference is None else _verdict(level.difference),
                str(level.trainings),
            )
            for level in effect.levels
        ],
        css="",
    )


def _verdict(gap: Difference) -> str:
    """What an interval lets us say, which is nothing where it holds 0."""
    return "above" if gap.low > 0 else "below" if gap.high < 0 else "not told apart"
