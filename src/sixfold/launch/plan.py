"""The launcher of a plan: checks, calibrates, predicts, and writes `plan.json` and `plan.html`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold import data as datasets
from sixfold.config import TrainConfig
from sixfold.engines import Engine
from sixfold.errors import UserError
from sixfold.files import write_atomically, write_json
from sixfold.launch.common import Listener, open_engine_for, versions
from sixfold.launch.planning import (
    calibrate,
    fitting_tiles,
    load_machine,
    model_of,
    save_machine,
)
from sixfold.launch.training import fit_data, training_problems
from sixfold.plan import page
from sixfold.plan.calibration import Calibration
from sixfold.plan.candidates import candidates
from sixfold.plan.model import Model
from sixfold.plan.options import PlanConfig, training_of
from sixfold.plan.prediction import Prediction, Workload
from sixfold.plan.ranking import best, explain, prediction_plain, ranked

PRELOAD = ("sixfold.plan.gang",)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan, as the launcher hands it on.

    Attributes:
        predictions: of all ways, the best first.
        lines: of the table.
        sentences: the explanation.
        work: what is trained.
        calibration: what it rests on.
        notes: what was left out and why.
        files: that were written.
        seconds: that predicting took, calibration left out.
    """

    predictions: list[Prediction]
    lines: list[page.Row]
    sentences: list[str]
    work: Workload
    calibration: Calibration
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    seconds: float = 0.0

    def text(self) -> list[str]:
        """For the terminal."""
        told = [f"note: {note}" for note in self.notes]
        return [
            *page.table(self.lines),
            "",
            *self.sentences,
            *told,
            *(f"{path.suffix[1:]:<18} {path}" for path in self.files),
        ]


def plan_problems(config: PlanConfig) -> list[str]:
    """Everything that is wrong with the settings and can be told without reading any image."""
    return training_problems(training_of(config))


def plan(
    config: PlanConfig, *, engine: Engine | None = None, listen: Listener | None = None
) -> Plan:
    """Predict what every way to divide a training would take.

    Args:
        config: the settings.
        engine: an open engine to be used and left open; one is opened if absent.
        listen: called with progress.

    Raises:
        UserError: if the settings, the data or the cluster do not fit.
        RunError: if a rank was lost while it measured.
    """
    listen = listen or (lambda _: None)
    found = plan_problems(config)
    if found:
        raise UserError(found)
    training = training_of(config)
    known = load_machine(config.planning.machine)
    with contextlib.ExitStack() as stack:
        if engine is None:
            engine = stack.enter_context(
                open_engine_for(config.engine, config.model.model, preload=PRELOAD)
            )
        workers = config.engine.workers or engine.slots()
        resolved = fit_data(training, engine, workers, listen)
        opened = datasets.open_data(resolved.data)
        tiles = fitting_tiles(resolved, opened, workers)
        calibration = calibrate(resolved, engine, workers, known=known, tiles=tiles, listen=listen)
    if calibration is not known:
        save_machine(calibration, config.planning.machine)
    model, notes = model_of(resolved, calibration, opened)
    began = time.perf_counter()
    predictions = predict_all(model, resolved, workers, tiles)
    seconds = time.perf_counter() - began
    images = len(opened.train)
    made = Plan(
        predictions=predictions,
        lines=page.rows(predictions, model.work, images),
        sentences=explain(predictions, model.work),
        work=model.work,
        calibration=calibration,
        notes=(*notes, *_left_out(model, resolved, workers, tiles)),
        seconds=seconds,
    )
    return write(made, Path(config.planning.out), training, images)


def predict_all(
    model: Model, config: TrainConfig, workers: int, tiles: Sequence[Any]
) -> list[Prediction]:
    """All ways for which enough was rehearsed, the best first."""
    ways = candidates(config, workers, tiles)
    return ranked([model.predict(way) for way in ways if model.knows(way)])


def _left_out(model: Model, config: TrainConfig, workers: int, tiles: Sequence[Any]) -> list[str]:
    names = [way.name for way in candidates(config, workers, tiles) if not model.knows(way)]
    if not names:
        return []
    return [f"left out, because there was no time to rehearse them: {', '.join(names)}"]


def write(made: Plan, folder: Path, config: TrainConfig, images: int) -> Plan:
    """Write `plan.json` and `plan.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, html_path = folder / "plan.json", folder / "plan.html"
    write_json(json_path, plan_as_plain(made))
    machine = made.calibration.machine
    text = page.render(
        title=f"{config.model.model}, {made.work.batch_size} images a batch",
        subtitle=f"{config.data.data} · {images:,} images · {machine.name} · {machine.engine}",
        predictions=made.predictions,
        lines=made.lines,
        sentences=made.sentences,
        notes=made.notes,
        facts=_facts(made),
    )
    write_atomically(html_path, text.encode())
    return dataclasses.replace(made, files=(json_path, html_path))


def plan_as_plain(made: Plan) -> dict[str, Any]:
    """A plan as plain data."""
    chosen = best(made.predictions)
    return {
        "chosen": None if chosen is None else prediction_plain(chosen),
        "ways": [prediction_plain(found) for found in made.predictions],
        "sentences": made.sentences,
        "notes": list(made.notes),
        "work": dataclasses.asdict(made.work),
        "machine": dataclasses.asdict(made.calibration.machine),
        "predicting_s": round(made.seconds, 6),
        "versions": versions(),
    }


def _facts(made: Plan) -> dict[str, str]:
    machine = made.calibration.machine
    return {
        "Machine": machine.name,
        "Ranks at a time": f"{machine.slots} on {machine.hosts} host(s)",
        "Start-up of the ranks": f"{machine.startup_s:.2f} s",
        "An empty job of the engine": f"{1000 * machine.job_s:.0f} ms",
        "Memory that a host may give": page.size(machine.available_bytes),
        "Steps": f"{made.work.steps:,}",
    }
