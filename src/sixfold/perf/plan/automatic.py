"""`--strategy auto` and `--grid auto`: the planner chooses, and its prediction is judged."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.files import parse_json
from sixfold.core.run_directory import RunDirectory
from sixfold.data import DataSet
from sixfold.distributed.engines import Engine
from sixfold.distributed.logical_shards import shard_count
from sixfold.perf.plan.calibrate import calibrate, fitting_meshes, model_of, refusals
from sixfold.perf.plan.calibration import load_if_there, save
from sixfold.perf.plan.candidates import Candidate, Prediction, Workload, candidates
from sixfold.perf.plan.ranking import best, equality, explain, prediction_plain, ranked
from sixfold.perf.plan.replan import look_again
from sixfold.training.config import AUTO, TrainConfig
from sixfold.training.strategies.model_parallel.grid import Grid
from sixfold.training.strategies.spec import BIT_FOR_BIT, ROUNDING
from sixfold.training.watch import Expected
from sixfold.training.worker import FIRST_TIMED_STEP

LEAST_GAIN = 0.02
"""By which a division of each layer must be quicker, by estimates, than the quickest grid."""

FEWEST_STEPS = 5
"""Of a run whose steps are compared with the prediction."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the planner chose."""

    workers: int  # ranks
    plan: dict[str, Any]  # `plan.json`: the way that was chosen, all ways, and the explanation
    slots: int  # ranks that can compute at the same time
    replan: bool = False  # whether steps are compared with the plan while they are made

    @property
    def expected(self) -> Expected | None:
        """What steps should take, if they are to be compared with it."""
        if not self.replan:
            return None
        chosen = self.plan["chosen"]
        return Expected(ranks=self.workers, low_s=chosen["low_s"], high_s=chosen["high_s"])

    def again(self, figures: Mapping[str, Any], on_event: OnEvent) -> "Choice":
        """The choice after steps have taken another time than was predicted."""
        plan = look_again(self.plan, self.slots, figures)
        on_event({"kind": "note", "text": plan["looks"][-1]["text"]})
        return dataclasses.replace(self, workers=plan["chosen"]["workers"], plan=plan)

    def apply(self, config: TrainConfig) -> TrainConfig:
        """The settings with the choice in the place of `auto`."""
        chosen = self.plan["chosen"]
        strategy = dataclasses.replace(
            config.strategy, strategy=chosen["strategy"], grid=chosen["grid"]
        )
        return dataclasses.replace(config, strategy=strategy)

    def judge(self, directory: RunDirectory) -> dict[str, Any]:
        """The prediction next to what the steps took."""
        chosen = self.plan["chosen"]
        actual = _step_s(directory)
        if actual is not None and chosen["strategy"] == "hogwild":  # a round has one of each rank
            actual = round(actual / chosen["workers"], 9)
        return {
            "chosen": {
                name: chosen[name] for name in ("strategy", "grid", "workers", "result", "batch_s")
            },
            "actual_step_s": actual,
            "error": None if actual is None else round(chosen["batch_s"] / actual - 1.0, 6),
            "reasons": self.plan["sentences"],
            "looks": self.plan.get("looks", []),
        }


def _step_s(directory: RunDirectory) -> float | None:
    """Seconds from one step's end to the next one's, in the middle of all; None if too few."""
    times = []
    for line in directory.file("metrics.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        if "loss" in found:
            times.append((found["step"], found["time"]))
    steps = [
        late - soon
        for (number, soon), (after, late) in pairwise(times)
        if after == number + 1 and number >= FIRST_TIMED_STEP
    ]
    return round(median(steps), 7) if len(steps) >= FEWEST_STEPS else None


def choose(
    config: TrainConfig,
    opened: DataSet,
    engine: Engine,
    workers: int,
    directory: RunDirectory,
    on_event: OnEvent,
) -> Choice:
    """Measure, predict, and choose among at most so many workers; a resumed run keeps its choice.

    Raises:
        UserError: if nothing fits into memory, or nothing can be divided as it should be.
    """
    slots, replan = engine.slots(), config.strategy.replan
    kept = _kept(directory, workers, slots, replan) if config.run.resume else None
    if kept is not None:
        return kept
    grids = config.strategy.grid == AUTO
    allowed: tuple[str, ...] = (BIT_FOR_BIT,)
    if grids or not config.strategy.deterministic:
        allowed = (BIT_FOR_BIT, ROUNDING)
    fitting = fitting_meshes(config, opened, workers) if ROUNDING in allowed else []
    known = load_if_there(config.strategy.machine)
    made = calibrate(
        config,
        opened,
        engine,
        workers,
        known=known,
        fitting=fitting,
        inexact=False,
        on_event=on_event,
    )
    if made is not known and config.strategy.machine is not None:
        save(made, Path(config.strategy.machine))
    model, notes = model_of(config, made, opened)
    for note in notes:
        on_event({"kind": "note", "text": note})
    ways = _grids(config, workers, fitting) if grids else candidates(config, workers, fitting)
    found = [model.predict(way) for way in ways if model.knows(way)]
    if grids:
        found += _by_layer(config, opened, found, model.work)
    found = [one for one in ranked(found) if equality(one) in allowed]
    chosen = best(found, allowed)
    refused = refusals(config, opened, max(min(workers, made.machine.slots), 1))
    if chosen is None and 1 in refused and not grids:
        raise UserError(f"{refused[1]}: try --strategy model_parallel --grid auto")
    if chosen is None:
        raise UserError(explain(found, model.work)[0])
    text = (
        f"chosen: {chosen.candidate.title}, equal to serial training {equality(chosen)}; predicted "
        f"{1000 * chosen.batch_s:.3g} ms a step ({1000 * chosen.low_s:.3g} to "
        f"{1000 * chosen.high_s:.3g})"
    )
    on_event({"kind": "note", "text": text})
    plan = {
        "chosen": prediction_plain(chosen),
        "ways": [prediction_plain(one) for one in found],
        "sentences": explain(found, model.work),
        "notes": notes,
    }
    return Choice(workers=chosen.candidate.workers, plan=plan, slots=slots, replan=replan)


def _grids(config: TrainConfig, workers: int, fitting: Any) -> list[Candidate]:
    """All grids of so many workers, the one of the batch alone among them."""
    batch = Candidate(strategy="model_parallel", workers=workers, grid=Grid(batch=workers))
    return [batch, *(way for way in candidates(config, workers, fitting) if way.mesh)]


def _by_layer(
    config: TrainConfig, opened: DataSet, found: list[Prediction], work: Workload
) -> list[Prediction]:
    """Ways in which each layer is divided by itself, predicted from the grids next to them.

    What is measured are grids; by how much a division of each layer is quicker is estimated.
    """
    from sixfold.perf.plan.layer_ways import WaySearch
    from sixfold.training.strategies.model_parallel.division import LayerGrid
    from sixfold.training.strategies.model_parallel.strategy import skeleton

    network = skeleton(config.model, opened.shape, opened.outputs, config.training.seed).network
    shards = shard_count(work.batch_size, batch_norm=work.batch_norm, wanted=work.shards)
    best: list[Prediction] = []
    for batch in sorted({one.candidate.grid.batch for one in found if one.candidate.mesh}):
        divided = [p for p in found if p.candidate.mesh and p.candidate.grid.batch == batch]
        grid = min(divided, key=lambda one: one.batch_s)
        own = -(-shards // batch)
        ranks = grid.candidate.grid.mesh.size
        search = WaySearch(network, opened.shape, ranks, work.batch_size / shards, own)
        ways, known = search.best(), search.of(LayerGrid(mesh=grid.candidate.grid.mesh))
        if ways.grid.layers and ways.shard_s < (1 - LEAST_GAIN) * known.shard_s:
            division = dataclasses.replace(ways.grid, batch=batch)
            candidate = dataclasses.replace(grid.candidate, grid=division)
            best.append(_scaled(grid, candidate, ways.shard_s / known.shard_s, work.steps))
    return best


def _scaled(grid: Prediction, candidate: Candidate, factor: float, steps: int) -> Prediction:
    times = ("batch_s", "low_s", "high_s", "mean_s", "compute_s", "exchange_s", "waiting_s")
    scaled = {name: factor * getattr(grid, name) for name in times}
    total_s = grid.total_s + (factor - 1.0) * grid.mean_s * steps
    return dataclasses.replace(grid, candidate=candidate, total_s=total_s, **scaled)


def _kept(directory: RunDirectory, workers: int, slots: int, replan: bool) -> Choice | None:
    """The choice of an earlier start, as far as there are the workers for it."""
    try:
        plan = parse_json(directory.file("plan.json").read_bytes())
        count = int(plan["chosen"]["workers"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if count > workers:
        return None
    return Choice(workers=count, plan=plan, slots=slots, replan=replan)
