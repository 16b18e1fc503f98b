"""The launcher of a training: checks, prepares, starts the ranks, and writes result and report."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sixfold import data
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import file_problems, write_json
from sixfold.core.life_cycle import RECORD, Run, RunKind, open_run, run_path
from sixfold.core.run_directory import RunDirectory, read_json
from sixfold.data.dataset import ALL_TRAIN
from sixfold.data.origin import note_given
from sixfold.data.run import resolve_data, told
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for, restarts_of
from sixfold.models.config import ModelConfig
from sixfold.training.callbacks import make_callback
from sixfold.training.checkpoint import WEIGHTS
from sixfold.training.config import OptimizerConfig, TrainConfig, is_automatic
from sixfold.training.digits import fit_digits
from sixfold.training.initialization import check_initialization
from sixfold.training.inputs import Inputs, own_code, training_inputs
from sixfold.training.lengthening import (
    LENGTH,
    MARK,
    irrelevant_placement,
    lengthened,
    mark,
    refuse_lengthened,
)
from sixfold.training.model_card import read_card
from sixfold.training.result_file import refuse_damaged
from sixfold.training.selection import (
    OUT_OF_TIME,
    Pause,
    seconds,
    text_problems,
    validation_problems,
)
from sixfold.training.step.rules import class_of
from sixfold.training.step.schedule import budget
from sixfold.training.strategies.model_parallel.division import as_line, division_of
from sixfold.training.strategies.registry import find_strategy, least_ranks
from sixfold.training.tracking.config import TrackingConfig
from sixfold.training.tracking.session import send_rest, tracked
from sixfold.training.tuning import COPY, take_tuning
from sixfold.training.validate import cpu_isa_problems, optimizer_problems
from sixfold.training.view_record import ViewRecord
from sixfold.training.watch import Expected

Planner = Callable[[TrainConfig, data.DataSet, Engine, int, RunDirectory, OnEvent], Any]
"""`sixfold.perf.plan.automatic.choose`, which stands above training."""


def train(
    config: TrainConfig | None = None,
    *,
    engine: Engine | None = None,
    on_event: OnEvent | None = None,
    hold: bool = True,
    planner: Planner | None = None,
    pause: Pause | None = None,
) -> dict[str, Any]:
    """Train a network and return the figures that `result.json` holds.

    Args:
        config: the settings; without any, LeNet-5 learns the embedded digits.
        engine: an open engine to be used and left open; one is opened for the run if absent.
        on_event: called with progress.
        hold: whether to keep other processes out of the run directory; false where it lies in one
            that is held already.
        planner: chooses where `--strategy auto` or `--grid auto` asks for it.
        pause: where the training stands still, until it is resumed; if that is before its end, the
            figures are the metric and `steps` alone, and the run stays unfinished.

    Raises:
        UserError: if the settings, the data or the cluster do not fit; nothing is left behind.
        RunError: if the run failed; its directory keeps the last checkpoint.

    >>> from sixfold.distributed.config import EngineConfig
    >>> train(TrainConfig(engine=EngineConfig(workers=0)))
    Traceback (most recent call last):
    sixfold.core.errors.UserError: --workers 0: must be at least 1
    """
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    config = config or TrainConfig()
    asked, placed, model = config, config.engine, config.model.model
    with contextlib.ExitStack() as stack:

        def opened_engine() -> Engine:
            opening = open_engine_for(
                placed,
                model,
                together=True,
                given=engine,
                code=own_code(asked),
                cpu_isa=asked.compute.cpu_isa,
            )
            return stack.enter_context(opening)

        # The fork server of `local` imports torch while the launcher does.
        begins = placed.engine == "local" and not cpu_isa_problems(config)
        early = opened_engine() if begins else None
        raise_problems(training_problems(config))
        note_given(config.data.data)  # a run's own URL has been looked at, or is trusted
        notes: list[Mapping[str, Any]] = []
        config = resolve_paths(fit_digits(config, notes.append))
        for event in notes:  # after what may be refused
            on_event(event)
        run = stack.enter_context(
            open_run(
                dataclasses.replace(KIND, placement=(*irrelevant_placement(config), *APART)),
                config,
                str(config.run.out),
                inputs=(inputs := training_inputs(config)),
                on_event=on_event,
                started=started,
                hold=hold,
            )
        )
        if run.finished is not None:
            refuse_damaged(run.finished, run.directory.file("result.json"))
            if (weights := run.directory.file(WEIGHTS)).exists():
                read_card(weights, trust=True)  # whole, and those of which the result tells
            refuse_lengthened(config, run.directory)
            send_rest(config.tracking, run.directory, run.finished, on_event)
            return run.finished
        return _train(config, run, inputs, early or opened_engine(), planner, on_event, pause)


def _train(
    config: TrainConfig,
    run: Run,
    inputs: Inputs,
    engine: Engine,
    planner: Planner | None,
    on_event: OnEvent,
    pause: Pause | None,
) -> dict[str, Any]:
    """Check settings and data together, claim the directory, and train."""
    directory = run.directory
    workers = config.engine.workers or engine.slots()
    resolved, opened = fit_data(config, engine, workers, on_event)
    resolved, tuning = take_tuning(resolved, opened, directory, on_event)
    choice = None
    if is_automatic(config):
        assert planner is not None, "sixfold.train hands one in"
        choice = planner(resolved, opened, engine, workers, directory, on_event)
        resolved, workers = choice.apply(resolved), choice.workers
    check_initialization(resolved, opened, directory, on_event)
    marks = []
    if config.run.resume:
        marks = lengthened(config, len(opened.train), directory, on_event)
    inputs = inputs.knowing(config.data, resolved.data)
    run.claim(inputs)
    mark(directory, marks)
    if choice is not None:
        write_json(directory.file("plan.json"), choice.plan)
    if tuning is not None:
        write_json(directory.file(COPY), tuning)
    if (division := division_of(resolved)) is not None:
        write_json(directory.file("division.json"), division.file())
    with tracked(config.tracking, directory, on_event) as tracking:
        start = functools.partial(
            _run, resolved, run, inputs, engine, views=ViewRecord(on_event), pause=pause
        )
        figures = start(workers, on_event=on_event, expected=choice and choice.expected)
        while choice is not None and "deviation" in figures:
            choice = choice.again(figures, on_event)
            write_json(directory.file("plan.json"), choice.plan)
            figures = start(
                choice.workers, on_event=on_event, expected=choice.expected, before=figures
            )
        if "weights_sha256" not in figures:
            return figures
        if choice is not None:
            figures["plan"] = choice.judge(directory)

        def write_page(_: Any) -> None:
            from sixfold.training.report import write_report

            write_report(directory.path, images=opened.test.images)

        result = run.complete(figures, write_page)
        tracking.end("finished", result)
    return result


def _write_failure_page(path: Path) -> None:
    from sixfold.training.report import write_report

    write_report(path)


APART = ("tracking", "data.cache_size")
"""Settings on which no result depends: what is told elsewhere, how long a step waits."""

KIND = RunKind(
    growing=LENGTH,
    failure_page=_write_failure_page,
    ranks_publish=True,
    is_unfinished=lambda result: result.get("stopped_by") == OUT_OF_TIME,
)


def training_problems(config: TrainConfig) -> list[str]:
    """Everything that is wrong with the settings and can be told without reading any image."""
    found = [*config.problems(), *_network_problems(config.model), *_device_problems(config)]
    for name in config.selection.callback if not text_problems(config.selection) else ():
        try:
            make_callback(name)
        except UserError as error:
            found += error.problems
    machine = config.strategy.machine
    if is_automatic(config) and machine is not None and not Path(machine).is_file():
        found += file_problems("--machine", Path(machine))
    if not optimizer_problems(config.optimizer):
        found += _class_problems(config.optimizer)
    return list(dict.fromkeys(found))


def _network_problems(config: ModelConfig) -> list[str]:
    """What is wrong with the network's name and arguments, whatever the data are."""
    from sixfold.models.factory import model_factory

    try:
        model_factory(config, shape=(3, 32, 32), classes=10)
    except UserError as error:
        return list(error.problems)
    return []


def _class_problems(config: OptimizerConfig) -> list[str]:
    """Why a class of torch.optim, or its arguments, cannot be used; tried on a few numbers."""
    if class_of(config.optimizer):
        from sixfold.training.step.torch_rules import torch_problems

        return torch_problems(config)
    if not config.optimizer_args:
        return []
    from sixfold.training.step.optimizer import argument_problems

    return argument_problems(config)


def _device_problems(config: TrainConfig) -> list[str]:
    """Why the device cannot be used, if it could be with these settings."""
    from sixfold.training.step.device import device_problems

    return device_problems(config.compute.device)


def resolve_paths(config: TrainConfig) -> TrainConfig:
    """Make the run directory's path absolute, choosing a name if none was given."""
    alike = dataclasses.replace(config, tracking=TrackingConfig())  # the same run, tracked or not
    path = run_path(alike, TrainConfig(), config.model.model)
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
        strategy=dataclasses.replace(config.strategy, grid=as_line(config.strategy.grid)),
        run=dataclasses.replace(config.run, out=path),
    )


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def fit_data(
    config: TrainConfig, engine: Engine, workers: int, on_event: OnEvent
) -> tuple[TrainConfig, data.DataSet]:
    """Check data and network against each other; turn the data into something ranks can map.

    Returns:
        The settings with the data as ranks open them; and the data, opened here once for all.

    Raises:
        UserError: with everything that does not fit.
    """
    from sixfold import models
    from sixfold.data.augmentation.grammar import range_problems
    from sixfold.training.lone_images import lone_image_problems
    from sixfold.training.losses.registry import fit_problems, with_target
    from sixfold.training.losses.settling import settle_loss

    asked = with_target(config.data, config.loss)
    resolved = resolve_data(asked, engine, workers, on_event)
    opened = data.open_data(resolved)
    strategy = config.strategy

    def tell(text: str) -> None:
        on_event({"kind": "note", "text": text})

    optimizer = config.optimizer
    uses_momentum = optimizer.optimizer in ("sgd", "lars")
    if not uses_momentum and optimizer.momentum != OptimizerConfig().momentum:
        tell(f"--momentum {optimizer.momentum:g}: {optimizer.optimizer} does not use it")
    found = fit_problems(config.loss, opened)
    augment = data.parse_augment(config.data.augment)
    found += range_problems(augment, opened.dtype)
    if augment.pad >= min(opened.shape[1:]):
        found.append(
            f"--augment crop:{augment.pad}: would move images of {opened.shape[1]}x"
            f"{opened.shape[2]} out of sight"
        )
    unfit = models.check(
        config.model,
        shape=opened.shape,
        classes=opened.outputs,
        divided=strategy.strategy == "model_parallel",
        tell=None if strategy.deterministic else tell,
    )
    found += unfit
    if not len(opened.train):
        raise UserError(
            f"--data {config.data.data}: has no labels to learn from; it can only be predicted"
        )
    if not len(opened.test) and opened.split != ALL_TRAIN:
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
        found += _pattern_problems(config, opened, tell)
        found += validation_problems(config, len(opened.validation))
        found += lone_image_problems(
            config,
            workers,
            images=len(opened.train),
            shape=opened.shape,
            classes=opened.outputs,
        )
        total = budget(config.training, len(opened.train)).total_steps
        found += [
            f"--save-at-steps {step}: the training has {total:,} steps"
            for step in config.run.save_at_steps
            if int(step) > total
        ]
    if not found:
        try:
            config = settle_loss(config, opened)
        except UserError as error:
            found += error.problems
    # A network that does not fit is not divided to say so again.
    if not is_automatic(config) and not (unfit and strategy.strategy == "model_parallel"):
        found += find_strategy(strategy.strategy).fit_problems(config, workers, opened)
    if found:
        raise UserError(dict.fromkeys(found))
    if "validation part" in opened.split:
        on_event({"kind": "note", "text": f"--data {config.data.data}: {opened.split}"})
    if opened.bad:
        on_event({"kind": "note", "text": f"left out of the data: {told(opened.bad)}"})
    if not len(opened.test) and not len(opened.validation):  # no strategy is to evaluate
        training = dataclasses.replace(config.training, evaluate_every=0.0)
        config = dataclasses.replace(config, training=training)
    return dataclasses.replace(config, data=resolved), opened


def _pattern_problems(
    config: TrainConfig, opened: data.DataSet, tell: Callable[[str], None]
) -> list[str]:
    """Patterns of parameters that match none of the network's."""
    from sixfold.models.meta_initialization import build_on_meta
    from sixfold.training.step.frozen import freeze, frozen_note
    from sixfold.training.step.parameter_runs import group_settings, has_groups

    optimizer = config.optimizer
    if not (has_groups(optimizer) or optimizer.freeze):
        return []
    classes, seed = opened.outputs, config.training.seed
    built = build_on_meta(config.model, shape=opened.shape, classes=classes, seed=seed)
    try:
        freeze(built.network, optimizer)
        group_settings(optimizer, built.network)
    except UserError as error:
        return list(error.problems)
    if optimizer.freeze:
        tell(frozen_note(built.network, optimizer))
    return []


def _run(
    resolved: TrainConfig,
    run: Run,
    inputs: Inputs,
    engine: Engine,
    workers: int,
    *,
    on_event: OnEvent,
    views: ViewRecord,
    pause: Pause | None,
    expected: Expected | None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Start the ranks; the figures of the result, or why they stand still.

    `before` are those of the start before, if the plan was looked at again: all starts add up.
    """
    from sixfold.training.worker import TrainJob, train_rank

    config, directory, before_s = resolved, run.directory, time.monotonic() - run.started
    directory.path.joinpath("timeline").mkdir(exist_ok=True)
    now, limit = time.time(), config.selection.max_time
    launch = {"launched": now - before_s, "called": now, "pid": os.getpid()}
    write_json(directory.file("timeline/launcher.json"), launch)
    asynchronous = None
    spec = find_strategy(config.strategy.strategy)
    least = least_ranks(config, workers)
    if spec.launch is not None:
        asynchronous = spec.launch(config, directory, engine, workers, on_event)
        # What is left to the ranks is to evaluate and to write the weights.
    # Ranks write to the directory's files, which may be a copy of what lies at a URL.
    own = dataclasses.replace(config.run, out=str(directory.path))
    job = TrainJob(
        config=dataclasses.replace(config, run=own),
        claim=directory.ticket(),
        deadline=now - before_s + seconds(limit) if limit else None,
        source=inputs.source(config.model),
        pause=pause,
        expected=expected,
    )
    if config.strategy.audit:
        from sixfold.training.strategies.sync.arbiter import judge

        views.judge = functools.partial(judge, job.config)
    group = engine.run_ranks(
        functools.partial(train_rank, job),
        workers,
        least=least,
        max_restarts=restarts_of(config.engine, elastic_ranks=0 if least is None else workers),
        claim=directory.claim,
        on_event=lambda _, event: views(event),
        log=directory.file("log.txt"),
    )
    directory.refresh()
    trained_s = before["wall_s"] - before["startup_s"] if before else 0.0
    figures = {
        **group.results[0],
        "wall_s": round(time.monotonic() - run.started, 3),
        "startup_s": round(before_s - trained_s + group.startup_s, 3),
        "engine_startup_s": round(group.engine_s, 3),
        "strategy": config.strategy.strategy,
        "engine": config.engine.engine,
        "workers": workers,
        "restarts": group.restarts + (before["restarts"] if before else 0),
        **views.figures(),
    }
    if marks := (read_json(directory.file(RECORD)) or {}).get(MARK):
        figures[MARK] = marks
    if asynchronous is not None:
        figures |= asynchronous.figures
        figures["restarts"] += asynchronous.restarts
        figures["startup_s"] = round(before_s + asynchronous.begun_s, 3)
    return figures
