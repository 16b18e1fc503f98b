"""A plan as a table for the terminal and as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sixfold.core.html.axes import duration, plain
from sixfold.core.html.charts import Chart
from sixfold.core.html.page import Bar, Bars, Page, Section, Table, Text, pairs
from sixfold.perf.plan.prediction import Prediction, Workload
from sixfold.perf.plan.ranking import equality, ranked

COLUMNS = (
    "way",
    "result, beside serial",
    "workers",
    "batch",
    "9 of 10",
    "images/s",
    "epoch",
    "run",
    "memory/rank",
    "sent/batch",
    "limited by",
)

_PARTS = {
    "own work": "compute",
    "waiting for the slowest": "waiting",
    "exchanges": "communication",
}
"""Parts of a batch, and their colours."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table; `fits` says whether there is memory for it."""

    cells: tuple[str, ...]
    fits: bool


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """The section on a larger cluster: sentences, a table and a chart."""

    workers: int
    sentences: tuple[str, ...]
    table: Table
    chart: Chart


def rows(predictions: Sequence[Prediction], work: Workload, images: int) -> list[Row]:
    """The table, the best first.

    Args:
        predictions: of all ways.
        work: what is trained.
        images: of an epoch.
    """
    return [_row(found, work, images) for found in ranked(predictions)]


def _row(found: Prediction, work: Workload, images: int) -> Row:
    epoch_steps = -(-images // work.batch_size)
    limit = found.limit if found.fits else f"memory: needs {size(found.host_bytes)} a host"
    return Row(
        fits=found.fits,
        cells=(
            found.candidate.name,
            equality(found),
            str(found.candidate.workers),
            # Means, of which runs are made: a median leaves out the slow steps that a run has.
            duration(found.mean_s),
            f"{duration(found.low_s)} to {duration(found.high_s)}",
            plain(round(work.batch_size / found.mean_s)),
            duration(found.mean_s * epoch_steps),
            duration(found.total_s),
            size(found.memory_bytes),
            size(found.sent_bytes),
            limit,
        ),
    )


def size(count_bytes: float) -> str:
    """Bytes in the unit that suits.

    >>> size(337_484), size(0)
    ('337 KB', '0 B')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count_bytes >= scale:
            return f"{count_bytes / scale:.3g} {unit}"
    return f"{count_bytes:.0f} B"


def table(lines: Sequence[Row]) -> Table:
    """The ways as a table for page and terminal."""
    return Table(
        head=COLUMNS,
        rows=[line.cells for line in lines],
        texts=(0, 1, len(COLUMNS) - 1),
        row_css=["" if line.fits else "out" for line in lines],
    )


def _bars(predictions: Sequence[Prediction]) -> Bars:
    bars = []
    for found in ranked(predictions):
        # What the slow steps add to the median is time in which all wait for the slowest.
        waiting_s = found.waiting_s + max(found.mean_s - found.batch_s, 0.0)
        parts = zip((found.compute_s, waiting_s, found.exchange_s), _PARTS.values(), strict=True)
        bars.append(
            Bar(
                name=f"{found.candidate.name}, {found.candidate.workers}",
                parts=list(parts),
                text=duration(found.mean_s),
                span=(found.low_s, found.high_s),
            )
        )
    return Bars(
        bars=bars,
        keys=list(_PARTS.items()),
        most=max(found.mean_s for found in predictions) * 1.15,
        foot="Means over all batches, slow ones included. The line spans nine batches in ten: a "
        "mean beyond it comes of a few very slow ones.",
    )


def render(
    *,
    title: str,
    subtitle: str,
    predictions: Sequence[Prediction],
    lines: Sequence[Row],
    sentences: Sequence[str],
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
    what_if: WhatIf | None = None,
) -> str:
    """The page as text.

    Args:
        title: its heading.
        subtitle: what is trained.
        predictions: drawn as bars.
        lines: of the table.
        sentences: the explanation.
        facts: what the plan rests on.
        notes: what a reader must know.
        what_if: of a larger cluster.
    """
    sections = [
        Section(blocks=[Text(lines=sentences, css="lead")], frame=False),
        Section(title="Time of a batch", blocks=[_bars(predictions)] if predictions else []),
        Section(
            title="All ways",
            lead="Batch, images per second, epoch and run are means; a run is its start and so "
            "many mean batches.",
            blocks=[table(lines)],
        ),
    ]
    if what_if:
        sections.append(
            Section(
                title=f"What if there were {what_if.workers:,} workers",
                mark="EXTRAPOLATION",
                lead=" ".join(what_if.sentences),
                blocks=[what_if.chart, what_if.table],
            )
        )
    sections.append(Section(title="What it rests on", blocks=[pairs(list(facts.items()))]))
    return Page(
        title="sixfold plan",
        eyebrow="Sixfold plan",
        heading=title,
        subtitle=subtitle,
        notes=notes,
        sections=sections,
        files="plan.json next to it holds every figure.",
    ).html()
