"""The page of a search, and what the terminal shows of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import Axis, duration, linear, percent, plain
from sixfold.core.html.charts import COLOURS, Chart, Series
from sixfold.core.html.page import (
    Bar,
    Bars,
    Cell,
    Figure,
    Page,
    Section,
    Table,
    Text,
    configuration,
)
from sixfold.core.run_directory import typed
from sixfold.studies.tune.config import TuneConfig
from sixfold.studies.tune.results import TrialRow, TuneRecord

_FRACTIONS = ("accuracy", "auroc", "f1", "precision", "recall")


def write_page(run: Path, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write `report.html` from settings and result as their files hold them.

    Raises:
        RunError: if the file cannot be written.
    """
    write_atomically(run / "report.html", tune_page(run, config, result).html().encode())


def tune_page(run: Path, config: Mapping[str, Any], result: Mapping[str, Any]) -> Page:
    """The page of a search."""
    found = typed(TuneRecord, result)
    return Page(
        title=f"{run.name} · Sixfold",
        eyebrow="Sixfold tune",
        heading=run.name,
        state="stopped by --max-time" if found.stopped_by else "finished",
        good=not found.stopped_by,
        notes=_failures(found),
        subtitle=f"{config['model']['model']} on {config['data']['data'].partition(':')[0]}; "
        + "; ".join(f"{name}: {words}" for name, words in found.searched.items()),
        figures=_figures(found),
        sections=[
            Section(
                id="winner",
                title="The winner as a plain training",
                lead="It gives the same weights, bit for bit.",
                blocks=[Text(lines=(found.best.command,))] if found.best else [],
            ),
            Section(id="history", title="History", css="grid", blocks=search_charts(found)),
            Section(
                id="importances",
                title="Importances",
                lead="Share of the variance of what trials reached that goes with each setting "
                "(fANOVA), at the length that most trials were trained to.",
                blocks=[_importances(found)] if found.importances else [],
            ),
            Section(id="trials", title="Trials", blocks=[trial_table(found)]),
            configuration(config, TuneConfig, sorted(found.versions.items())),
        ],
    )


def tune_lines(result: Mapping[str, Any]) -> list[str]:
    """The trials, the winner, and the command that trains it alone."""
    found = typed(TuneRecord, result)
    lines = trial_table(found).lines()
    lines += _failures(found)
    if found.best:
        best = found.best
        value = _written(found.metric, best.value)
        lines += [
            f"best    trial {best.number}: validation {found.metric} {value}, {best.folder}",
            f"again   {best.command}",
        ]
    else:
        lines.append("no trial is trained to its end: go on with --resume and another --max-time")
    return [*lines, f"report  {result['report']}"]


def _failures(found: TuneRecord) -> list[str]:
    """How many trials failed, and why, each reason once."""
    reasons: dict[str, list[int]] = {}
    for trial in found.trials:
        if trial.state == "failed":
            reasons.setdefault(trial.reason, []).append(trial.number)
    lines = [f"trial {', '.join(map(str, own))}: {why}" for why, own in reasons.items()]
    head = [f"{found.failed} of {len(found.trials)} trials failed"] if lines else []
    return head + lines


def search_charts(found: TuneRecord) -> list[Chart]:
    """The charts of a search that show something."""
    made = [_history(found), _curves(found), _coordinates(found)]
    return [chart for chart in made if chart is not None]


def _written(metric: str, value: float) -> str:
    return percent(value, 2) if metric.endswith(_FRACTIONS) else plain(value)


def _figures(found: TuneRecord) -> list[Figure]:
    figures: list[Figure] = []
    if best := found.best:
        detail = ", ".join(f"{name} {value}" for name, value in best.values.items())
        title = f"Best {found.metric}"
        value = _written(found.metric, best.value)
        figures.append((title, value, f"trial {best.number}: {detail}"))
        if best.test_accuracy is not None:
            detail = "of the best; nothing was chosen by it"
            figures.append(("Test accuracy", percent(best.test_accuracy, 2), detail))
    complete = sum(trial.state == "complete" for trial in found.trials)
    detail = f"{complete} trained to the end, {found.failed} failed"
    figures.append(("Trials", str(len(found.trials)), detail))
    detail = f"{found.steps:,} steps of {found.steps_of_all:,}"
    figures.append(("Trained", percent(found.steps / max(found.steps_of_all, 1), 0), detail))
    workers = "1 worker" if found.workers == 1 else f"{found.workers} workers"
    detail = f"{workers} on {found.engine}"
    return [*figures, ("Time", duration(found.wall_s), detail)]


def trial_table(found: TuneRecord) -> Table:
    """A row for each trial."""
    best = found.best.number if found.best else -1
    head = ["", *found.searched, *(_length(part) for part in found.parts), "", "Run"]
    rows: list[list[str | Cell]] = []
    for trial in found.trials:
        at = {one.rung: _written(found.metric, one.value) for one in trial.reached}
        state = "best" if trial.number == best else trial.state
        css = "trouble" if trial.state == "failed" else ""
        rows.append(
            [
                str(trial.number),
                *(str(trial.values[name]) for name in found.searched),
                *(at.get(rung, "") for rung in range(len(found.parts))),
                Cell(text=state, css=css, title=trial.reason),
                trial.folder,
            ]
        )
    words = len(found.searched) + len(found.parts) + 1
    return Table(
        head=head,
        rows=rows,
        texts=(words, words + 1),
        row_css=["changed" if trial.number == best else "" for trial in found.trials],
    )


def _length(part: float) -> str:
    return "All" if part == 1 else f"1/{1 / part:.0f}"


def _importances(found: TuneRecord) -> Bars:
    bars = [
        Bar(name=name, parts=[(share, "training")], text=percent(share, 0))
        for name, share in sorted(found.importances.items(), key=lambda one: -one[1])
    ]
    return Bars(bars=bars)


def _values(found: TuneRecord) -> list[float]:
    return [one.value for trial in found.trials for one in trial.reached]


def _history(found: TuneRecord) -> Chart | None:
    """What each trial reached at each length, in the order in which trials were chosen."""
    values = _values(found)
    if not values:
        return None
    series = []
    top = len(found.parts) - 1
    for rung, part in enumerate(found.parts):
        own = [(t.number, one.value) for t in found.trials for one in t.reached if one.rung == rung]
        if own:
            x, y = [at for at, _ in own], [value for _, value in own]
            colour = "training" if rung == top else COLOURS[2 + rung % 4]
            name = f"trained {_length(part)}" if rung < top else "trained to the end"
            series.append(Series(name=name, x=x, y=y, kind="dots", colour=colour))
    better = min if found.smaller_is_better else max
    ends = [(t.number, t.reached[-1].value) for t in found.trials if t.state == "complete"]
    if len(ends) > 1:
        so_far = [better(value for _, value in ends[: k + 1]) for k in range(len(ends))]
        numbers = [number for number, _ in ends]
        series.insert(
            0, Series(name="best so far", x=numbers, y=so_far, kind="broken", colour="other")
        )
    return Chart(
        id="history",
        title=f"Validation {found.metric} of each trial",
        summary=f"{len(found.trials)} trials by number.",
        x=linear(-0.5, len(found.trials) - 0.5, plain, snug=True, least=1.0),
        y=linear(min(values), max(values), plain),
        x_label="trial",
        series=series,
        write=lambda value: _written(found.metric, value),
        head=lambda at: f"trial {at:.0f}",
    )


def _curves(found: TuneRecord) -> Chart | None:
    """What each trial reached over the part of its training, up to where it was paused."""
    trials = [trial for trial in found.trials if len(trial.reached) > 1]
    if not trials:
        return None
    series = [_curve(found, trial) for trial in found.trials if trial.reached]
    series.sort(key=lambda one: one.kind == "line")
    values = _values(found)
    ticks = [part for part in found.parts if part > 0]
    axis = Axis(low=found.parts[0] / 1.2, high=1.1, log=True).ticked(ticks, _length)
    return Chart(
        id="rungs",
        title="How far trials were trained",
        note="a line for each trial; the best is drawn strongly",
        summary=f"{len(series)} trials over the part of the training.",
        x=axis,
        y=linear(min(values), max(values), plain),
        x_label="part of the training",
        series=series,
        write=lambda value: _written(found.metric, value),
        head=_length,
        legend=False,
    )


def _curve(found: TuneRecord, trial: TrialRow) -> Series:
    is_best = found.best is not None and trial.number == found.best.number
    return Series(
        name=f"trial {trial.number}",
        x=[found.parts[one.rung] for one in trial.reached],
        y=[one.value for one in trial.reached],
        colour="training" if is_best else "validation",
        kind="line" if is_best else "faint",
        dots=True,
        hover=is_best,
    )


def _coordinates(found: TuneRecord) -> Chart | None:
    """A line for each trial through what was chosen, to what it reached."""
    trials = [trial for trial in found.trials if trial.reached]
    if len(trials) < 2:
        return None
    names = list(found.searched)
    places = {name: _places([t.values[name] for t in trials], name, found) for name in names}
    last = [trial.reached[-1].value for trial in trials]
    places[found.metric] = _spread(last)
    order = sorted(range(len(trials)), key=lambda k: last[k], reverse=found.smaller_is_better)
    strong = set(order[-max(len(order) // 4, 1) :])
    number = found.best.number if found.best else -1
    best = next((k for k, trial in enumerate(trials) if trial.number == number), -1)
    series = []
    for k in order:
        series.append(
            Series(
                name="the best" if k == best else "best quarter" if k in strong else "others",
                x=range(len(places)),
                y=[own[k] for own in places.values()],
                colour="training" if k == best else "validation" if k in strong else "other",
                kind="line" if k == best or k in strong else "faint",
                hover=k == best,
            )
        )
    series.sort(key=lambda one: one.name == "the best")
    ends = [_ends([t.values[name] for t in trials]) for name in names] + [_ends(last)]
    chosen = [str(found.best.values[name]) for name in names] if found.best else []
    value = [_written(found.metric, found.best.value)] if found.best else []
    axis = Axis(low=-0.15, high=len(names) + 0.15)
    labels = [*names, found.metric]
    shown = [f"{name} ({low} to {high})" for name, (low, high) in zip(labels, ends, strict=True)]
    return Chart(
        id="coordinates",
        title="Parallel coordinates",
        note="a line for each trial, through its settings to what it reached last",
        summary=f"{len(trials)} trials over {', '.join(names)}.",
        x=axis.ticked(range(len(labels)), lambda at: shown[round(at)]),
        y=Axis(low=-0.03, high=1.03),
        x_label="",
        series=series,
        restarts=list(range(len(labels))),
        heads=labels if found.best else None,
        rows=[
            ("the best", "training", [*chosen, *value]),
            ("at the top", "", [high for _, high in ends]),
            ("at the bottom", "", [low for low, _ in ends]),
        ]
        if found.best
        else None,
        css="wide",
    )


def _places(values: Sequence[Any], name: str, found: TuneRecord) -> list[float]:
    """Where values lie on their axis, from 0 to 1."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        known = sorted({str(value) for value in values})
        return [known.index(str(v)) / max(len(known) - 1, 1) for v in values]
    if name in found.logarithmic:
        return _spread([math.log(value) for value in values])
    return _spread(list(map(float, values)))


def _spread(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def _ends(values: Sequence[Any]) -> tuple[str, str]:
    """The values at both ends of an axis, in words."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return plain(min(values)), plain(max(values))
    known = sorted({str(value) for value in values})
    return known[0], known[-1]
