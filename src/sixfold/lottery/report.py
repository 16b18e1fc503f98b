"""The report of a search for tickets: one HTML file with heat maps, curves, tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, percent, plain, points_of
from sixfold.core.html.page import Cell, Figure, Matrix, Page, Section, Table, configuration
from sixfold.lottery.config import TicketsConfig
from sixfold.lottery.curves import accuracy_chart, early_stop_chart, instability_chart

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


def write_page(
    folder: Path, config: Mapping[str, Mapping[str, Any]], result: Mapping[str, Any]
) -> Path:
    """Write `report.html` into a job's directory.

    Args:
        folder: the directory.
        config: settings as `config.json` holds them.
        result: figures as `result.json` holds them.

    Raises:
        RunError: if the file cannot be written.
    """
    path = folder / "report.html"
    write_atomically(path, render(folder.name, config, result).encode())
    return path


def render(name: str, config: Mapping[str, Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    """The page as text."""
    cells, dense = result["cells"], result["dense"]
    charts = [accuracy_chart(cells, dense, rewind) for rewind in result["rewinds"]]
    charts += [early_stop_chart(cells, dense), instability_chart(cells)]
    failures = [f"{member}: {reason}" for member, reason in sorted(result["failures"].items())]
    return Page(
        title=f"{name} · Sixfold",
        eyebrow="Sixfold lottery tickets",
        heading=name,
        state="not finished" if failures else "finished",
        good=not failures,
        subtitle=_subtitle(config, result),
        notes=failures,
        figures=_headline(result),
        navigation=True,
        sections=[
            Section(
                id="trellis",
                title="Trellis",
                lead="Test accuracy in percent, ± half its 95% interval. Rows: the step of the "
                "dense run to which weights are reset; columns: weights left. A frame marks what "
                "matches the dense network on the validation split or is better, ▲ what is above "
                "it, ★ the smallest matching ticket. All maps have one scale of colour.",
                blocks=heat_maps(result),
            ),
            Section(
                id="curves",
                title="Curves",
                css="grid",
                blocks=[chart for chart in charts if chart is not None],
            ),
            *_transfer(result.get("transfer")),
            Section(
                id="cells",
                title="Cells",
                lead="Mean and half of the 95% interval, in points. The difference to the dense "
                "network, with its 95% interval, decides the verdict (unclear: too few seeds to "
                "say); both are taken on the validation split, on which alone anything is chosen.",
                blocks=[
                    Table(
                        head=_CELLS,
                        rows=[_row({**dense, "kind": "dense"}), *(_row(cell) for cell in cells)],
                        texts=(0, 7),
                    )
                ],
            ),
            Section(
                id="time",
                title="Time",
                lead="The whole search on one worker against all, expected from the dense run's "
                "steps before any member had run, and measured.",
                blocks=[_speedup(result["speedup"], result["workers"])],
            ),
            configuration(config, TicketsConfig, sorted(result["versions"].items())),
        ],
    ).html()


def heat_maps(result: Mapping[str, Any]) -> list[Matrix]:
    """A heat map for each kind that the trellis holds, all on one scale."""
    cells = result["cells"]
    values = [c["test_accuracy"]["mean"] for c in cells]
    values.append(result["dense"]["test_accuracy"]["mean"])
    low, high = min(values), max(values)
    best = result["best"]["smallest"]
    maps = []
    for kind, title in KINDS.items():
        own = {(c["rewind"], c["level"]): c for c in cells if c["kind"] == kind}
        if not own:
            continue
        kept = {c["level"]: c["kept"] / c["prunable"] for c in own.values()}
        rows = [
            (
                f"{rewind:,}",
                [_heat_cell(own.get((rewind, level)), low, high, best) for level in sorted(kept)],
            )
            for rewind in result["rewinds"]
        ]
        columns = [_share(kept[level]) for level in sorted(kept)]
        corner = ("rewound to ↓", "weights left →")
        maps.append(Matrix(title=title, corner=corner, columns=columns, rows=rows, css="trellis"))
    return maps


def _heat_cell(
    cell: Mapping[str, Any] | None, low: float, high: float, best: Mapping[str, Any] | None
) -> Cell | None:
    if cell is None:
        return None
    test = cell["test_accuracy"]
    # Accuracies crowd near the top: the square spreads them out.
    strength = ((test["mean"] - low) / (high - low)) ** 2 if high > low else 1.0
    is_best = cell is best or (
        best is not None and all(cell[k] == best[k] for k in ("kind", "level", "rewind"))
    )
    return Cell(
        text=f"{100 * test['mean']:.1f}",
        detail=f"± {_half(test)}",
        strength=round(0.08 + 0.92 * strength, 3),
        css=f"hit {cell['verdict']}{' best' if is_best else ''}",
        title=f"{cell['kind']}, {_share(cell['kept'] / cell['prunable'])} of weights, rewound to "
        f"{cell['rewind']}: test {percent(test['mean'], 2)} ± {_half(test)}, validation "
        f"{percent(cell['accuracy']['mean'], 2)}, {cell['verdict']}",
    )


def _row(cell: Mapping[str, Any]) -> list[str | Cell]:
    """A line of the table."""
    whole = "kept" not in cell
    return [
        cell["kind"],
        "100%" if whole else _share(cell["kept"] / cell["prunable"]),
        plain(cell["parameters"]) if whole else f"{cell['kept']:,}",
        "" if whole else f"{cell['rewind']:,}",
        str(cell["accuracy"]["seeds"]),
        *_scores(cell),
        f"{100 * cell['instability']:+.2f}" if "instability" in cell else "",
    ]


def _scores(cell: Mapping[str, Any]) -> list[str | Cell]:
    """Accuracy, difference to the dense network and its verdict, test accuracy, early stop."""
    gap, verdict = cell.get("difference"), cell.get("verdict", "")
    return [
        f"{percent(cell['accuracy']['mean'], 2)} ± {_half(cell['accuracy'])}",
        "" if gap is None else points_of(gap),
        Cell(text=verdict, css=verdict),
        f"{percent(cell['test_accuracy']['mean'], 2)} ± {_half(cell['test_accuracy'])}",
        f"{cell['early_stop_step']:,.0f}" if "early_stop_step" in cell else "",
    ]


def _headline(result: Mapping[str, Any]) -> list[Figure]:
    """Title, value and detail of the figures at the top."""
    best, dense = result["best"], result["dense"]
    found = [("Dense network", percent(dense["test_accuracy"]["mean"], 2), "test accuracy")]
    for name, title in (("smallest", "Smallest matching ticket"), ("most_accurate", "Best ticket")):
        cell = best[name]
        if cell is None:
            found.append((title, "none", "no ticket is shown to match the dense network"))
            continue
        kept = _share(cell["kept"] / cell["prunable"])
        test = percent(cell["test_accuracy"]["mean"], 2)
        detail = f"of the weights, rewound to step {cell['rewind']:,}: test accuracy {test}"
        found.append((title, kept, detail))
    speed = result["speedup"]["measured"]
    detail = f"on {result['workers']} workers; efficiency {percent(speed['efficiency'], 0)}"
    found.append(("Speed-up of the search", f"{speed['speedup']:.2f}", detail))
    found.append(("Members", str(result["members"]), f"{duration(result['wall_s'])} in all"))
    return found


def _speedup(found: Mapping[str, Mapping[str, float]], workers: int) -> Table:
    rows = [
        (
            name,
            duration(figures["one_worker_s"]),
            duration(figures["all_workers_s"]),
            f"{figures['speedup']:.2f} of {workers}",
            percent(figures["efficiency"], 1),
        )
        for name, figures in found.items()
    ]
    head = ("", "One worker", "All workers", "Speed-up S", "Efficiency E")
    return Table(head=head, rows=rows)


def _transfer(found: Mapping[str, Any] | None) -> list[Section]:
    if found is None:
        return []
    ticket = found["ticket"]
    table = Table(
        head=("Begins with", "Validation", "Difference", "Verdict", "Test", "Early stop"),
        rows=[[WAYS[way["way"]], *_scores(way)] for way in found["ways"]],
        texts=(0, 3),
    )
    lead = (
        f"To {found['data']}, of the ticket with {_share(1 - ticket['sparsity'])} of the weights, "
        f"rewound to step {ticket['rewind']:,}. The difference is to the whole network from "
        "scratch, on the validation split."
    )
    return [Section(id="transfer", title="Transfer", lead=lead, blocks=[table])]


def _subtitle(config: Mapping[str, Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    trellis = config["trellis"]
    return (
        f"{config['model']['model']} on {config['data']['data'].partition(':')[0]}, "
        f"{_count(len(result['sparsities']), 'level')} of sparsity x "
        f"{_count(len(result['rewinds']), 'rewind point')}, "
        f"{trellis['method']}, {trellis['scope']}, {_count(trellis['seeds'], 'seed')}, "
        f"{result['steps']:,} steps"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _share(kept: float) -> str:
    """Part of the weights, with as many digits as it needs.

    >>> _share(0.512), _share(0.0361)
    ('51%', '3.6%')
    """
    return percent(kept, 0 if kept >= 0.1 else 1 if kept >= 0.01 else 2)


def _half(value: Mapping[str, float]) -> str:
    """Half an interval, in points."""
    return f"{50 * (value['high'] - value['low']):.2f}"
