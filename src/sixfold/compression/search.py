"""The search for sparsity and bits of each layer under a bound, as a job over an engine's workers.

First every layer is pruned alone, to many degrees, and the loss is noted (one member a layer).
Then networks with a few parts of their weights kept, the damage spread evenly over the layers, are
pruned, trained, shared and coded in full (one member each), and the interval between the smallest
that holds the bound and the largest that does not is divided again. The smallest file that holds
the bound is the result. Everything is judged on the validation part.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sixfold.compression.codec.plan import Plan
from sixfold.compression.codec.sensitivity import sparsity_for
from sixfold.compression.codec.stages import FILES, CompressionTask
from sixfold.compression.codec.trial import sensitivity, trial
from sixfold.core.errors import RunError
from sixfold.core.events import OnEvent
from sixfold.core.files import file_sha256
from sixfold.core.run_directory import as_json
from sixfold.distributed.engines import Engine
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.distributed.tasks import Assignment, Task, cache_keys, run_job
from sixfold.training.sparsity import Prunable

FIRST_PARTS = (0.12, 0.06, 0.03, 0.015)  # Parts of the weights kept in the first trials
LARGER_PARTS = (0.25, 0.5)  # Tried where none of the first holds the bound
REFINEMENTS = 2  # How often the interval that is left is divided


Key = TypeVar("Key", str, float)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The smallest file that holds the bound."""

    plan: Plan  # its sparsity and bits
    files: dict[str, Path]  # after each stage
    figures: dict[str, Any]  # of all trials, for the report


@dataclass(frozen=True, kw_only=True)
class _Trial:
    sparsity: Mapping[str, float]
    folder: Path
    figures: dict[str, Any]


def search(
    task: CompressionTask,
    layers: Sequence[Prunable],
    bound: float,
    folder: Path,
    engine: Engine,
    workers: int,
    on_event: OnEvent,
) -> Found:
    """Find the smallest network within a bound."""
    job = _Search(task=task, folder=folder, engine=engine, workers=workers, on_event=on_event)
    names = [layer.name for layer in layers]
    costs = job.run({name: (f"pruning {name}", {"layer": name}) for name in names})
    losses = {name: costs[name].figures["losses"] for name in names}
    accuracy = costs[names[0]].figures["validation_accuracy"]
    target = accuracy - bound
    job.note(
        f"dense: validation accuracy {accuracy:.2%}; the smallest network of at least "
        f"{target:.2%} is searched"
    )
    sizes = {layer.name: layer.size for layer in layers}
    trials: dict[float, _Trial] = {}
    parts: Sequence[float] = FIRST_PARTS
    for _ in range(1 + REFINEMENTS):
        plans = {part: sparsity_for(part, losses, sizes) for part in parts}
        asked = {
            part: (f"{part:.2%} kept", {"sparsity": plan, "target": target})
            for part, plan in plans.items()
        }
        for part, found in job.run(asked).items():
            trials[part], figures = found, found.figures
            size = f", {figures['bytes']:,} bytes" if figures["reached"] else ", not enough"
            job.note(f"{part:.2%} kept: validation accuracy {figures['accuracy']:.2%}{size}")
        if any(one.figures["reached"] for one in trials.values()):
            parts = _between(trials, workers)
        else:
            parts = [part for part in LARGER_PARTS if part not in trials]
        if not parts:
            break
    return _smallest(trials, target, accuracy)


def _between(trials: Mapping[float, _Trial], workers: int) -> list[float]:
    """Parts that divide the interval in which the limit must lie, as many as there are workers."""
    reached = {part: one.figures["reached"] for part, one in trials.items()}
    good = min(part for part in reached if reached[part])
    bad = max((part for part in reached if part < good and not reached[part]), default=good / 2)
    if good / bad < 1.1:
        return []
    count = min(max(workers, 1), 3)
    step = math.log(good / bad) / (count + 1)
    return [round(bad * math.exp(step * (number + 1)), 5) for number in range(count)]


def _smallest(trials: Mapping[float, _Trial], target: float, dense: float) -> Found:
    good = [one for one in trials.values() if one.figures["reached"]]
    if not good:
        best = max(one.figures["accuracy"] for one in trials.values())
        raise RunError(
            f"no compressed network reaches a validation accuracy of {target:.2%} (best "
            f"{best:.2%}): allow a larger --max-accuracy-loss, or more --prune-epochs"
        )
    best = min(good, key=lambda one: one.figures["bytes"])
    inner = best.folder / best.figures["folder"]
    return Found(
        plan=Plan(sparsity=dict(best.sparsity), bits=best.figures["bits"]),
        files={
            stage: (best.folder if stage == "prune" else inner) / file
            for stage, file in FILES.items()
        },
        figures={
            "target": target,
            "dense_validation_accuracy": dense,
            "trials": [{"kept": part} | one.figures for part, one in sorted(trials.items())],
        },
    )


@dataclass(kw_only=True)
class _Search:
    task: CompressionTask
    folder: Path
    engine: Engine
    workers: int
    on_event: OnEvent
    common: dict[str, Any] = field(init=False)  # what every member's result depends on

    def __post_init__(self) -> None:
        task, settings = self.task, self.task.settings
        self.common = {
            "weights": file_sha256(task.weights),
            "base": as_json(task.base) | {"engine": {}, "run": {}},
            "epochs": [settings.prune_epochs, settings.share_epochs],
            "rates": [*task.pruning_rates, settings.share_lr],
            "rounds": settings.rounds,
            "start": settings.kmeans_init,
            "coder": settings.coder,
        }

    def note(self, text: str) -> None:
        self.on_event({"kind": "note", "text": text})

    def run(self, asked: Mapping[Key, tuple[str, dict[str, Any]]]) -> dict[Key, _Trial]:
        members = {
            key: Task(name=name, settings=settings | self.common)
            for key, (name, settings) in asked.items()
        }
        tasks = list(members.values())
        self.folder.mkdir(parents=True, exist_ok=True)
        outcome = run_job(
            self.folder,
            tasks,
            functools.partial(_work, self.task),
            self.engine,
            workers=self.workers,
            on_event=self.on_event,
            log=self.folder / "log.txt",
        )
        if outcome.failures:
            name, reason = next(iter(outcome.failures.items()))
            raise RunError(f"{name}: {reason}")
        folders = cache_keys(tasks)
        return {
            key: _Trial(
                sparsity=member.settings.get("sparsity", {}),
                folder=self.folder / "members" / folders[member.name],
                figures=outcome.results[member.name],
            )
            for key, member in members.items()
        }


def _work(task: CompressionTask, assignment: Assignment) -> dict[str, Any]:
    settings = assignment.settings
    with one_thread():
        if "layer" in settings:
            return sensitivity(task, settings["layer"])
        return trial(
            task,
            settings["sparsity"],
            settings["target"],
            assignment.folder,
            lambda part: assignment.report_progress(part=part),
        )
