"""`sixfold tickets`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sixfold.core.console.command import ConfigCommand, ReportKind, lazily
from sixfold.lottery.config import TicketsConfig


def summary(result: Mapping[str, Any]) -> list[str]:
    """The closing lines of a search: a table of the cells, the best, speed-up, report."""
    dense, best = result["dense"], result["best"]
    lines = [
        "accuracy on the validation part, mean and 95% interval (test accuracy)",
        f"{'dense':<34}{_figure(dense)}",
    ]
    for cell in result["cells"]:
        name = f"{cell['kind']:<7} {_kept(cell):>7} of weights @{cell['rewind']}"
        more = f"  instability {cell['instability']:+.2%}" if "instability" in cell else ""
        lines.append(f"{name:<34}{_figure(cell)}  {cell['verdict']}{more}")
    for name, title in (("smallest", "smallest matching"), ("most_accurate", "most accurate")):
        cell = best[name]
        told = "none" if cell is None else f"{_kept(cell)} of weights, rewound to {cell['rewind']}"
        lines.append(f"{title + ' ticket':<34}{told}")
    for way in result.get("transfer", {}).get("ways", []):
        name = f"on {result['transfer']['data'].partition(':')[0]}: {way['way']}"
        lines.append(f"{name:<34}{_figure(way)}")
    for name, found in result["speedup"].items():
        told = f"S {found['speedup']:.2f}, E {found['efficiency']:.0%}"
        lines.append(f"{'speed-up, ' + name:<34}{told} on {result['workers']} workers")
    lines.append(f"{'members':<34}{result['members']}, {result['done_before']} done before")
    return [*lines, f"{'report':<34}{result['report']}"]


def _kept(cell: Mapping[str, Any]) -> str:
    return f"{cell['kept'] / cell['prunable']:.1%}"


def _figure(found: Mapping[str, Any]) -> str:
    value = found["accuracy"]
    half = (value["high"] - value["low"]) / 2
    return f"{value['mean']:.2%} ± {half:.2%}  ({found['test_accuracy']['mean']:.2%})"


COMMAND = ConfigCommand(
    config=TicketsConfig,
    function="sixfold.lottery.run:tickets",
    summary=summary,
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="a search for tickets",
        sections=("trellis",),
        write=lazily("sixfold.lottery.report:write_page"),
    ),
)
