"""From the results of a search's members to its figures: cells, verdicts, the best, speed-up.

Verdicts and choices are made on the validation part; test accuracies are only reported.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sixfold.core.run_directory import typed
from sixfold.core.statistics import Interval, difference, interval, margin, verdict
from sixfold.lottery.plan import Plan
from sixfold.lottery.speedup import Speedup
from sixfold.lottery.transfer import WAYS, transfer_name

Results = Mapping[str, Mapping[str, Any]]  # results of members by name


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """One training."""

    accuracy: float  # on the validation part
    test_accuracy: float
    early_stop_step: int | None = None  # of the least validation loss
    weights_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The same network over its seeds."""

    accuracy: Interval  # on the validation part
    test_accuracy: Interval
    early_stop_step: float | None = None  # mean
    runs: list[SeedRun] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Dense(Trained):
    """The dense network."""

    parameters: int


@dataclass(frozen=True, kw_only=True)
class Compared(Trained):
    """A network beside another."""

    difference: Interval  # of accuracies on the validation part
    verdict: str  # as of `sixfold.core.statistics.verdict`


@dataclass(frozen=True, kw_only=True)
class CellFigures(Compared):
    """A cell beside the dense network."""

    kind: str
    level: int
    rewind: int
    sparsity: float
    kept: int  # weights
    prunable: int
    layers: dict[str, int] = field(default_factory=dict)  # weights kept of each
    instability: float | None = None  # error barrier between two orders of the data
    errors: list[float] | None = None  # along the line between them

    @property
    def left(self) -> float:
        """Part of the weights."""
        return self.kept / self.prunable


@dataclass(frozen=True, kw_only=True)
class Way(Compared):
    """A way to begin on another data set beside training from scratch."""

    way: str


@dataclass(frozen=True, kw_only=True)
class Best:
    """Tickets that stand out."""

    smallest: CellFigures | None  # that matches the dense network
    most_accurate: CellFigures | None


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Which ticket was carried over."""

    level: int
    rewind: int
    sparsity: float


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A ticket on another data set."""

    data: str
    ticket: Carried
    steps: int
    ways: list[Way]


@dataclass(kw_only=True)
class Found:
    """What a search has found."""

    dense: Dense
    cells: list[CellFigures]
    best: Best
    sparsities: list[float]
    rewinds: list[int]
    steps: int
    validation_images: int = 0
    test_images: int = 0
    speedup: dict[str, Speedup]  # "expected" and "measured"
    transfer: Transfer | None = None
    failures: dict[str, str]
    members: int
    done_before: int = 0
    workers: int
    engine: str = ""


def trained(runs: Iterable[Mapping[str, Any]], images: tuple[int, int]) -> dict[str, Any]:
    """Fields of a `Trained` from the results of members, tested on so many images of both parts."""
    own = [typed(SeedRun, run) for run in runs]
    stops = [run.early_stop_step for run in own if run.early_stop_step is not None]
    return {
        "accuracy": interval([run.accuracy for run in own], images[0]),
        "test_accuracy": interval([run.test_accuracy for run in own], images[1]),
        "early_stop_step": fmean(stops) if stops else None,
        "runs": own,
    }


def dense_figures(
    plan: Plan, results: Results, dense: Mapping[str, Any], images: tuple[int, int]
) -> Dense:
    """The dense network over its seeds; the first is the dense run itself."""
    runs = [dense, *(results[name] for name in plan.dense if name in results)]
    return Dense(**trained(runs, images), parameters=dense["parameters"])


def cell_figures(
    plan: Plan, results: Results, dense: Dense, images: tuple[int, int]
) -> list[CellFigures]:
    """Every cell that has results, in the order of the plan."""
    found = []
    for cell in plan.cells:
        names = [cell.member(seed) for seed in range(plan.seeds)]
        runs = [results[name] for name in names if name in results]
        if runs:
            line = results.get(plan.lines.get(cell, ""), {})
            found.append(
                CellFigures(
                    **vars(cell),
                    sparsity=plan.sparsities[cell.level],
                    **{name: runs[0][name] for name in ("kept", "prunable", "layers")},
                    **_compared(runs, dense, images),
                    instability=line.get("instability"),
                    errors=line.get("errors"),
                )
            )
    return found


def _compared(
    runs: Sequence[Mapping[str, Any]], other: Trained, images: tuple[int, int]
) -> dict[str, Any]:
    reference = [run.accuracy for run in other.runs]
    gap = difference([run["accuracy"] for run in runs], reference, images[0])
    least = margin(other.accuracy.mean, images[0])
    return {"difference": gap, "verdict": verdict(gap, least), **trained(runs, images)}


def best_tickets(cells: Sequence[CellFigures]) -> Best:
    """The smallest ticket that matches the dense network, and the most accurate of all."""
    tickets = [cell for cell in cells if cell.kind == "ticket"]
    good = [cell for cell in tickets if cell.verdict in ("matching", "better")]
    return Best(
        smallest=min(good, key=lambda c: (c.kept, -c.accuracy.mean), default=None),
        most_accurate=max(tickets, key=lambda c: (c.accuracy.mean, -c.kept), default=None),
    )


def ways(results: Results, seeds: int, images: tuple[int, int]) -> list[Way]:
    """Each way to begin on the other data set, and how it compares with training from scratch."""
    by_way = {
        way: [
            results[name] for seed in range(seeds) if (name := transfer_name(way, seed)) in results
        ]
        for way in WAYS
    }
    if not by_way["scratch"]:
        return []
    scratch = Trained(**trained(by_way["scratch"], images))
    return [
        Way(way=way, **_compared(runs, scratch, images)) for way, runs in by_way.items() if runs
    ]
