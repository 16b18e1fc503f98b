"""A plan as a table for the terminal and as one HTML file."""

from collections.abc import Mapping, Sequence

from sixfold.core.html.axes import duration, plain
from sixfold.core.html.page import Bar, Bars, Page, Section, Table, Text, pairs
from sixfold.perf.plan.candidates import Prediction, Workload
from sixfold.perf.plan.cost import FREE, Price
from sixfold.perf.plan.ranking import equality, ranked
from sixfold.perf.plan.to_target import TargetPlan, target_section, target_sentence

COLUMNS = (
    "way",
    "result",
    "workers",
    "batch",
    "9 of 10",
    "images/s",
    "run",
    "memory/rank",
    "sent/batch",
    "limited by",
)

_PARTS = {"own work": "compute", "waiting for the slowest": "waiting", "exchanges": "communication"}
"""Parts of a batch, and their colours."""


def _row(found: Prediction, work: Workload, price: Price) -> tuple[str, ...]:
    return (
        found.candidate.name,
        equality(found),
        str(found.candidate.workers),
        # Means, of which runs are made: a median leaves out the slow steps that a run has.
        duration(found.mean_s),
        f"{duration(found.low_s)} to {duration(found.high_s)}",
        plain(round(work.batch_size / found.mean_s)),
        duration(found.total_s),
        price.cell(price.core_hours(found, found.total_s)),
        size(found.memory_bytes),
        size(found.sent_bytes),
        limit(found),
    )


def limit(found: Prediction) -> str:
    """What limits it, memory first."""
    return found.limit if found.fits else f"memory: needs {size(found.host_bytes)} a host"


def size(count_bytes: float) -> str:
    """Bytes in the unit that suits.

    >>> size(337_484), size(0)
    ('337 KB', '0 B')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count_bytes >= scale:
            return f"{count_bytes / scale:.3g} {unit}"
    return f"{count_bytes:.0f} B"


def table(predictions: Sequence[Prediction], work: Workload, price: Price = FREE) -> Table:
    """All ways for page and terminal, the best first."""
    found = ranked(predictions)
    behind = COLUMNS.index("run") + 1
    head = (*COLUMNS[:behind], price.head, *COLUMNS[behind:])
    return Table(
        head=head,
        rows=[_row(way, work, price) for way in found],
        texts=(0, 1, len(head) - 1),
        row_css=["" if way.fits else "out" for way in found],
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
    ways: Table,
    sentences: Sequence[str],
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
    to_target: TargetPlan | None = None,
    what_if: Section | None = None,
) -> str:
    """The page as text: the explanation, predictions as bars and as a table, what they rest on."""
    lead = [*sentences, *([target_sentence(to_target)] if to_target else [])]
    sections = [
        Section(blocks=[Text(lines=lead, css="lead")], frame=False),
        Section(title="Time of a batch", blocks=[_bars(predictions)] if predictions else []),
        Section(
            title="All ways",
            lead="The result is beside serial training's. Batch, images per second and run are "
            "means; a run is its start and so many mean batches.",
            blocks=[ways],
        ),
        *([target_section(to_target)] if to_target else []),
        *([what_if] if what_if else []),
        Section(title="What it rests on", blocks=[pairs(list(facts.items()))]),
    ]
    return Page(
        title="sixfold plan",
        eyebrow="Sixfold plan",
        heading=title,
        subtitle=subtitle,
        notes=[*notes, *(to_target.notes if to_target else ())],
        sections=sections,
        files="plan.json next to it holds every figure.",
    ).html()
