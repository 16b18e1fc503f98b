"""The report of a search for tickets: one HTML file with heat maps, curves, tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, percent, plain, points_of
from sixfold.core.html.page import Cell, Figure, Matrix, Page, Section, Table, configuration
from sixfold.core.run_directory import typed
from sixfold.core.statistics import Interval
from sixfold.lottery.config import TicketsConfig
from sixfold.lottery.curves import accuracy_chart, early_stop_chart, instability_chart
from sixfold.lottery.results import CellFigures, Compared, Found, Trained, Transfer

KINDS = {
    "ticket": "Tickets",
    "reinit": "Control: the same masks, fresh weights",
    "random": "Control: random masks of the same counts",
}

_CELLS = (
    *("Kind", "Left", "Weights", "Rewind", "Seeds", "Validation"),
    *("Difference", "Verdict", "Test", "Early stop", "Instability"),
)

WAYS = {
    "ticket": "trained ticket, fine-tuned",
    "rewound": "ticket, rewound",
    "reinit": "its mask, fresh weights",
    "scratch": "whole network from scratch",
}


def write_page(run: Path, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write `report.html` from settings and result as their files hold them."""
    write_atomically(run / "report.html", render(run.name, config, result).encode())


def ticket_lines(result: Mapping[str, Any]) -> list[str]:
    """The closing lines of a search: a table of the cells, the best, speed-up, report."""
    found = typed(Found, result)
    tables = [_cells(found), _transfer_table(found.transfer), _speedup(found)]
    lines = [line for table in tables if table.rows for line in [*table.lines(), ""]]
    for name, value, detail in _headline(found, result["wall_s"])[1:3]:
        lines.append(f"{name}: {value} ({detail})")
    lines.append(f"members {found.members}, {found.done_before} done before")
    return [*lines, f"report  {result['report']}"]


def render(name: str, config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The page as text."""
    found = typed(Found, result)
    charts = [accuracy_chart(found.cells, found.dense, rewind) for rewind in found.rewinds]
    charts += [early_stop_chart(found.cells, found.dense), instability_chart(found.cells)]
    failures = [f"{member}: {reason}" for member, reason in sorted(found.failures.items())]
    return Page(
        title=f"{name} · Sixfold",
        eyebrow="Sixfold lottery tickets",
        heading=name,
        state="not finished" if failures else "finished",
        good=not failures,
        subtitle=_subtitle(config, found),
        notes=failures,
        figures=_headline(found, result["wall_s"]),
        navigation=True,
        sections=[
            Section(
                id="trellis",
                title="Trellis",
                lead="Test accuracy in percent, ± half its 95% interval. Rows: the step of the "
                "dense run to which weights are reset; columns: weights left. A frame marks what "
                "matches the dense network on the validation split or is better, ▲ what is above "
                "it, ★ the smallest matching ticket. All maps have one scale of colour.",
                blocks=heat_maps(found),
            ),
            Section(
                id="curves",
                title="Curves",
                css="grid",
                blocks=[chart for chart in charts if chart is not None],
            ),
            *_transfer(found.transfer),
            Section(
                id="cells",
                title="Cells",
                lead="Mean and half of the 95% interval, in points. The difference to the dense "
                "network, with its 95% interval, decides the verdict (unclear: too few seeds to "
                "say); both are taken on the validation split, on which alone anything is chosen.",
                blocks=[_cells(found)],
            ),
            Section(
                id="time",
                title="Time",
                lead="The whole search on one worker against all, expected from the dense run's "
                "steps before any member had run, and measured.",
                blocks=[_speedup(found)],
            ),
            configuration(config, TicketsConfig, sorted(result["versions"].items())),
        ],
    ).html()


def heat_maps(found: Found) -> list[Matrix]:
    """A heat map for each kind that the trellis holds, all on one scale."""
    values = [trained.test_accuracy.mean for trained in (found.dense, *found.cells)]
    maps = []
    for kind, title in KINDS.items():
        own = {(c.rewind, c.level): c for c in found.cells if c.kind == kind}
        if not own:
            continue
        left = {c.level: c.left for c in own.values()}
        rows = [
            (
                f"{rewind:,}",
                [
                    _heat_cell(cell, min(values), max(values), found.best.smallest)
                    if (cell := own.get((rewind, level)))
                    else None
                    for level in sorted(left)
                ],
            )
            for rewind in found.rewinds
        ]
        columns = [_share(left[level]) for level in sorted(left)]
        corner = ("rewound to ↓", "weights left →")
        maps.append(Matrix(title=title, corner=corner, columns=columns, rows=rows, css="trellis"))
    return maps


def _heat_cell(cell: CellFigures, low: float, high: float, best: CellFigures | None) -> Cell:
    test = cell.test_accuracy
    # Accuracies crowd near the top: the square spreads them out.
    strength = ((test.mean - low) / (high - low)) ** 2 if high > low else 1.0
    return Cell(
        text=f"{100 * test.mean:.1f}",
        detail=f"± {_half(test)}",
        strength=round(0.08 + 0.92 * strength, 3),
        css=f"hit {cell.verdict}{' best' if cell == best else ''}",
        title=f"{cell.kind}, {_share(cell.left)} of weights, rewound to {cell.rewind}: test "
        f"{_mean(test)}, validation {percent(cell.accuracy.mean, 2)}, {cell.verdict}",
    )


def _cells(found: Found) -> Table:
    dense, seeds = found.dense, str(found.dense.accuracy.seeds)
    rows = [["dense", "100%", plain(dense.parameters), "", seeds, *_scores(dense), ""]]
    for cell in found.cells:
        barrier = "" if cell.instability is None else f"{100 * cell.instability:+.2f}"
        weights = [_share(cell.left), f"{cell.kept:,}", f"{cell.rewind:,}"]
        rows.append([cell.kind, *weights, str(cell.accuracy.seeds), *_scores(cell), barrier])
    return Table(head=_CELLS, rows=rows, texts=(0, 7))


def _scores(found: Trained) -> list[str | Cell]:
    gap, verdict = "", ""
    if isinstance(found, Compared):
        gap, verdict = points_of(vars(found.difference)), found.verdict
    stop = "" if found.early_stop_step is None else f"{found.early_stop_step:,.0f}"
    cell = Cell(text=verdict, css=verdict)
    return [_mean(found.accuracy), gap, cell, _mean(found.test_accuracy), stop]


def _headline(found: Found, wall_s: float) -> list[Figure]:
    figures = [("Dense network", percent(found.dense.test_accuracy.mean, 2), "test accuracy")]
    best = {
        "Smallest matching ticket": found.best.smallest,
        "Best ticket": found.best.most_accurate,
    }
    for title, cell in best.items():
        if cell is None:
            figures.append((title, "none", "no ticket is shown to match the dense network"))
            continue
        test = percent(cell.test_accuracy.mean, 2)
        detail = f"of the weights, rewound to step {cell.rewind:,}: test accuracy {test}"
        figures.append((title, _share(cell.left), detail))
    speed = found.speedup["measured"]
    detail = f"on {found.workers} workers; efficiency {percent(speed.efficiency, 0)}"
    figures.append(("Speed-up of the search", f"{speed.speedup:.2f}", detail))
    return [*figures, ("Members", str(found.members), f"{duration(wall_s)} in all")]


def _speedup(found: Found) -> Table:
    rows = [
        (
            name,
            duration(speed.one_worker_s),
            duration(speed.all_workers_s),
            f"{speed.speedup:.2f} of {found.workers}",
            percent(speed.efficiency, 1),
        )
        for name, speed in found.speedup.items()
    ]
    head = ("", "One worker", "All workers", "Speed-up S", "Efficiency E")
    return Table(head=head, rows=rows)


def _transfer_table(found: Transfer | None) -> Table:
    return Table(
        head=("Begins with", "Validation", "Difference", "Verdict", "Test", "Early stop"),
        rows=[[WAYS[way.way], *_scores(way)] for way in (found.ways if found else ())],
        texts=(0, 3),
    )


def _transfer(found: Transfer | None) -> list[Section]:
    if found is None:
        return []
    lead = (
        f"To {found.data}, of the ticket with {_share(1 - found.ticket.sparsity)} of the weights, "
        f"rewound to step {found.ticket.rewind:,}. The difference is to the whole network from "
        "scratch, on the validation split."
    )
    return [Section(id="transfer", title="Transfer", lead=lead, blocks=[_transfer_table(found)])]


def _subtitle(config: Mapping[str, Mapping[str, Any]], found: Found) -> str:
    trellis = config["trellis"]
    return (
        f"{config['model']['model']} on {config['data']['data'].partition(':')[0]}, "
        f"{_count(len(found.sparsities), 'level')} of sparsity x "
        f"{_count(len(found.rewinds), 'rewind point')}, "
        f"{trellis['method']}, {trellis['scope']}, {_count(trellis['seeds'], 'seed')}, "
        f"{found.steps:,} steps"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _share(kept: float) -> str:
    """Part of the weights, with as many digits as it needs.

    >>> _share(0.512), _share(0.0361)
    ('51%', '3.6%')
    """
    return percent(kept, 0 if kept >= 0.1 else 1 if kept >= 0.01 else 2)


def _mean(value: Interval) -> str:
    return f"{percent(value.mean, 2)} ± {_half(value)}"


def _half(value: Interval) -> str:
    return f"{50 * (value.high - value.low):.2f}"
