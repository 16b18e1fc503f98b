"""The launcher of a training: checks, prepares, starts the ranks, and writes result and report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sixfold import data
from sixfold.core.errors import SixfoldError, UserError
from sixfold.core.events import OnEvent
from sixfold.core.files import write_json
from sixfold.core.run_directory import RunDirectory, as_json, read_json
from sixfold.data.run import resolve_data, told
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for, restarts_of, versions
from sixfold.models.config import ModelConfig
from sixfold.models.project import project_hashes
from sixfold.training import validate
from sixfold.training.config import TrainConfig, is_automatic
from sixfold.training.initialization import check_initialization
from sixfold.training.inputs import RECORD, training_inputs
from sixfold.training.lengthening import (
    LENGTH,
    MARK,
    irrelevant_placement,
    lengthened,
    mark,
    refuse_lengthened,
)
from sixfold.training.report.write import report_failure, test_images
from sixfold.training.resume import existing_run, held_run, run_path
from sixfold.training.strategies.registry import find_strategy
from sixfold.training.tuning import COPY, take_tuning

Planner = Callable[[TrainConfig, Engine, int, RunDirectory, OnEvent], Any]
"""`sixfold.perf.plan.automatic.choose`, which stands above training."""


def train(
    config: TrainConfig | None = None,
    *,
    engine: Engine | None = None,
    on_event: OnEvent | None = None,
    hold: bool = True,
    planner: Planner | None = None,
) -> dict[str, Any]:
    """Train a network and return the figures that `result.json` holds.

    Args:
        config: the settings; without any, LeNet-5 learns the embedded digits.
        engine: an open engine to be used and left open; one is opened for the run if absent.
        on_event: called with progress.
        hold: whether to keep other processes out of the run directory; false where it lies in one
            that is held already.
        planner: chooses where `--strategy auto` or `--grid auto` asks for it.

    Raises:
        UserError: if the settings, the data or the cluster do not fit; nothing is left behind.
        RunError: if the run failed; its directory keeps the last checkpoint.

    >>> from sixfold.core.config import EngineConfig
    >>> train(TrainConfig(engine=EngineConfig(workers=0)))
    Traceback (most recent call last):
    sixfold.core.errors.UserError: --workers 0: must be at least 1
    """
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    config = config or TrainConfig()
    with contextlib.ExitStack() as stack:
        if engine is None and config.engine.engine == "local":
            # Its fork server imports torch while the launcher does.
            engine = stack.enter_context(
                open_engine_for(config.engine, config.model.model, together=True)
            )
        found = training_problems(config)
        if found:
            raise UserError(found)
        asked, config = config, resolve_paths(fit_digits(config))
        if (side := config.data.resize) != asked.data.resize:
            text = f"{config.model.model}: 8x8 digits are too small: --resize {side} is taken"
            on_event({"kind": "note", "text": text})
        directory = RunDirectory(Path(str(config.run.out)))
        if hold:
            stack.enter_context(held_run(config, directory))
        inputs = training_inputs(config)
        finished = existing_run(
            config, directory, inputs, growing=LENGTH, where=irrelevant_placement(config)
        )
        if finished is not None:
            _refuse_damaged(finished, directory.file("result.json"))
            refuse_lengthened(config, directory)
            on_event({"kind": "note", "text": _told_finished(config, directory, finished)})
            return finished
        if engine is None:
            engine = stack.enter_context(
                open_engine_for(config.engine, config.model.model, together=True)
            )
        workers = config.engine.workers or engine.slots()
        resolved = fit_data(config, engine, workers, on_event)
        resolved, tuning = take_tuning(resolved, data.open_data(resolved.data), directory, on_event)
        choice = None
        if is_automatic(config):
            assert planner is not None, "sixfold.train hands one in"
            choice = planner(resolved, engine, workers, directory, on_event)
            resolved, workers = choice.apply(resolved), choice.workers
        opened = data.open_data(resolved.data)
        check_initialization(resolved, opened, directory, on_event)
        marks = []
        if config.run.resume:
            marks = lengthened(config, len(opened.train), directory, on_event)
        directory.create()
        if not config.run.resume:
            directory.clear()
        for name in ("failure.json", "result.json"):
            directory.file(name).unlink(missing_ok=True)
        inputs.knowing(config.data, resolved.data).write(directory)
        mark(directory, marks)
        write_json(directory.file("config.json"), as_json(config))
        if choice is not None:
            write_json(directory.file("plan.json"), choice.plan)
        if tuning is not None:
            write_json(directory.file(COPY), tuning)
        try:
            result = _run(resolved, config, directory, engine, workers, on_event, started)
            return result if choice is None else choice.judge(directory, result)
        except UserError:
            # Refused by engine or ranks: leave no half-begun run in the way of the next try.
            if not any(directory.file("checkpoints").glob("step-*")):
                directory.clear()
            raise
        except (SixfoldError, KeyboardInterrupt) as error:
            report_failure(directory, error)
            raise


def _told_finished(config: TrainConfig, directory: RunDirectory, result: Mapping[str, Any]) -> str:
    text = f"{directory.path} holds this run, finished"
    engine, workers = config.engine.engine, config.engine.workers or result["workers"]
    if (result["engine"], result["workers"]) != (engine, workers):
        text += f" by {result['workers']} workers on {result['engine']}"
    return text


_NUMBER = (int, float)
_RESULT: dict[str, type | tuple[type, ...]] = {
    "steps": int,
    "epochs": _NUMBER,
    "workers": int,
    "restarts": int,
    "wall_s": _NUMBER,
    "startup_s": _NUMBER,
    "engine": str,
    "strategy": str,
    "report": str,
    "weights_sha256": str,
}
"""What every finished training's result has."""

_MORE: dict[str, type | tuple[type, ...]] = {
    "test_accuracy": _NUMBER,
    "test_loss": _NUMBER,
    "train_images_per_s": (*_NUMBER, type(None)),
    "balanced_accuracy": (*_NUMBER, type(None)),
    "bad_files": list,
    "native_kernels": list,
}
"""What some have."""


def _refuse_damaged(result: dict[str, Any], file: Path) -> None:
    """Raise if a result that is to be told again is not as a training writes it."""
    wrong = [name for name, kind in _RESULT.items() if not isinstance(result.get(name), kind)]
    wrong += [n for n, kind in _MORE.items() if n in result and not isinstance(result[n], kind)]
    if wrong:
        raise UserError(
            f"{file} is damaged (no {wrong[0]} as a training writes it): remove it and go on with "
            "--resume, which makes it anew from the last checkpoint"
        )


def training_problems(config: TrainConfig) -> list[str]:
    """Everything that is wrong with the settings and can be told without reading any image."""
    return [
        *validate.problems(config),
        *data.problems(config.data),
        *_network_problems(config.model),
        *_device_problems(config),
    ]


def _network_problems(config: ModelConfig) -> list[str]:
    """What is wrong with the network's name and arguments, whatever the data are."""
    from sixfold.models.factory import model_factory

    try:
        model_factory(config, shape=(3, 32, 32), classes=10)
    except UserError as error:
        return list(error.problems)
    return []


def _device_problems(config: TrainConfig) -> list[str]:
    """Why the device cannot be used, if it could be with these settings."""
    from sixfold.training.step.device import device_problems

    return device_problems(config.compute.device)


def fit_digits(config: TrainConfig) -> TrainConfig:
    """Bring the embedded digits to the size that a network of the zoo is used for, if it needs it.

    So the first command, `sixfold train`, does something: 8x8 pixels are too few for most networks.
    """
    from sixfold import models
    from sixfold.models.zoo import ZOO

    known = ZOO.get(config.model.model)
    is_free = config.data.data == "digits" and config.data.resize is None
    if known is None or not is_free or not models.check(config.model, shape=(1, 8, 8), classes=10):
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, resize=known.side))


def resolve_paths(config: TrainConfig) -> TrainConfig:
    """Make the run directory's path absolute, choosing a name if none was given."""
    path = run_path(config, TrainConfig(), config.model.model)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, data=data.absolute_spec(config.data.data)),
        initialization=dataclasses.replace(
            config.initialization,
            weights=_absolute(config.initialization.weights),
            mask=_absolute(config.initialization.mask),
            shared=_absolute(config.initialization.shared),
        ),
        compute=dataclasses.replace(config.compute, tuning=_absolute(config.compute.tuning)),
        run=dataclasses.replace(config.run, out=str(path)),
    )


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def fit_data(config: TrainConfig, engine: Engine, workers: int, on_event: OnEvent) -> TrainConfig:
    """Check data and network against each other; turn the data into something ranks can map.

    Raises:
        UserError: with everything that does not fit.
    """
    from sixfold import models
    from sixfold.training.lone_images import lone_image_problems

    resolved = resolve_data(config.data, engine, workers, on_event)
    opened = data.open_data(resolved)
    strategy = config.strategy

    def tell(text: str) -> None:
        on_event({"kind": "note", "text": text})

    found = models.check(
        config.model,
        shape=opened.shape,
        classes=len(opened.classes),
        divided=strategy.strategy == "model_parallel",
        tell=None if strategy.deterministic else tell,
    )
    if not len(opened.train):
        raise UserError(
            f"--data {config.data.data}: has no labels to learn from; it can only be predicted"
        )
    if not len(opened.test):
        found.append(
            f"--data {config.data.data}: has no test images with labels"
            f"{f' ({opened.split})' if opened.split else ''}: give --test-split 0.2 to set a part "
            "of the training images aside"
        )
    if config.training.batch_size > len(opened.train):
        found.append(
            f"--batch-size {config.training.batch_size}: the training part of "
            f"{config.data.data} has only {len(opened.train)} images"
        )
    if not found:
        found += lone_image_problems(
            config,
            workers,
            images=len(opened.train),
            shape=opened.shape,
            classes=len(opened.classes),
        )
    if not is_automatic(config):
        found += find_strategy(strategy.strategy).fit_problems(config, workers, opened)
    if found:
        raise UserError(found)
    if opened.bad:
        on_event({"kind": "note", "text": f"left out of the data: {told(opened.bad)}"})
    return dataclasses.replace(config, data=resolved)


def _run(
    resolved: TrainConfig,
    config: TrainConfig,
    directory: RunDirectory,
    engine: Engine,
    workers: int,
    on_event: OnEvent,
    started: float,
) -> dict[str, Any]:
    from sixfold.training.report import optional_page, write_report
    from sixfold.training.worker import TrainJob, train_rank

    before_s = time.monotonic() - started
    chosen = resolved.strategy.strategy
    directory.path.joinpath("timeline").mkdir(exist_ok=True)
    now = time.time()
    launch = {"launched": now - before_s, "called": now, "pid": os.getpid()}
    write_json(directory.file("timeline/launcher.json"), launch)
    asynchronous = None
    launch_steps = find_strategy(chosen).launch
    if launch_steps is not None:
        asynchronous = launch_steps(resolved, directory, engine, workers, on_event)
        # What is left to the ranks is to evaluate and to write the weights.
    job = TrainJob(
        config=resolved,
        claim=directory.ticket(),
        source=project_hashes(config.model.model, config.model.model_args),
    )
    group = engine.run_ranks(
        functools.partial(train_rank, job),
        workers,
        max_restarts=restarts_of(config.engine),
        claim=directory.claim,
        on_event=lambda _, event: on_event(event),
        log=directory.file("log.txt"),
    )
    result = {
        **group.results[0],
        "wall_s": round(time.monotonic() - started, 3),
        "startup_s": round(before_s + group.startup_s, 3),
        "engine_startup_s": round(group.engine_s, 3),
        "strategy": chosen,
        "engine": config.engine.engine,
        "workers": workers,
        "restarts": group.restarts,
        "versions": versions(),
        "report": str(directory.file("report.html")),
    }
    if marks := (read_json(directory.file(RECORD)) or {}).get(MARK):
        result[MARK] = marks
    if asynchronous is not None:
        result |= asynchronous.figures
        result["restarts"] += asynchronous.restarts
        result["startup_s"] = round(before_s + asynchronous.begun_s, 3)
    write_json(directory.file("result.json"), result)
    with optional_page(directory.file("report.html")):
        write_report(directory.path, images=test_images(resolved.data))
    return result
