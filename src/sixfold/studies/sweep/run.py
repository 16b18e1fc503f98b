"""The launcher of a sweep: many trainings as one resumable job, and what their figures say.

Layout of the directory::

    config.json     settings as resolved
    members/        one folder a training, named by the hash of its settings
    result.json     the figures; its presence means that the sweep is finished
    report.html     the report
    log.txt         what workers printed (quality)
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sixfold import data
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.life_cycle import Run, RunKind, open_run, run_path
from sixfold.core.run_directory import RunDirectory, as_json
from sixfold.data.config import DataConfig
from sixfold.data.run import resolve_data
from sixfold.distributed.engines import Engine, open_engine
from sixfold.distributed.session import open_engine_for
from sixfold.distributed.tasks import Outcome, run_job
from sixfold.studies.sweep.config import SweepQualityConfig, SweepTimeConfig, TrainingsConfig
from sixfold.studies.sweep.member import Engines, QualityWork, TimeWork
from sixfold.studies.sweep.plan import Plan, all_combinations, base_config, quality_plan, time_plan
from sixfold.studies.sweep.report import write_page
from sixfold.studies.sweep.results import TimeResult, quality_result, time_result
from sixfold.studies.sweep.vary import Combination
from sixfold.training.config import TrainConfig
from sixfold.training.digits import fit_digits
from sixfold.training.inputs import Inputs, inputs_of
from sixfold.training.losses.registry import accuracy_problems, with_target
from sixfold.training.run import training_problems


def sweep_time(config: SweepTimeConfig, *, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Time every combination of settings, one training after another, and fit the laws.

    Returns what `result.json` holds. A `UserError` if settings or data do not fit: nothing is left
    behind; a `RunError` if a training failed: what is done is kept.
    """
    on_event = on_event or (lambda _: None)
    with contextlib.ExitStack() as stack:
        problems = sweep_problems(config)
        config, run = begin(config, "time", problems, stack, on_event)
        if run.finished is not None:
            return run.finished
        engines = stack.enter_context(Engines())
        found = _with_workers(all_combinations(config), engines)
        plan = time_plan(config, found)
        _prepare(plan, engines.open, on_event)
        plan = _recognised(plan)
        run.claim(_inputs(one.config for one in plan.combinations).built())
        outcome = _time_all(config, run.directory, plan, engines, on_event)
        figures = time_result(config, plan, outcome)
        _count_operations(figures, plan, engines)
        return end(config, run, dataclasses.asdict(figures), outcome, write_page)


def _time_all(
    config: SweepTimeConfig,
    directory: RunDirectory,
    plan: Plan,
    engines: Engines,
    on_event: OnEvent,
) -> Outcome:
    """Run the members: in this process, one after another, or side by side if that was asked."""
    together = config.sweep.parallel
    work = TimeWork(configs=plan.configs, engines=None if together > 1 else engines)
    with contextlib.closing(open_engine("inline" if together == 1 else "local")) as pool:
        return run_job(
            directory.path, plan.members, work, pool, workers=together, on_event=on_event
        )


def sweep_quality(config: SweepQualityConfig, *, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Train every combination of settings, side by side, and say what each setting does.

    Returns and raises what `sweep_time` does.
    """
    on_event = on_event or (lambda _: None)
    with contextlib.ExitStack() as stack:
        config, run = begin(config, "quality", sweep_problems(config), stack, on_event)
        if run.finished is not None:
            return run.finished
        engine = stack.enter_context(
            open_engine_for(
                config.engine, config.model.model, preload=("sixfold.studies.sweep.member",)
            )
        )
        workers = config.engine.workers or engine.slots()
        plan = quality_plan(all_combinations(config))
        images = _prepare(plan, lambda _: engine, on_event, workers)
        plan = _recognised(plan)
        run.claim(_inputs(one.config for one in plan.combinations).built())
        outcome = run_job(
            run.directory.path,
            plan.members,
            QualityWork(configs=plan.configs),
            engine,
            workers=workers,
            on_event=on_event,
            log=run.directory.file("log.txt"),
        )
        figures = dataclasses.asdict(quality_result(config, plan, outcome, images))
        return end(config, run, figures | {"workers": workers}, outcome, write_page)


def _count_operations(figures: TimeResult, plan: Plan, engines: Engines) -> None:
    """Add what each training computes for an image, and the bytes of its weights."""
    from sixfold import models
    from sixfold.studies.sweep.arithmetic import training_flops, weight_bytes

    known: dict[Any, tuple[float, int]] = {}
    for row, one in zip(figures.points, plan.combinations, strict=True):
        if not row.repeats:
            continue
        config = one.config
        asked = with_target(config.data, config.loss)
        key = config.model, asked
        if key not in known:
            engine = engines.open(config)
            opened = data.open_data(resolve_data(asked, engine, 1, lambda _: None))
            network = models.build(config.model, shape=opened.shape, classes=opened.outputs, seed=0)
            known[key] = training_flops(network, opened.shape), weight_bytes(network)
        row.flops_per_image, row.weight_bytes = known[key]


def sweep_problems(config: TrainingsConfig) -> list[str]:
    """Everything that is wrong with the settings of all trainings, each once."""
    found = config.problems()
    try:
        trainings = [one.config for one in all_combinations(config)]
    except UserError:  # what is varied cannot be read, and is among the problems
        trainings = [base_config(config)]
    for training in trainings:
        found += training_problems(training)
        if isinstance(config, SweepQualityConfig):
            kind = with_target(training.data, training.loss).target
            found += accuracy_problems(kind, "sixfold sweep quality")
    return list(dict.fromkeys(found))


def kind_of(name: str) -> RunKind:
    """What the runs of a kind of sweep have in common: "time", "quality" or "delay"."""
    return RunKind(
        noun="sweep",
        mark="delay" if name == "delay" else "sweep",
        growing=("sweep", "delay", "cluster"),
        leftovers=("members",),
        # Times depend on where the sweep runs.
        placement=("engine",) if name == "quality" else (),
    )


def begin(
    config: Any,
    name: str,
    problems: list[str],
    stack: contextlib.ExitStack,
    on_event: OnEvent,
) -> tuple[Any, Run]:
    """Check, choose the directory, take hold of it, and look for what lies there.

    `name` is that of the kind of sweep; `stack` lets go of the directory. Gives the settings with
    paths made absolute, and the sweep as a run.
    """
    started = time.monotonic()
    raise_problems(problems)
    notes: list[Mapping[str, Any]] = []
    if hasattr(config, "data"):
        config = _fit_digits(config, notes.append)
    path = run_path(config, type(config)(), f"sweep-{name}")
    for event in notes:  # after what may be refused
        on_event(event)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, out=path))
    inputs = Inputs(files={})
    if hasattr(config, "data"):
        absolute = data.absolute_spec(config.data.data)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, data=absolute))
        inputs = _inputs([one.config for one in all_combinations(config)])
    opening = open_run(
        kind_of(name), config, path, inputs=inputs, on_event=on_event, started=started
    )
    return config, stack.enter_context(opening)


def _fit_digits(config: Any, on_event: OnEvent) -> Any:
    """The embedded digits in one size for all networks, unless data or sizes are varied."""
    found = all_combinations(config)
    if {"data", "resize"} & {name for one in found for name in one.values}:
        return config
    return fit_digits(config, on_event, dict.fromkeys(one.config.model for one in found))


def _inputs(configs: Iterable[TrainConfig]) -> Inputs:
    configs = list(configs)
    asked = [with_target(config.data, config.loss) for config in configs]
    sets = [dataclasses.replace(each, data=data.absolute_spec(each.data)) for each in asked]
    return inputs_of(
        models=dict.fromkeys(config.model for config in configs), datasets=dict.fromkeys(sets)
    )


def _recognised(plan: Plan) -> Plan:
    """The plan with members that are told apart by the content of what enters them, too."""
    known: dict[Any, dict[str, Any]] = {}
    members = []
    for member in plan.members:
        config = plan.configs[member.name]
        key = config.model, with_target(config.data, config.loss)
        if key not in known:
            known[key] = _inputs([config]).built().identity()
        settings = {**member.settings, "inputs": known[key]}
        members.append(dataclasses.replace(member, settings=settings))
    return dataclasses.replace(plan, members=tuple(members))


def end(
    config: Any,
    run: Run,
    figures: dict[str, Any],
    outcome: Outcome,
    write: Callable[[Path, Any, dict[str, Any]], None],
) -> dict[str, Any]:
    """Write result and report, the latter by `write`.

    A `UserError` if no training could be: nothing is left of the sweep; a `RunError` if some
    failed.
    """
    refused = [found.get("refused") for found in outcome.results.values()]
    if refused and all(refused) and not outcome.failures:
        run.withdraw()
        raise UserError(dict.fromkeys(map(str, refused)))
    done = {"failures": outcome.failures, "done_before": len(outcome.done_before)}
    page = functools.partial(write, run.directory.path, as_json(config))
    return run.complete({**figures, **done}, page, failures=outcome.failures)


def _with_workers(found: list[Combination], engines: Engines) -> list[Combination]:
    known = []
    for one in found:
        config = one.config
        if config.engine.workers is None:
            workers = engines.open(config).slots()
            engine = dataclasses.replace(config.engine, workers=workers)
            config = dataclasses.replace(config, engine=engine)
        known.append(dataclasses.replace(one, config=config))
    return known


def _prepare(
    plan: Plan,
    engine_for: Callable[[TrainConfig], Engine],
    on_event: OnEvent,
    workers: int | None = None,
) -> int:
    """Prepare the data of all trainings once, and say how many images the test part has.

    Networks of the user's own are built once too: what they use then belongs to the sweep's inputs.
    """
    from sixfold import models

    images = 0
    sets: dict[DataConfig, list[TrainConfig]] = {}
    for config in plan.configs.values():
        sets.setdefault(with_target(config.data, config.loss), []).append(config)
    for asked, (config, *others) in sets.items():
        count = workers or config.engine.workers or 1
        opened = data.open_data(resolve_data(asked, engine_for(config), count, on_event))
        images = max(images, len(opened.test))
        for model in dict.fromkeys(each.model for each in (config, *others)):
            if ":" not in model.model:
                continue
            with contextlib.suppress(UserError):  # its members report it
                models.build(model, shape=opened.shape, classes=opened.outputs, seed=0)
    return images
