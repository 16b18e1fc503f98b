"""A plan as a table for the terminal and as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sixfold.core.html.axes import duration, plain
from sixfold.core.html.charts import Chart
from sixfold.perf.plan.prediction import Prediction, Workload
from sixfold.perf.plan.ranking import equality, ranked
from sixfold.training.report import render_page

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


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table; `fits` says whether there is memory for it."""

    cells: tuple[str, ...]
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a bar: places in percent, and its colour's class."""

    css: str
    left: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A way's mean batch time: its parts, and the span of nine batches in ten, in percent."""

    name: str
    parts: tuple[Piece, ...]
    low: float
    span: float
    text: str


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """The section on a larger cluster: sentences, a table and a chart."""

    workers: int
    sentences: tuple[str, ...]
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
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


def table(lines: Sequence[Row]) -> list[str]:
    """The table as text."""
    cells = [COLUMNS, *(line.cells for line in lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    found = []
    for row in cells:
        words = [
            text.ljust(width) if column in (0, 1, len(COLUMNS) - 1) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        found.append("  ".join(words).rstrip())
    return found


def _bars(predictions: Sequence[Prediction]) -> list[Bar]:
    most = max(found.mean_s for found in predictions) * 1.15
    found = []
    for prediction in ranked(predictions):
        left, parts = 0.0, []
        for css, seconds in (
            ("compute", prediction.compute_s),
            # What the slow steps add to the median is time in which all wait for the slowest.
            ("waiting", prediction.waiting_s + max(prediction.mean_s - prediction.batch_s, 0.0)),
            ("communication", prediction.exchange_s),
        ):
            width = 100 * seconds / most
            parts.append(Piece(css=css, left=round(left, 2), width=round(width, 2)))
            left += width
        low, high = (min(100 * t / most, 100) for t in (prediction.low_s, prediction.high_s))
        found.append(
            Bar(
                name=f"{prediction.candidate.name}, {prediction.candidate.workers}",
                parts=tuple(parts),
                low=round(low, 2),
                span=round(high - low, 2),
                text=duration(prediction.mean_s),
            )
        )
    return found


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
    return render_page(
        __package__,
        "page.html",
        title=title,
        subtitle=subtitle,
        sentences=sentences,
        bars=_bars(predictions) if predictions else [],
        columns=COLUMNS,
        rows=lines,
        facts=facts,
        notes=notes,
        what_if=what_if,
    )
