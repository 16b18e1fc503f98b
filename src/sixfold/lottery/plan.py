"""From the settings of a trellis to the members of a job.

A *cell* is a kind of network (a ticket or a control) at one sparsity and one rewind point; it is
trained once for each seed. The members of one-shot pruning need nothing but the dense run; in
iterative pruning each needs the ticket of the sparsity before, of its own rewind point and seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.random_keys import key
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
    """Lay out the trellis; a `UserError` if a sparsity or a rewind point cannot be had.

    `layers` are the network's prunable tensors; `dense` is plain data by which the dense run is
    recognised, part of every member's identity.
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

    def task(name: str, kind: str, rewind: int, seed: int, **more: Any) -> Task:
        """A member that trains; fields of its task and of its settings are `more`."""
        needs = more.pop("dependencies", ())
        settings = {"task": "train", "dense": dict(dense), "kind": kind, **more}
        settings |= {"rewind": rewind, "seed": seed}
        cost = float(budget.total_steps - rewind)
        return Task(name=name, settings=settings, dependencies=needs, cost=cost)

    def training(cell: Cell, seed: int, name: str, chain: int) -> Task:
        """A member that trains a cell; `chain` is the seed whose tickets its mask is from."""
        needs: tuple[str, ...] = ()
        if trellis.method == "iterative" and cell.level > 0:
            before = Cell(kind="ticket", level=cell.level - 1, rewind=cell.rewind)
            needs = (before.member(chain),)
        return task(
            name,
            cell.kind,
            # A network with fresh weights has no past to go on from: it has the whole schedule.
            0 if cell.kind == "reinit" else cell.rewind,
            seed,
            sparsity=sparsities[cell.level],
            scope=trellis.scope,
            rates=parse_rates(trellis.rates),
            dependencies=needs,
        )

    seeds = range(trellis.seeds)
    members = [training(cell, seed, cell.member(seed), seed) for cell in cells for seed in seeds]
    first = rewinds[0]
    again = [task(f"dense @{first} seed {seed}", "dense", first, seed) for seed in seeds[1:]]
    lines: dict[Cell, str] = {}
    for cell in cells if trellis.instability else ():
        if cell.kind == "ticket":
            sibling = training(cell, 1, f"sibling of {cell.member(0)}", 0)
            lines[cell] = f"line of {cell.member(0)}"
            points = trellis.instability
            line = Task(
                name=lines[cell],
                settings={"task": "line", "dense": dict(dense), "points": points},
                dependencies=(cell.member(0), sibling.name),
                cost=float(budget.total_steps - cell.rewind) * 0.1,
            )
            members += [sibling, line]
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
    """The sparsity of each level; a `UserError` if rates of 0 leave more weights than it allows."""
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


def member_seed(seed: int, number: int, purpose: str) -> int:
    """The seed of the training of a cell's member of some number.

    Purpose "order" is for one that begins with the dense run's weights, and whose number 0 resumes
    the dense run's own order of the data; else it is what is drawn anew.
    """
    if number == 0 and purpose == "order":
        return seed
    return key(seed, "ticket", purpose, number) % (1 << 31)
