"""The launcher of a profile: real training steps, watched, on one engine or on several in turn."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sixfold.core.errors import RunError, SixfoldError, UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import file_problems, write_json
from sixfold.core.html.frame import optional_page
from sixfold.core.life_cycle import RunKind, open_run
from sixfold.core.run_directory import (
    RunDirectory,
    as_json,
    read_json,
    read_whole_json,
    typed,
)
from sixfold.core.version import versions
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for
from sixfold.perf.profile.comparison import compared
from sixfold.perf.profile.config import ProfileConfig, as_training, engines_of
from sixfold.perf.profile.critical_path import paths_of
from sixfold.perf.profile.limits import Machine, load_machine, save_machine
from sixfold.perf.profile.machine import measure_machine
from sixfold.perf.profile.report import write_profile
from sixfold.perf.profile.results import Profile, RankFigures
from sixfold.perf.profile.sampling import Samples, sampled
from sixfold.perf.profile.summary import summarise
from sixfold.perf.profile.timelines import Timelines, read_timelines
from sixfold.perf.profile.trace import trace_events, write_trace
from sixfold.perf.profile.utilisation import notes_on, startup_parts, utilisation
from sixfold.training.config import TrainConfig
from sixfold.training.digits import fit_digits
from sixfold.training.inputs import training_inputs
from sixfold.training.run import fit_data, resolve_paths, train, training_problems

Plain = dict[str, Any]
LAYERS_APART = "layers"
"""Folder of the process group that times layers, where the training itself is no process group."""


def profile_problems(config: ProfileConfig) -> list[str]:
    """Everything that is wrong with the settings and can be told before anything is read."""
    found = config.problems()
    if found or config.profiling.run is not None:
        return found
    for engine in engines_of(config):
        found += training_problems(as_training(config, engine=engine, out="profile", steps=1))
    return list(dict.fromkeys(found))


def profile(
    config: ProfileConfig, *, engine: Engine | None = None, on_event: OnEvent | None = None
) -> Plain:
    """Measure where the time of a training's steps goes, or read what a training has logged.

    An `engine` that is given is left open; else one is opened, and for each of `--compare-engines`.
    Returns what `profile.json` holds. A `UserError` if settings, data or cluster do not fit, a
    `RunError` if a rank failed.
    """
    on_event = on_event or (lambda _: None)
    raise_problems(profile_problems(config))
    if config.profiling.run is not None:
        first = profile_of_run(Path(config.profiling.run).expanduser().absolute())
        if config.profiling.compare is None:
            return first
        other = profile_of_run(Path(config.profiling.compare).expanduser().absolute())
        both = {"path": first["path"], "compared_with": other["path"]}
        pairs = dataclasses.asdict(compared(Profile.of(first), Profile.of(other)))
        return {"kind": "comparison", **both, "comparison": pairs}
    started = time.monotonic()
    config = fit_digits(config, on_event)
    name = config.model.model.replace(":", "-")
    path = Path(config.profiling.out or f"runs/profile-{name}").expanduser().absolute()
    training = as_training(config, engine=engines_of(config)[0], out=str(path), steps=1)
    inputs = training_inputs(resolve_paths(training))
    with open_run(KIND, config, path, inputs=inputs, on_event=on_event, started=started) as run:
        if run.finished is not None:
            return run.finished
        machine, engines = _machine(config, on_event), engines_of(config)
        if len(engines) > 1:
            run.claim()
            return _compare(config, path, machine, on_event)
        result = _on_engine(config, engines[0], path, machine, on_event, engine).as_plain()
        inputs.write(run.directory)
        # A training with parameter servers has put its own settings there.
        write_json(run.directory.file("config.json"), as_json(config))
        return result


KIND = RunKind(
    noun="profile",
    section="profiling",
    mark="profiling",
    result="profile.json",
    page="profile.html",
    placement=(),
)


def _compare(config: ProfileConfig, path: Path, machine: Machine, on_event: OnEvent) -> Plain:
    """A profile on each engine in turn, in a folder of its own."""
    sides: dict[str, Profile] = {}
    for name in engines_of(config):
        on_event({"kind": "note", "text": f"measuring on the engine {name}"})
        try:
            sides[name] = _on_engine(config, name, path / name, machine, on_event, None)
        except SixfoldError as error:
            # The others are worth seeing all the same.
            on_event({"kind": "note", "text": f"{name}: {error}"})
            sides[name] = Profile(failed=str(error))
    if all(side.failed for side in sides.values()):
        raise UserError([f"{name}: {side.failed}" for name, side in sides.items()])
    found = Profile(
        kind="engines", path=str(path), sides=sides, machine=machine, versions=versions()
    )
    return _written(found).as_plain()


def profile_of_run(path: Path) -> Plain:
    """What the time lines of a training tell: utilisation, and the trace in `trace.json`."""
    if not path.is_dir():
        raise UserError(f"{path}: no such run directory")
    measured = read_whole_json(path / "profile.json", "remove it")
    if measured is not None and measured.get("kind") in ("profile", "engines"):
        return measured  # of `sixfold profile` itself: it holds all of this already
    lines = read_timelines(path)
    if not lines.ranks:
        raise UserError(f"{path}: no rank has logged a step yet")
    settings = read_json(path / "config.json") or {}
    used = _used(path, lines, [], None)
    return _written(Profile(kind="run", path=str(path), settings=settings, **used)).as_plain()


def _machine(config: ProfileConfig, on_event: OnEvent) -> Machine:
    """This machine's limits: from the file that the settings name, or measured now."""
    named = config.profiling.machine_peaks
    file = None if named is None else Path(named).expanduser()
    if file is not None and file.is_file():
        return load_machine(file)
    if file is not None and (found := file_problems("--machine-peaks", file)):
        raise UserError(found)
    on_event({"kind": "note", "text": "measuring what this machine can do (a few seconds)"})
    machine = measure_machine()
    if file is not None:
        save_machine(machine, file)
    return machine


def _on_engine(
    config: ProfileConfig,
    name: str,
    path: Path,
    machine: Machine,
    on_event: OnEvent,
    engine: Engine | None,
) -> Profile:
    """The profile on one engine, in a run directory of its own."""
    from sixfold.perf.profile.rank import kinds_of_steps

    started = time.time()
    steps = len(kinds_of_steps(config.profiling.repeats))
    training = resolve_paths(as_training(config, engine=name, out=str(path), steps=steps))
    model = config.model.model
    opening = open_engine_for(
        training.engine, model, ("sixfold.perf.profile.rank",), together=True, given=engine
    )
    with sampled(config.profiling.sample_every) as samples, opening as engine:
        apart = config.strategy.strategy == "param_server"
        if apart:  # no process group: train as always, and time the layers of such steps beside it
            on_event({"kind": "note", "text": "a training with parameter servers, and its layers"})
            train(training, engine=engine, on_event=on_event, hold=False)
            # As a worker of parameter servers makes steps: whole batches, all workers at once.
            strategy = dataclasses.replace(training.strategy, strategy="hogwild")
            apart_run = dataclasses.replace(training.run, out=str(path / LAYERS_APART))
            training = dataclasses.replace(training, strategy=strategy, run=apart_run)
        _measure(config, training, engine, started, on_event)
    where = Path(str(training.run.out))
    files = sorted((where / "profile").glob("rank-*.json"))
    ranks = [typed(RankFigures, rank) for file in files if (rank := read_json(file)) is not None]
    if not any(rank.shards for rank in ranks):
        raise RunError(f"no rank has left figures in {where / 'profile'}")
    lines = read_timelines(path)
    critical_path, overlap = (None, None) if apart else paths_of(ranks, lines)
    found = Profile(
        kind="profile",
        path=str(path),
        settings=as_json(config),
        engine=name,
        workers=len(ranks),
        images_per_s=_images_per_s(ranks),
        critical_path=critical_path,
        overlap=overlap,
        machine=machine,
        versions=versions(),
        **vars(summarise(ranks, machine, precision=config.training.precision)),
        **_used(path, lines, [] if apart else ranks, samples),
    )
    return _written(found)


def _measure(
    config: ProfileConfig, training: TrainConfig, engine: Engine, started: float, on_event: OnEvent
) -> None:
    from sixfold.perf.profile.rank import ProfileJob, profile_rank
    from sixfold.training.worker import TrainJob

    directory = RunDirectory(Path(str(training.run.out)))
    workers = training.engine.workers or engine.slots()
    if training.strategy.strategy == "hogwild":  # whose steps are shared out among the ranks
        steps = (training.training.steps or 1) * workers
        lengths = dataclasses.replace(training.training, steps=steps)
        training = dataclasses.replace(training, training=lengths)
    resolved, _ = fit_data(training, engine, workers, on_event)
    directory.create()
    directory.clear()
    write_json(directory.file("config.json"), as_json(config))
    directory.file("timeline").mkdir()
    launch = {"launched": started, "called": time.time(), "pid": os.getpid()}
    write_json(directory.file("timeline/launcher.json"), launch)
    job = ProfileJob(
        training=TrainJob(config=resolved, claim=directory.ticket()),
        repeats=config.profiling.repeats,
    )
    with _kept_clean(directory):
        engine.run_ranks(
            functools.partial(profile_rank, job),
            workers,
            claim=directory.claim,
            on_event=lambda _, event: on_event(event),
            log=directory.file("log.txt"),
        )


@contextlib.contextmanager
def _kept_clean(directory: RunDirectory) -> Iterator[None]:
    """Leave nothing of a profile that was refused by the ranks."""
    try:
        yield
    except UserError:
        directory.clear()
        raise


def _images_per_s(ranks: list[RankFigures]) -> float | None:
    rates = []
    for rank in ranks:
        plain = rank.of_kind("plain")
        seconds = sum(step.whole_s for step in plain)
        if seconds > 0:
            rates.append(sum(step.samples for step in plain) / seconds)
    return sum(rates) if rates else None


def _used(path: Path, lines: Timelines, ranks: list[RankFigures], samples: Samples | None) -> Plain:
    """Fields of a `Profile`: how ranks used their time, and the trace, which is written."""
    spans = {rank.rank: rank.spans for rank in ranks}
    seen = samples.as_plain() if samples is not None else None
    write_trace(path / "trace.json", trace_events(lines, spans, seen))
    if seen is not None:
        (path / "profile").mkdir(exist_ok=True)
        write_json(path / "profile" / "samples.json", seen)
    uses = utilisation(lines)
    notes = notes_on(uses)
    if lines.skipped:
        notes.append(f"{lines.skipped} lines of the time lines could not be read.")
    return {
        "utilisation": uses,
        "notes": notes,
        "startup": startup_parts(lines),
        "trace": str(path / "trace.json"),
    }


def _written(found: Profile) -> Profile:
    path, plain = Path(found.path), found.as_plain()
    write_json(path / "profile.json", plain)
    with optional_page(path / "profile.html"):
        write_profile(path, plain)
    return found
