"""From the results of a trellis' members to the figures of the whole: cells, verdicts, the best.

Verdicts and choices are made on the validation part; test accuracies are only reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from sixfold.core.statistics import difference, interval, margin, verdict
from sixfold.lottery.plan import Cell, Plan
from sixfold.lottery.transfer import WAYS, transfer_name

Results = Mapping[str, Mapping[str, Any]]
"""Results of members by name."""


def dense_figures(
    plan: Plan, results: Results, dense: Mapping[str, Any], images: tuple[int, int]
) -> dict[str, Any]:
    """The dense network over its seeds; the first is the dense run itself."""
    runs = [dense, *(results[name] for name in plan.dense if name in results)]
    return _over_seeds(runs, images)


def cell_figures(
    plan: Plan, results: Results, dense: Mapping[str, Any], images: tuple[int, int]
) -> list[dict[str, Any]]:
    """Every cell that has results.

    Returns:
        Plain data, in the order of the plan.
    """
    reference = [run["accuracy"] for run in dense["runs"]]
    least = margin(dense["accuracy"]["mean"], images[0])
    found = []
    for cell in plan.cells:
        runs = [
            results[name] for seed in range(plan.seeds) if (name := cell.member(seed)) in results
        ]
        if not runs:
            continue
        gap = difference([run["accuracy"] for run in runs], reference, images[0])
        line = results.get(plan.lines.get(cell, ""), {})
        found.append(
            {
                "kind": cell.kind,
                "level": cell.level,
                "rewind": cell.rewind,
                "sparsity": plan.sparsities[cell.level],
                "kept": runs[0]["kept"],
                "prunable": runs[0]["prunable"],
                "layers": runs[0]["layers"],
                "verdict": verdict(gap, least),
                "difference": gap.plain(),
                **_over_seeds(runs, images),
                **{name: line[name] for name in ("instability", "errors") if name in line},
            }
        )
    return found


def _over_seeds(runs: Sequence[Mapping[str, Any]], images: tuple[int, int]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "accuracy": interval([run["accuracy"] for run in runs], images[0]).plain(),
        "test_accuracy": interval([run["test_accuracy"] for run in runs], images[1]).plain(),
    }
    stops = [run["early_stop_step"] for run in runs if "early_stop_step" in run]
    if stops:
        figures["early_stop_step"] = fmean(stops)
    names = ("accuracy", "test_accuracy", "early_stop_step", "weights_sha256")
    figures["runs"] = [{name: run[name] for name in names if name in run} for run in runs]
    return figures


def best_tickets(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The smallest ticket that matches the dense network, and the most accurate of all.

    Returns:
        `smallest` (None if none matches) and `most_accurate`, each one of `cells`.
    """
    tickets = [cell for cell in cells if cell["kind"] == "ticket"]
    good = [cell for cell in tickets if cell["verdict"] in ("matching", "better")]
    smallest = min(good, key=lambda c: (c["kept"], -c["accuracy"]["mean"]), default=None)
    accurate = max(tickets, key=lambda c: (c["accuracy"]["mean"], -c["kept"]), default=None)
    return {"smallest": smallest, "most_accurate": accurate}


def cell_of(figures: Mapping[str, Any]) -> Cell:
    """The cell that figures belong to."""
    return Cell(kind=figures["kind"], level=figures["level"], rewind=figures["rewind"])


def transfer_figures(results: Results, seeds: int, images: tuple[int, int]) -> list[dict[str, Any]]:
    """Each way to begin on the other data set, and how it compares with training from scratch."""
    by_way = {
        way: [
            results[name] for seed in range(seeds) if (name := transfer_name(way, seed)) in results
        ]
        for way in WAYS
    }
    scratch = [run["accuracy"] for run in by_way["scratch"]]
    found = []
    for way, runs in by_way.items():
        if runs and scratch:
            gap = difference([run["accuracy"] for run in runs], scratch, images[0])
            found.append(
                {
                    "way": way,
                    "difference": gap.plain(),
                    "verdict": verdict(gap, margin(fmean(scratch), images[0])),
                    **_over_seeds(runs, images),
                }
            )
    return found
