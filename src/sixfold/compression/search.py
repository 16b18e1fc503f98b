"""The search for sparsity and bits of each layer under a bound, as a job over an engine's workers.

First every layer is pruned alone, to many degrees, and the loss is noted (one member a layer).
Then networks with a few parts of their weights kept, the damage spread evenly over the layers, are
pruned, trained, shared and coded in full (one member each), and the interval between the smallest
that holds the bound and the largest that does not is divided again. The smallest file that holds
the bound is the result. Everything is judged on the validation part.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.compression.codec.pipeline import RetrainingTask
from sixfold.compression.codec.plan import Plan
from sixfold.compression.codec.sensitivity import sparsity_for
from sixfold.compression.codec.trial import SearchWork
from sixfold.core.errors import RunError
from sixfold.core.events import OnEvent
from sixfold.core.run_directory import as_json
from sixfold.distributed.engines import Engine
from sixfold.distributed.tasks import Assignment, Outcome, Task, cache_keys, run_job
from sixfold.training.sparsity import Prunable

FIRST_PARTS = (0.12, 0.06, 0.03, 0.015)
"""Parts of the weights kept in the first trials."""
LARGER_PARTS = (0.25, 0.5)
"""Tried where none of the first holds the bound."""
REFINEMENTS = 2
"""How often the interval that is left is divided."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The smallest file that holds the bound."""

    plan: Plan  # its sparsity and bits
    pruned: Path  # its file after pruning
    folder: Path  # with its files after sharing and coding
    figures: dict[str, Any]  # of all trials, for the report


def search(
    task: RetrainingTask,
    layers: Sequence[Prunable],
    bound: float,
    folder: Path,
    engine: Engine,
    workers: int,
    on_event: OnEvent,
) -> Found:
    """Find the smallest network within a bound."""
    job = _Search(task=task, folder=folder, engine=engine, workers=workers, on_event=on_event)
    losses = job.sensitivities([layer.name for layer in layers])
    target = job.dense_accuracy - bound
    job.note(
        f"dense: validation accuracy {job.dense_accuracy:.2%}; the smallest network of at least "
        f"{target:.2%} is searched"
    )
    sizes = {layer.name: layer.size for layer in layers}
    parts: Sequence[float] = FIRST_PARTS
    for _ in range(1 + REFINEMENTS):
        job.try_parts(parts, {part: sparsity_for(part, losses, sizes) for part in parts}, target)
        if not any(trial["reached"] for trial in job.trials.values()):
            parts = [part for part in LARGER_PARTS if part not in job.trials]
        else:
            parts = _between(job.trials, workers)
        if not parts:
            break
    return job.smallest(target)


def _between(trials: dict[float, dict[str, Any]], workers: int) -> list[float]:
    """Parts that divide the interval in which the limit must lie, as many as there are workers."""
    good = min(part for part, trial in trials.items() if trial["reached"])
    bad = max((p for p, t in trials.items() if p < good and not t["reached"]), default=good / 2)
    if good / bad < 1.1:
        return []
    count = min(max(workers, 1), 3)
    step = math.log(good / bad) / (count + 1)
    return [round(bad * math.exp(step * (number + 1)), 5) for number in range(count)]


@dataclass(kw_only=True)
class _Search:
    """A search on its way."""

    task: RetrainingTask
    folder: Path
    engine: Engine
    workers: int
    on_event: OnEvent
    dense_accuracy: float = 0.0

    def __post_init__(self) -> None:
        self.trials: dict[float, dict[str, Any]] = {}
        self._plans: dict[float, dict[str, float]] = {}
        self._folders: dict[float, Path] = {}
        weights = hashlib.sha256(self.task.weights.read_bytes()).hexdigest()
        retraining = self.task.retraining
        self._common = {
            "weights": weights,
            "base": as_json(retraining.base) | {"engine": {}, "run": {}},
            "epochs": [retraining.prune_epochs, retraining.share_epochs],
            "rates": [retraining.lr, retraining.weight_decay, retraining.share_lr],
            "rounds": self.task.rounds,
            "start": self.task.start,
            "coder": self.task.coder,
        }

    def note(self, text: str) -> None:
        self.on_event({"kind": "note", "text": text})

    def sensitivities(self, names: Sequence[str]) -> dict[str, list[float]]:
        """What pruning each layer alone costs."""
        members = [
            Task(name=f"pruning {name}", settings={"layer": name} | self._common) for name in names
        ]
        results = self._run(members).results
        self.dense_accuracy = results[members[0].name]["validation_accuracy"]
        return {n: results[m.name]["losses"] for n, m in zip(names, members, strict=True)}

    def try_parts(
        self, parts: Sequence[float], plans: dict[float, dict[str, float]], target: float
    ) -> None:
        """Compress in full with each of these parts kept."""
        members = {
            part: Task(
                name=f"{part:.2%} kept",
                settings={"sparsity": plans[part], "target": target} | self._common,
            )
            for part in parts
        }
        names = cache_keys(list(members.values()))
        results = self._run(list(members.values())).results
        for part, member in members.items():
            self.trials[part] = trial = results[member.name]
            self._plans[part] = plans[part]
            self._folders[part] = self.folder / "members" / names[member.name]
            size = f", {trial['bytes']:,} bytes" if trial["reached"] else ", not enough"
            self.note(f"{part:.2%} kept: validation accuracy {trial['accuracy']:.2%}{size}")

    def smallest(self, target: float) -> Found:
        """The result."""
        good = {part: trial for part, trial in self.trials.items() if trial["reached"]}
        if not good:
            best = max(trial["accuracy"] for trial in self.trials.values())
            raise RunError(
                f"no compressed network reaches a validation accuracy of {target:.2%} (best "
                f"{best:.2%}): allow a larger --max-accuracy-loss, or more --prune-epochs"
            )
        part = min(good, key=lambda part: good[part]["bytes"])
        figures = {
            "target": target,
            "dense_validation_accuracy": self.dense_accuracy,
            "trials": [{"kept": part} | trial for part, trial in sorted(self.trials.items())],
        }
        return Found(
            plan=Plan(sparsity=self._plans[part], bits=good[part]["bits"]),
            pruned=self._folders[part] / "pruned.sixz",
            folder=self._folders[part] / good[part]["folder"],
            figures=figures,
        )

    def _run(self, members: list[Task]) -> Outcome:
        self.folder.mkdir(parents=True, exist_ok=True)
        outcome = run_job(
            self.folder,
            members,
            functools.partial(_work, SearchWork(task=self.task)),
            self.engine,
            workers=self.workers,
            on_event=self.on_event,
            log=self.folder / "log.txt",
        )
        if outcome.failures:
            name, reason = next(iter(outcome.failures.items()))
            raise RunError(f"{name}: {reason}")
        return outcome


def _work(work: SearchWork, assignment: Assignment) -> dict[str, Any]:
    """What a worker does for a member."""
    settings = assignment.settings
    if "layer" in settings:
        return work.sensitivity(settings["layer"])
    return work.trial(
        settings["sparsity"],
        settings["target"],
        assignment.folder,
        lambda part: assignment.report_progress(part=part),
    )
