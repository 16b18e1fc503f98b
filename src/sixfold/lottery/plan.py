"""From the settings of a trellis to the members of a job.

A *cell* is a kind of network (a ticket or a control) at one sparsity and one rewind point; it is
trained once for each seed. The members of one-shot pruning need nothing but the dense run; in
iterative pruning each needs the ticket of the sparsity before, of its own rewind point and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sixfold.core.errors import UserError
from sixfold.distributed.tasks import Task
from sixfold.lottery.choices import (
    parse_controls,
    parse_rates,
    parse_rewinds,
    parse_thresholds,
    quantiles,
)
from sixfold.lottery.config import TicketsConfig
from sixfold.training.sparsity import Prunable, prune_counts
from sixfold.training.sparsity.counts import DEFAULT_RATE
from sixfold.training.step.schedule import TrainingLength


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A place of the trellis."""

    kind: str  # "ticket", "reinit" or "random"
    level: int  # number of its sparsity, from 0
    rewind: int  # step of the dense run that it is reset to

    def member(self, seed: int) -> str:
        """Name of the member that trains it with a seed."""
        return f"{self.kind} {self.level + 1} @{self.rewind} seed {seed}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A trellis."""

    sparsities: list[float]
    rewinds: list[int]  # steps, rising
    seeds: int  # how often each cell is trained
    cells: list[Cell]  # tickets first
    members: list[Task]  # of the job
    lines: dict[Cell, str]  # cell -> name of the member that measures its instability
    dense: list[str]  # names of the members that train the dense network again with other seeds


def plan_trellis(
    config: TicketsConfig,
    *,
    layers: Sequence[Prunable],
    budget: TrainingLength,
    dense: Mapping[str, Any],
) -> Plan:
    """Lay out the trellis.

    Args:
        config: the settings, checked by themselves.
        layers: the network's prunable tensors.
        budget: of the dense run.
        dense: plain data by which the dense run is recognised; part of every member's identity.

    Raises:
        UserError: if a sparsity or a rewind point cannot be had.
    """
    trellis = config.trellis
    sparsities = level_sparsities(config, layers)
    rewinds = parse_rewinds(trellis.rewinds, budget)
    kinds = ["ticket", *parse_controls(trellis.controls)]
    cells = [
        Cell(kind=kind, level=level, rewind=rewind)
        for kind in kinds
        for rewind in rewinds
        for level in range(len(sparsities))
    ]
    layout = _Layout(config, sparsities, budget.total_steps, dict(dense))
    members = [
        layout.training(cell, seed, cell.member(seed))
        for cell in cells
        for seed in range(trellis.seeds)
    ]
    again = [layout.dense(rewinds[0], seed) for seed in range(1, trellis.seeds)]
    lines: dict[Cell, str] = {}
    for cell in [cell for cell in cells if trellis.instability and cell.kind == "ticket"]:
        sibling = layout.training(cell, 1, f"sibling of {cell.member(0)}", chain=0)
        line = layout.line(cell, sibling.name)
        members += [sibling, line]
        lines[cell] = line.name
    return Plan(
        sparsities=sparsities,
        rewinds=rewinds,
        seeds=trellis.seeds,
        cells=cells,
        members=[*members, *again],
        lines=lines,
        dense=[member.name for member in again],
    )


def level_sparsities(config: TicketsConfig, layers: Sequence[Prunable]) -> list[float]:
    """The sparsity of each level.

    Raises:
        UserError: if rates of 0 leave more weights than a sparsity allows.
    """
    asked = parse_thresholds(config.trellis.sparsities)
    rates = parse_rates(config.trellis.rates)
    total = sum(layer.size for layer in layers)
    if isinstance(asked, list):
        found = asked
    elif config.trellis.method == "iterative":
        found = [
            1 - sum(_left(layer, rates, rounds) for layer in layers) / total
            for rounds in range(1, asked + 1)
        ]
    else:
        found = quantiles(asked)
    try:
        for sparsity in found:
            prune_counts(layers, sparsity, scope=config.trellis.scope, rates=rates)
    except ValueError as error:
        raise UserError(f"--rates {config.trellis.rates}: {error}") from None
    return found


def _left(layer: Prunable, rates: Mapping[str, float] | None, rounds: int) -> float:
    rate = (rates or {}).get(layer.kind, DEFAULT_RATE)
    return layer.size * (1 - rate) ** rounds


@dataclass(frozen=True)
class _Layout:
    """Makes members."""

    config: TicketsConfig
    sparsities: list[float]
    total_steps: int
    identity: dict[str, Any]

    def training(self, cell: Cell, seed: int, name: str, chain: int | None = None) -> Task:
        """A member that trains a cell; `chain` names the seed whose tickets its mask is from."""
        trellis = self.config.trellis
        chain = seed if chain is None else chain
        iterative = trellis.method == "iterative"
        # A network with fresh weights has no past to go on from: it has the whole schedule.
        rewind = 0 if cell.kind == "reinit" else cell.rewind
        needs: tuple[str, ...] = ()
        if iterative and cell.level > 0:
            before = Cell(kind="ticket", level=cell.level - 1, rewind=cell.rewind)
            needs = (before.member(chain),)
        settings = {
            "task": "train",
            "dense": self.identity,
            "kind": cell.kind,
            "sparsity": self.sparsities[cell.level],
            "scope": trellis.scope,
            "rates": parse_rates(trellis.rates),
            "rewind": rewind,
            "seed": seed,
        }
        cost = float(self.total_steps - rewind)
        return Task(name=name, settings=settings, dependencies=needs, cost=cost)

    def dense(self, rewind: int, seed: int) -> Task:
        """A member that trains the dense network again."""
        settings = {
            "task": "train",
            "dense": self.identity,
            "kind": "dense",
            "rewind": rewind,
            "seed": seed,
        }
        return Task(
            name=f"dense @{rewind} seed {seed}",
            settings=settings,
            cost=float(self.total_steps - rewind),
        )

    def line(self, cell: Cell, sibling: str) -> Task:
        """A member that measures the error between two trainings of a cell."""
        points = self.config.trellis.instability
        return Task(
            name=f"line of {cell.member(0)}",
            settings={"task": "line", "dense": self.identity, "points": points},
            dependencies=(cell.member(0), sibling),
            cost=float(self.total_steps - cell.rewind) * 0.1,
        )
