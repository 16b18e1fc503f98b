"""The report of a search for tickets: one HTML file with heat maps, curves, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, percent, plain
from sixfold.core.html.settings import setting_sections
from sixfold.lottery.config import TicketsConfig
from sixfold.lottery.curves import accuracy_chart, early_stop_chart, instability_chart
from sixfold.training.report import render_page

KINDS = {
    "ticket": "Tickets",
    "reinit": "Control: the same masks, fresh weights",
    "random": "Control: random masks of the same counts",
}

WAYS = {
    "ticket": "trained ticket, fine-tuned",
    "rewound": "ticket, rewound",
    "reinit": "its mask, fresh weights",
    "scratch": "whole network from scratch",
}


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One cell of a heat map.

    Attributes:
        text: test accuracy.
        spread: half its interval, or empty.
        strength: depth of colour, 0 to 1.
        css: verdict, as a class.
        best: whether it is the smallest matching ticket.
        title: everything, for a pointer that rests on it.
    """

    text: str
    spread: str
    strength: float
    css: str
    best: bool
    title: str


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Accuracy of one kind over the trellis: rows are rewind points, columns sparsities."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[HeatCell | None]]]


def write_ticket_report(
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
    more = [early_stop_chart(cells, dense), instability_chart(cells)]
    return render_page(
        __package__,
        "page.html",
        name=name,
        subtitle=_subtitle(config, result),
        figures=_headline(result),
        maps=heat_maps(result),
        charts=[chart for chart in [*charts, *more] if chart is not None],
        rows=[_row(cell) for cell in cells],
        dense=_row({**dense, "kind": "dense"}),
        transfer=_transfer(result.get("transfer")),
        speedup=_speedup(result["speedup"], result["workers"]),
        failures=sorted(result["failures"].items()),
        sections=setting_sections(config, TicketsConfig),
        versions=sorted(result["versions"].items()),
    )


def heat_maps(result: Mapping[str, Any]) -> list[HeatMap]:
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
        maps.append(HeatMap(title=title, columns=columns, rows=rows))
    return maps


def _heat_cell(
    cell: Mapping[str, Any] | None, low: float, high: float, best: Mapping[str, Any] | None
) -> HeatCell | None:
    if cell is None:
        return None
    test = cell["test_accuracy"]
    # Accuracies crowd near the top: the square spreads them out.
    strength = ((test["mean"] - low) / (high - low)) ** 2 if high > low else 1.0
    return HeatCell(
        text=f"{100 * test['mean']:.1f}",
        spread=_half(test),
        strength=round(0.08 + 0.92 * strength, 3),
        css=cell["verdict"],
        best=cell is best
        or (best is not None and all(cell[k] == best[k] for k in ("kind", "level", "rewind"))),
        title=f"{cell['kind']}, {_share(cell['kept'] / cell['prunable'])} of weights, rewound to "
        f"{cell['rewind']}: test {percent(test['mean'], 2)} ± {_half(test)}, validation "
        f"{percent(cell['accuracy']['mean'], 2)}, {cell['verdict']}",
    )


def _row(cell: Mapping[str, Any]) -> dict[str, str]:
    """A line of the table."""
    gap = cell.get("difference")
    whole = "kept" not in cell
    return {
        "kind": cell["kind"],
        "kept": "100%" if whole else _share(cell["kept"] / cell["prunable"]),
        "weights": plain(cell["parameters"]) if whole else f"{cell['kept']:,}",
        "rewind": "" if whole else f"{cell['rewind']:,}",
        "seeds": str(cell["accuracy"]["seeds"]),
        "validation": f"{percent(cell['accuracy']['mean'], 2)} ± {_half(cell['accuracy'])}",
        "difference": ""
        if gap is None
        else f"{100 * gap['mean']:+.2f} ({100 * gap['low']:+.2f} to {100 * gap['high']:+.2f})",
        "verdict": cell.get("verdict", ""),
        "test": f"{percent(cell['test_accuracy']['mean'], 2)} ± {_half(cell['test_accuracy'])}",
        "early_stop": f"{cell['early_stop_step']:,.0f}" if "early_stop_step" in cell else "",
        "instability": f"{100 * cell['instability']:+.2f}" if "instability" in cell else "",
    }


def _headline(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
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


def _speedup(found: Mapping[str, Mapping[str, float]], workers: int) -> list[dict[str, str]]:
    return [
        {
            "name": name,
            "one": duration(figures["one_worker_s"]),
            "all": duration(figures["all_workers_s"]),
            "speedup": f"{figures['speedup']:.2f} of {workers}",
            "efficiency": percent(figures["efficiency"], 1),
        }
        for name, figures in found.items()
    ]


def _transfer(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "data": found["data"],
        "ticket": f"{_share(1 - found['ticket']['sparsity'])} of the weights, rewound to step "
        f"{found['ticket']['rewind']:,}",
        "rows": [
            {"name": WAYS[way["way"]], **_row({**way, "kind": "", "parameters": 0})}
            for way in found["ways"]
        ],
    }


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
