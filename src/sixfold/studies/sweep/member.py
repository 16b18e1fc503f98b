"""What is done for a member of a sweep: an ordinary training in the member's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.config import RunConfig
from sixfold.core.errors import NonFiniteLossError, UserError
from sixfold.core.events import OnEvent
from sixfold.core.run_directory import RunDirectory, read_json, read_json_lines
from sixfold.distributed.engines import Engine, open_engine
from sixfold.distributed.session import open_engine_for
from sixfold.distributed.tasks import Assignment
from sixfold.models.project import refuse_edited
from sixfold.studies.sweep.plan import MOST_STEPS, PILOT_STEPS
from sixfold.studies.sweep.results import Timing, TrainingRow
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.worker import FIRST_TIMED_STEP

RUN = "run"  # the training's own directory within the member's folder
PARTS = ("compute", "data", "communication", "waiting", "update")
"""Of a step's time, as ranks write them."""

_BULKY = ("checkpoints", "snapshots", "servers")


class Engines:
    """The engine that was used last, kept open for the next training; to be used in a `with`.

    Only one is open at a time: a JVM or fork servers that wait would take part in the timing.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._engine: Engine | None = None
        self._key: Any = None

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, config: TrainConfig) -> Engine:
        """The engine for a training."""
        key = (
            dataclasses.replace(config.engine, workers=None, max_restarts=None),
            config.model.model,
            config.compute.cpu_isa,
        )
        if self._engine is None or key != self._key:
            self._stack.close()
            self._engine = self._stack.enter_context(
                open_engine_for(config.engine, config.model.model, cpu_isa=config.compute.cpu_isa)
            )
            self._key = key
        return self._engine


@dataclass(frozen=True, kw_only=True)
class TimeWork:
    """Times a training."""

    configs: Mapping[str, TrainConfig]  # settings of each member, by name
    # Where they run, one after another, in the launcher; None: each opens its own.
    engines: Engines | None = None

    def __call__(self, assignment: Assignment) -> dict[str, Any]:
        """Train, and return how long it took; what cannot be is returned as refused."""
        if self.engines is not None:
            return self._timed(assignment, self.engines)
        with Engines() as engines:
            return self._timed(assignment, engines)

    def _timed(self, assignment: Assignment, engines: Engines) -> dict[str, Any]:
        settings, config = assignment.settings, self.configs[assignment.name]
        training = config.training
        if settings["task"] == "pilot":
            training = dataclasses.replace(training, steps=PILOT_STEPS, epochs=None)
        elif assignment.dependencies:
            (folder,) = assignment.dependencies.values()
            pilot: dict[str, Any] = (read_json(folder / "result.json") or {})["result"]
            if "refused" in pilot:
                return pilot
            steps = chosen_steps(pilot, settings["seconds"])
            training = dataclasses.replace(training, steps=steps, epochs=None)
        config = dataclasses.replace(
            config, training=dataclasses.replace(training, evaluate_every=0.0)
        )
        before = os.getloadavg()[0]
        folder = assignment.folder / RUN
        result = _train(config, folder, engines.open(config), assignment, resume=False)
        if "diverged" in result:
            result = {"refused": result["diverged"]}
        if "refused" not in result:
            result = dataclasses.asdict(_timing(folder, result, config, before))
        _slim(folder)
        return result


def _timing(run: Path, result: Mapping[str, Any], config: TrainConfig, before: float) -> Timing:
    rate = result.get("train_images_per_s")
    return Timing(
        images_per_s=rate,
        step_s=config.training.batch_size / rate if rate else None,
        parts=_parts(run),
        **{name: result[name] for name in ("startup_s", "wall_s", "training_s", "steps")},
        load_before=before,
    )


def _parts(run: Path) -> dict[str, float]:
    """Mean seconds of a step by what they went to; empty where ranks keep no time line."""
    rows = []
    for path in sorted((run / "timeline").glob("rank-*.jsonl")):
        for line in read_json_lines(path):
            if line.get("step", 0) > FIRST_TIMED_STEP:
                rows.append([float(line.get(f"{part}_s", 0.0)) for part in PARTS])
    return dict(zip(PARTS, map(float, np.mean(rows, axis=0)), strict=True)) if rows else {}


def chosen_steps(pilot: Mapping[str, Any], seconds: float) -> int:
    """So many steps that a training lasts about so long behind its third step."""
    step_s = pilot["step_s"] or seconds
    return min(max(math.ceil(seconds / step_s), 5) + FIRST_TIMED_STEP, MOST_STEPS)


@dataclass(frozen=True, kw_only=True)
class QualityWork:
    """Trains with a worker alone; several ranks take turns within it."""

    configs: Mapping[str, TrainConfig]  # settings of each member, by name

    def __call__(self, assignment: Assignment) -> dict[str, Any]:
        """Train to the end, and return what was reached."""
        config = self.configs[assignment.name]
        if config.strategy.strategy == "sync":  # however many workers there are, the same bits
            alone = dataclasses.replace(config.engine, workers=1)
            config = dataclasses.replace(config, engine=alone)
        folder = assignment.folder / RUN
        with contextlib.closing(open_engine("inline")) as engine:
            found = _train(config, folder, engine, assignment, resume=True)
        _slim(folder)
        if "refused" in found or "diverged" in found:
            return found
        names = [field.name for field in dataclasses.fields(TrainingRow)]
        return {name: found[name] for name in names if name in found} | {
            "accuracy": found.get("validation_accuracy", found.get("test_accuracy"))
        }


def _train(
    config: TrainConfig, folder: Path, engine: Engine, assignment: Assignment, *, resume: bool
) -> dict[str, Any]:
    """A training's result; or `refused`, or `diverged`, with the reason."""
    goes_on = resume and RunDirectory(folder).holds_a_run()
    config = dataclasses.replace(
        config,
        run=RunConfig(out=str(folder), resume=goes_on, overwrite=not goes_on, keep_checkpoints=1),
    )
    _refuse_edited(config, assignment)
    try:
        # A try whose worker is thought dead may hold the folder still: it is fenced off.
        return train(config, engine=engine, on_event=_progress_to(config, assignment), hold=False)
    except UserError as error:
        return {"refused": "; ".join(error.problems)}
    except NonFiniteLossError as error:
        return {"diverged": str(error)}


def _refuse_edited(config: TrainConfig, assignment: Assignment) -> None:
    files = assignment.settings.get("inputs", {}).get("files", {})
    refuse_edited(config.model.model, files)


def _progress_to(config: TrainConfig, assignment: Assignment) -> OnEvent:
    steps = config.training.steps

    def report(event: Mapping[str, Any]) -> None:
        if event.get("kind") != "progress":
            return
        part = event["step"] / steps if steps else 0.0
        if not steps and config.training.epochs:
            part = event["epoch"] / config.training.epochs
        assignment.report_progress(
            part=min(part, 1.0), epoch=event["epoch"], accuracy=event["accuracy"]
        )

    return report


def _slim(folder: Path) -> None:
    """Drop what only an unfinished training needs."""
    for name in _BULKY:
        shutil.rmtree(folder / name, ignore_errors=True)
