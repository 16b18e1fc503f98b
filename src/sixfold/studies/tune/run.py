"""The launcher of a search: trials chosen and trained as one resumable job.

Layout of the directory::

    config.json     settings as resolved
    members/        one folder a training from rung to rung, named by the hash of its settings
    trials/         one run directory a trial, named by the hash of its settings
    lost.json       trainings whose workers died again and again
    result.json     the figures; its presence means that the search is finished
    report.html     the report
    log.txt         what workers printed
"""

import contextlib
import dataclasses
import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sixfold import data
from sixfold.core.errors import RunError, UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import write_json
from sixfold.core.life_cycle import Run, RunKind, open_run, run_path
from sixfold.core.run_directory import as_json, read_json
from sixfold.data.config import DataConfig
from sixfold.data.run import resolve_data
from sixfold.data.targets import REGRESSION
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for
from sixfold.distributed.tasks import Outcome, Task, run_job
from sixfold.studies.sweep.plan import identity
from sixfold.studies.tune.config import TuneConfig, base_config
from sixfold.studies.tune.report import write_page
from sixfold.studies.tune.results import (
    Best,
    Reached,
    TrialRow,
    TuneFigures,
    settings_of,
    train_command,
)
from sixfold.studies.tune.sampler import Sampler, importances, optuna_problems
from sixfold.studies.tune.schedule import Job, Plan, Schedule, Trial
from sixfold.studies.tune.space import (
    Choice,
    corners,
    fingerprint,
    listed,
    parse_search,
    trial_config,
    without_workers,
)
from sixfold.studies.tune.trial import TRIALS, TrialWork, trial_folder
from sixfold.training.config import TrainConfig
from sixfold.training.digits import fit_digits
from sixfold.training.inputs import Inputs, own_code, training_inputs
from sixfold.training.losses.registry import with_target
from sixfold.training.run import resolve_paths, training_problems
from sixfold.training.selection import (
    OUT_OF_TIME,
    SMALLER_IS_BETTER,
    quality,
    seconds,
    value_of,
)
from sixfold.training.step.schedule import budget

LOST = "lost.json"

KIND = RunKind(
    noun="search",
    mark="tune",
    growing=("tune.trials", "selection.max_time"),
    leftovers=("members", TRIALS, LOST),
    is_unfinished=lambda result: result.get("stopped_by") == OUT_OF_TIME,
)


def tune(
    config: TuneConfig, *, engine: Engine | None = None, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Search over settings of training; the figures that `result.json` holds.

    Args:
        config: the settings.
        engine: an open engine to be used and left open; one is opened for the job if absent.
        on_event: called with progress.

    Raises:
        UserError: if settings, data or cluster do not fit, or if every trial is refused.
        RunError: if no trial could be trained; what is done is kept.
    """
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    raise_problems(tune_problems(config))
    notes: list[Mapping[str, Any]] = []
    config = _resolved(config, notes.append)
    for event in notes:  # after what may be refused
        on_event(event)
    place = str(config.run.out)
    ends = corners(base_config(config), parse_search(config.tune.search))
    inputs = _inputs(ends)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(
            open_run(KIND, config, place, inputs=inputs, on_event=on_event, started=started)
        )
        if run.finished is not None:
            return run.finished
        opening = open_engine_for(
            config.engine,
            config.model.model,
            ("sixfold.studies.tune.trial",),
            given=engine,
            code=list(dict.fromkeys(name for end in ends for name in _code(end))),
        )
        opened = stack.enter_context(opening)
        return _Search(config, run, opened, on_event, inputs).search()


def tune_problems(config: TuneConfig) -> list[str]:
    """Everything that is wrong with the settings and can be told without reading any image."""
    found = [*optuna_problems(), *config.problems()]
    trials = [base_config(config)]
    with contextlib.suppress(UserError):  # what is searched cannot be read, and is told above
        trials = corners(trials[0], parse_search(config.tune.search))
    for trial in trials:
        found += training_problems(trial)
    return list(dict.fromkeys(found))


def _resolved(config: TuneConfig, on_event: OnEvent) -> TuneConfig:
    """Paths made absolute, and the embedded digits in one size for all networks."""
    ends = corners(base_config(config), parse_search(config.tune.search))
    if not any(one.name == "resize" for one in parse_search(config.tune.search)):
        config = fit_digits(config, on_event, dict.fromkeys(end.model for end in ends))
    path = run_path(config, TuneConfig(), "tune")
    absolute = resolve_paths(base_config(config))
    return dataclasses.replace(
        config,
        data=absolute.data,
        initialization=absolute.initialization,
        run=dataclasses.replace(config.run, out=path),
    )


def _code(config: TrainConfig) -> list[str]:
    """Names of the user's own objects that a trial uses."""
    return [config.model.model, *own_code(config)]


def _inputs(configs: Sequence[TrainConfig]) -> Inputs:
    """What enters any of the trials."""
    found = [training_inputs(resolve_paths(config)) for config in configs]
    return Inputs(
        files={k: v for one in found for k, v in one.files.items()},
        data={k: v for one in found for k, v in one.data.items()},
        sources={k: v for one in found for k, v in one.sources.items()},
        models=tuple(dict.fromkeys(model for one in found for model in one.models)),
        late=frozenset().union(*(one.late for one in found)),
    )


class _NoSuchMetricError(UserError):
    """The data do not have the metric by which trials are to be judged."""


class _Search:
    """One search, from the data to the report."""

    def __init__(
        self, config: TuneConfig, run: Run, engine: Engine, on_event: OnEvent, inputs: Inputs
    ) -> None:
        self.config, self.run, self.engine, self.on_event = config, run, engine, on_event
        search = config.tune
        self.path = run.directory.path
        self.workers = config.engine.workers or engine.slots()
        self.base, self.dimensions = base_config(config), parse_search(search.search)
        self.metric = search.metric
        self.images = self._prepare()
        self.inputs = inputs.built()
        self.plan = Plan(
            trials=search.trials,
            rungs=1 if search.pruner == "none" else search.rungs,
            reduction=search.reduction,
            parallel=search.parallel,
            hyperband=search.pruner == "hyperband",
        )
        sampler = Sampler(
            self.dimensions,
            kind=search.sampler,
            seed=search.search_seed,
            top=self.plan.rungs - 1,
            fingerprint=self._fingerprint,
        )
        self.schedule = Schedule(self.plan, sampler.propose, self._images_of)
        limit = config.selection.max_time
        self.deadline = run.started + seconds(limit) if limit else math.inf
        self.jobs: dict[str, Job] = {}  # those handed out, by name of their task
        self.left: list[Job] = []  # decided after the time was over
        self.found: dict[Job, Mapping[str, Any]] = {}
        self.lost: dict[str, str] = {}
        self.entered: dict[str, Any] = {}  # what tells the contents of files and data apart

    def search(self) -> dict[str, Any]:
        """Search, and write result and report."""
        self.run.claim(self.inputs)
        self.entered = self.inputs.identity()
        self.lost = read_json(self.run.directory.file(LOST)) or {}
        if self.workers > self.plan.parallel:
            text = f"{self.plan.parallel} of {self.workers} workers are used (--parallel)"
            self.on_event({"kind": "note", "text": text})
        try:
            outcome = run_job(
                self.path,
                self._tasks(self.schedule.start()),
                TrialWork(metric=self.metric, checkpoint_every=self.config.run.checkpoint_every),
                self.engine,
                workers=min(self.workers, self.plan.parallel),
                on_event=self.on_event,
                log=self.run.directory.file("log.txt"),
                then=self._then,
            )
        except _NoSuchMetricError:
            self.run.withdraw()
            raise
        self._refuse_nothing_found()
        figures = self._figures(outcome)
        page = functools.partial(write_page, self.path, as_json(self.config))
        return self.run.complete(dataclasses.asdict(figures), page)

    def _prepare(self) -> dict[DataConfig, int]:
        """Prepare all data once; the images of each training part."""
        found: dict[DataConfig, int] = {}
        for config in listed(self.base, self.dimensions, "data"):
            asked = with_target(config.data, config.loss)
            opened = data.open_data(resolve_data(asked, self.engine, self.workers, self.on_event))
            if not len(opened.validation):
                raise UserError(
                    "trials are judged on validation images, never on the test set, and there are "
                    "none: set some aside with --validation 0.1"
                )
            found[config.data] = len(opened.train)
            if not self.metric:
                self.metric = "loss" if opened.kind == REGRESSION else "accuracy"
        return found

    def _trial_config(self, choice: Choice) -> TrainConfig:
        return without_workers(trial_config(self.base, self.dimensions, choice))

    def _fingerprint(self, choice: Choice) -> str:
        return fingerprint(self._trial_config(choice))

    def _total(self, choice: Choice) -> int:
        """Steps of the whole training."""
        config = self._trial_config(choice)
        return budget(config.training, self.images[config.data]).total_steps

    def _images_of(self, choice: Choice) -> float:
        return float(self._total(choice) * self._trial_config(choice).training.batch_size)

    def _tasks(self, jobs: Sequence[Job]) -> list[Task]:
        """What is to be done for jobs; those whose workers were lost before are settled at once."""
        tasks: list[Task] = []
        queue = list(jobs)
        while queue:
            job = queue.pop(0)
            if time.monotonic() >= self.deadline:
                self.left.append(job)
                continue
            choice = self.schedule.trials[job.trial].choice
            config = self._trial_config(choice)
            total = self._total(choice)
            until = self.plan.steps(job.rung, total)
            name = f"trial {job.trial} to step {until} (rung {job.rung + 1})"
            self.jobs[name] = job
            folder = trial_folder(self.path, fingerprint(config))
            key = f"{folder.name} to step {until}"
            if key in self.lost:
                self.found[job] = {"broken": self.lost[key]}
                queue += self.schedule.settle(job, None)
                continue
            settings = {
                "train": identity(config),
                "inputs": self.entered,
                "folder": f"{TRIALS}/{folder.name}",
                "until": until,
                "metric": self.metric,
            }
            tasks.append(Task(name=name, settings=settings, cost=self.plan.part(job.rung)))
        return tasks

    def _then(self, name: str, answer: Mapping[str, Any]) -> list[Task]:
        """Take in what became of a training; the trainings that are decided now."""
        job = self.jobs[name]
        result: Mapping[str, Any] = answer.get("result", {})
        if "failed" in answer:
            result = {"broken": self._lose(job, answer)}
        if result.get("refused", "").startswith("--metric"):
            raise _NoSuchMetricError(result["refused"])
        self.found[job] = result
        reached = quality(self.metric, result.get("value"))
        return self._tasks(self.schedule.settle(job, reached if math.isfinite(reached) else None))

    def _lose(self, job: Job, answer: Mapping[str, Any]) -> str:
        """Keep that a training takes its workers along, so that a resumed search decides alike."""
        why = str(answer["failed"])
        if "its worker died" not in why:
            raise RunError(f"{why}; what is done is saved, and --resume goes on")
        choice = self.schedule.trials[job.trial].choice
        folder = trial_folder(self.path, self._fingerprint(choice))
        until = self.plan.steps(job.rung, self._total(choice))
        self.lost = {**self.lost, f"{folder.name} to step {until}": why}
        write_json(self.run.directory.file(LOST), self.lost)
        return why

    def _refuse_nothing_found(self) -> None:
        """Raise if not one trial could be trained."""
        if self.left or any(trial.reached for trial in self.schedule.trials):
            return
        refused = [str(found.get("refused", "")) for found in self.found.values()]
        if all(refused):
            self.run.withdraw()
            raise UserError(dict.fromkeys(refused))
        reasons = dict.fromkeys(_reason(found) for found in self.found.values())
        raise RunError("\n".join(["every trial failed:", *list(reasons)[:10]]))

    def _figures(self, outcome: Outcome) -> TuneFigures:
        trials, search = self.schedule.trials, self.config.tune
        rows = [self._row(trial) for trial in trials]
        complete = self.schedule.complete
        return TuneFigures(
            searched={one.name: one.words for one in self.dimensions},
            logarithmic=[one.name for one in self.dimensions if one.span and one.span.log],
            metric=self.metric,
            smaller_is_better=self.metric in SMALLER_IS_BETTER,
            sampler=search.sampler,
            pruner=search.pruner,
            parts=[self.plan.part(rung) for rung in range(self.plan.rungs)],
            trials=rows,
            best=self._best(complete[0], rows) if complete else None,
            importances=importances(self.dimensions, trials),
            failed=sum(row.state == "failed" for row in rows),
            steps=sum(row.reached[-1].steps for row in rows if row.reached),
            steps_of_all=sum(row.steps for row in rows),
            done_before=len(outcome.done_before),
            workers=self.workers,
            engine=self.engine.name,
            stopped_by=OUT_OF_TIME if self.left else "",
        )

    def _row(self, trial: Trial) -> TrialRow:
        total = self._total(trial.choice)
        reached = [
            Reached(
                rung=rung,
                steps=self.plan.steps(rung, total),
                value=value_of(self.metric, value),
            )
            for rung, value in sorted(trial.reached.items())
        ]
        is_complete = self.plan.rungs - 1 in trial.reached
        state = "failed" if trial.failed else "complete" if is_complete else "paused"
        last = self.found.get(Job(trial.number, trial.goal), {})
        return TrialRow(
            number=trial.number,
            values=json.loads(json.dumps(dict(trial.choice))),
            state=state,
            reached=reached,
            steps=total,
            reason=_reason(last) if trial.failed else "",
            folder=str(
                trial_folder(self.path, self._fingerprint(trial.choice)).relative_to(self.path)
            ),
        )

    def _best(self, trial: Trial, rows: Sequence[TrialRow]) -> Best:
        row = rows[trial.number]
        settings = settings_of(self._trial_config(trial.choice), trial.choice)
        final = self.found[Job(trial.number, self.plan.rungs - 1)]
        names = ("weights_sha256", "test_accuracy", "test_loss")
        return Best(
            number=trial.number,
            values=row.values,
            value=row.reached[-1].value,
            settings=settings,
            command=train_command(settings),
            folder=row.folder,
            **{name: final[name] for name in names if name in final},
        )


def _reason(found: Mapping[str, Any]) -> str:
    kinds = ("refused", "diverged", "broken")
    text = next((str(found[kind]) for kind in kinds if kind in found), "")
    return (text or "its metric is no number").splitlines()[0]
