"""Where the time of each step went, rank by rank: stacked areas over the steps, and a summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.core.html.axes import Axis, compact, linear, milliseconds, percent, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.page import Card, Cell, Part, Table, Text
from sixfold.core.html.series import Floats, bins
from sixfold.training.report.record import PHASES, Timeline

MAX_CHARTS = 8  # ranks that get a chart of their own; the summary shows all
MAX_BINS = 200  # bars of each chart: the steps in a bar are averaged
WARM_UP_STEPS = 3
"""Left out of the summary, as they are of the throughput: start-up cost is not a step's."""

STACK = ("compute", "update", "communication", "waiting", "scheduler", "data")
"""Phases from the bottom of the stack to its top: work below, idleness above."""

NAMES = {
    "waiting": "waiting for ranks",
    "data": "waiting for data",
    "scheduler": "waiting for work",
}
"""How phases are called where their own name does not say it."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """The section on step time."""

    verdict: str  # the main finding in one sentence
    note: str  # what the figures are means of
    table: Table  # the mean of all ranks first where there are several
    charts: list[Chart]  # one per rank, at most `MAX_CHARTS`
    hidden: int  # how many ranks have no chart

    def blocks(self) -> list[Any]:
        """As the page shows it."""
        keys = [(NAMES.get(phase, phase), phase) for phase in STACK]
        more = [f"{self.hidden} more ranks are in the table only."] if self.hidden else []
        ranks = Card(
            title="Milliseconds of each step",
            keys=keys,
            inner="grid low ranks-charts",
            blocks=[*self.charts, *([Text(lines=more, css="legend")] if more else [])],
        )
        return [Card(blocks=[self.table, Text(lines=[self.note], css="legend")]), ranks]


def step_time(timelines: Sequence[Timeline]) -> StepTime | None:
    """The section, or None if no rank left a timeline."""
    if not timelines:
        return None
    means = [_mean(timeline) for timeline in timelines]
    rows = [
        _row(f"rank {timeline.rank}", mean) for timeline, mean in zip(timelines, means, strict=True)
    ]
    overall = np.mean(means, axis=0)
    if len(rows) > 1:
        rows.insert(0, _row("all ranks", overall))
    shown = timelines[:MAX_CHARTS]
    heights = [_binned(timeline) for timeline in shown]
    y = _height_axis(heights)
    x = _step_axis(shown)
    names = [NAMES.get(phase, phase) for phase in STACK]
    return StepTime(
        verdict=_verdict(overall),
        note=_note(timelines),
        table=Table(
            head=["Rank", "ms a step", *names, "Share"],
            rows=rows,
            texts=(0, len(names) + 2),
            keys=[(name, phase) for name, phase in zip(names, STACK, strict=True)],
            css="ranks",
        ),
        charts=[_chart(t, x, y, *h) for t, h in zip(shown, heights, strict=True)],
        hidden=len(timelines) - len(shown),
    )


def _warm(timeline: Timeline) -> int:
    return WARM_UP_STEPS if len(timeline.step) > 3 * WARM_UP_STEPS else 0


def _mean(timeline: Timeline) -> Floats:
    """Mean seconds a step of each phase, (6,) in the order of `PHASES`."""
    mean: Floats = timeline.seconds[_warm(timeline) :].mean(axis=0)
    return mean


def _row(name: str, seconds: Floats) -> list[str | Cell]:
    total = float(seconds.sum())
    cells, parts = [], []
    for phase in STACK:
        value = float(seconds[PHASES.index(phase)])
        share = value / total if total > 0 else 0.0
        cells.append(Cell(text=milliseconds(value), detail=percent(share)))
        parts.append(Part(colour=phase, width=round(100 * share, 2), title=NAMES.get(phase, phase)))
    return [name, milliseconds(total), *cells, Cell(parts=parts, css="part")]


def _verdict(seconds: Floats) -> str:
    """What a step's time mostly is, and how idle the ranks were."""
    total = float(seconds.sum())
    if total <= 0:
        return "The timelines hold no time."
    share = {phase: float(seconds[k]) / total for k, phase in enumerate(PHASES)}
    return (
        f"A rank's mean step takes {milliseconds(total)} ms, of which {percent(share['compute'])} "
        f"is compute. Ranks are idle for data {percent(share['data'])} of the time and wait for "
        f"each other {percent(share['waiting'])}; moving bytes takes "
        f"{percent(share['communication'])}."
    )


def _note(timelines: Sequence[Timeline]) -> str:
    steps = max(len(timeline.step) for timeline in timelines)
    text = f"Means over {plain(steps - _warm(max(timelines, key=lambda t: len(t.step))))} steps"
    if any(_warm(timeline) for timeline in timelines):
        text += f", without the first {WARM_UP_STEPS}"
    sampled = min(timeline.sampled for timeline in timelines)
    if sampled < 1:
        text += f"; an even sample of {percent(sampled)} of the timelines"
    return text + "."


def _binned(timeline: Timeline) -> tuple[Floats, Floats]:
    """Borders (b + 1,) in steps and mean seconds (b, 6) of the bars, in the order of `STACK`."""
    borders = bins(len(timeline.step), MAX_BINS)
    sums = np.add.reduceat(timeline.seconds, borders[:-1], axis=0)
    seconds = sums / np.diff(borders)[:, None]
    edges = np.append(timeline.step[borders[:-1]], timeline.step[-1] + 1)
    return edges, seconds[:, [PHASES.index(phase) for phase in STACK]]


def _step_axis(timelines: Sequence[Timeline]) -> Axis:
    low = min(float(timeline.step[0]) for timeline in timelines)
    high = max(float(timeline.step[-1]) for timeline in timelines) + 1
    # From 0 on where that is near, because there the round ticks begin.
    return linear(0.0 if low <= 0.02 * high else low, high, compact, snug=True, least=1)


def _height_axis(heights: Sequence[tuple[Floats, Floats]]) -> Axis:
    """One scale for all ranks; the few highest bars may be cut."""
    totals = []
    for edges, seconds in heights:
        skip = WARM_UP_STEPS if len(edges) > 3 * WARM_UP_STEPS else 0
        totals.append(seconds.sum(axis=1)[skip:])
    top = float(np.percentile(np.concatenate(totals), 99)) * 1.05
    return linear(0.0, top, lambda seconds: compact(round(1000 * seconds, 9)), count=4, snug=True)


def _chart(timeline: Timeline, x: Axis, y: Axis, edges: Floats, seconds: Floats) -> Chart:
    tops = np.cumsum(seconds, axis=1)
    last = np.append(edges[1:-1] - 1, timeline.step[-1])
    heads = {
        (a + b) / 2: f"step {plain(a)}" if a >= end else f"steps {plain(a)} to {plain(end)}"
        for a, b, end in zip(edges[:-1], edges[1:], last, strict=True)
    }
    return Chart(
        id=f"rank-{timeline.rank}",
        title=f"Rank {timeline.rank}",
        summary=f"Milliseconds of each step of rank {timeline.rank} by phase; "
        f"the table gives the means.",
        x=x,
        y=y,
        x_label="step",
        legend=False,
        series=[
            Series(
                name=NAMES.get(phase, phase),
                x=edges,
                y=tops[:, k],
                low=tops[:, k - 1] if k else np.zeros(len(tops)),
                colour=phase,
                kind="area",
            )
            for k, phase in enumerate(STACK)
        ],
        write=lambda value: f"{milliseconds(value)} ms",
        head=lambda at: heads[at],
    )
