"""`sixfold lab job-per-step`: a job for every step, beside one that lives through all of them."""

import dataclasses
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold import data as datasets
from sixfold import models
from sixfold.core.config import RunConfig
from sixfold.core.errors import UserError
from sixfold.core.html.page import Bar, Bars, Table
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.models.config import ModelConfig
from sixfold.studies.lab.cluster import Cluster, Cost
from sixfold.studies.lab.config import JobPerStepConfig, JobPerStepOptions
from sixfold.studies.lab.findings import Findings, ratio, yes
from sixfold.studies.lab.job_per_step.stepper import train_by_jobs
from sixfold.studies.lab.run import Progress, Show
from sixfold.training.config import OptimizerConfig, TrainConfig, TrainingConfig
from sixfold.training.run import train
from sixfold.training.worker import FIRST_TIMED_STEP


@dataclass(frozen=True, kw_only=True)
class MeasuredBatch:
    """The same training in three ways at a batch size; times are of a step, in seconds."""

    batch: int  # images a step
    by_jobs_s: float  # one job a step, median
    long_lived_s: float
    serial_s: float  # by one worker in this process
    cost: Cost  # of the median step's job
    kernel_s: float  # time of computing shards in that job, over all tasks
    update_s: float  # time of the driver's sum and update in that step
    steps: list[float]  # times of all timed steps by jobs
    delay_s: float  # scheduler delay of a task, median
    right: bool  # whether all three ended with the same weights, bit for bit
    weights_sha256: list[str]  # of the weights, each hash once

    def parts(self, slots: int) -> tuple[float, float, float]:
        """Of the median step by jobs: kernels, the rest of the tasks, what is outside of tasks."""
        kernel_s = self.kernel_s / slots
        task_s = max(self.cost.run_s / slots - kernel_s, 0.0)
        whole_s = self.cost.wall_s + self.update_s
        return kernel_s, task_s, max(whole_s - kernel_s - task_s, 0.0)


@dataclass(frozen=True, kw_only=True)
class JobPerStepResult:
    """What the study has measured."""

    empty_job_s: float
    batches: list[MeasuredBatch]


def summarize(slots: int, options: JobPerStepOptions, result: JobPerStepResult) -> Findings:
    """Findings of the study."""
    measured = result.batches
    return Findings(
        title="One Spark job for every step",
        subtitle=f"{options.model} on {options.data}, {options.steps} steps of SGD",
        right=all(one.right for one in measured),
        tables=[_table(slots, measured)],
        bars=[_bars(slots, one) for one in measured],
        verdict=_verdict(slots, measured, result.empty_job_s),
        result=result,
    )


def _table(slots: int, measured: list[MeasuredBatch]) -> Table:
    rows = []
    for one in measured:
        kernel_s, task_s, outside_s = one.parts(slots)
        rows.append(
            (
                f"{one.batch:,}",
                *map(_ms, (one.serial_s, one.long_lived_s, one.by_jobs_s)),
                ratio(one.by_jobs_s / one.long_lived_s),
                f"{one.batch / one.long_lived_s:,.0f}",
                f"{one.batch / one.by_jobs_s:,.0f}",
                *map(_ms, (one.delay_s, outside_s, task_s, kernel_s)),
                yes(one.right),
            )
        )
    return Table(
        title="Time of a step",
        note="Milliseconds. Scheduler delay: of a task, as Spark tells it. Outside tasks: of the "
        "step's time, what is no task's, on the average over slots: scheduling, results, the "
        "driver's sum and update. In tasks: reading broadcast and data, pickling. Equal: all three "
        "trainings ended with the same weights, bit for bit.",
        head=(
            *("batch", "serial", "long-lived", "job per step", "ratio", "long-lived images/s"),
            *("job images/s", "delay/task", "outside tasks", "in tasks", "kernels", "equal"),
        ),
        rows=rows,
    )


def _ms(value_s: float) -> str:
    value = 1000 * value_s
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _bars(slots: int, one: MeasuredBatch) -> Bars:
    kernel_s, task_s, outside_s = one.parts(slots)
    parts: dict[str, tuple[float, tuple[tuple[float, str], ...]]] = {
        "serial": (one.serial_s, ((one.serial_s, "compute"),)),
        "long-lived job": (one.long_lived_s, ((one.long_lived_s, "compute"),)),
        "job per step": (
            one.by_jobs_s,
            ((kernel_s, "compute"), (task_s, "data"), (outside_s, "waiting")),
        ),
    }
    return Bars(
        title=f"A step of {one.batch:,} images",
        note="Milliseconds; of the job, the median step.",
        bars=[Bar(name=name, parts=own, text=_ms(s)) for name, (s, own) in parts.items()],
        keys=(
            ("computing", "compute"),
            ("tasks besides", "data"),
            ("outside tasks: scheduling, results, update", "waiting"),
        ),
    )


def _verdict(slots: int, measured: list[MeasuredBatch], empty_s: float) -> list[str]:
    lines = []
    for one in measured:
        extra_s = one.by_jobs_s - one.long_lived_s
        winner = "the long-lived job wins" if extra_s > 0 else "a job per step wins"
        lines.append(
            f"Batch {one.batch:,}: {winner}; a job per step takes "
            f"{ratio(one.by_jobs_s / one.long_lived_s)} its time, {_ms(extra_s)} ms more, of which "
            f"starting and ending a job that does nothing is {_ms(empty_s)} ms."
        )
    last = measured[-1]
    fixed_s = last.by_jobs_s - last.kernel_s / slots
    per_image_s = last.kernel_s / slots / last.batch
    if fixed_s > 0 and per_image_s > 0:
        lines.append(
            f"What a job costs besides computing, {_ms(fixed_s)} ms at batch {last.batch:,}, would "
            f"be a tenth of a step at about {9 * fixed_s / per_image_s:,.0f} images "
            "(extrapolated from the largest batch measured)."
        )
    return lines


def batches_of(text: str) -> list[int]:
    """Batch sizes from their list, each once; a `UserError` if one is no positive number.

    >>> batches_of("10,100,10")
    [10, 100]
    """
    words = text.split(",")
    if not all(word.strip().isdigit() and int(word) for word in words):
        raise UserError(f"--batches {text}: expected batch sizes such as 10,100")
    return list(dict.fromkeys(int(word) for word in words))


def problems(config: JobPerStepConfig) -> list[str]:
    """What is wrong with the settings, one line each."""
    options = config.job_per_step
    try:
        largest = max(batches_of(options.batches))
        opened = datasets.open_data(datasets.resolve(DataConfig(data=options.data)))
    except UserError as error:
        return list(error.problems)
    found, images = [], len(opened.train)
    if largest > images:
        found.append(
            f"--batches {options.batches}: the training part of {options.data} has only {images} "
            "images"
        )
    shape, classes = opened.shape, opened.outputs
    return found + models.check(ModelConfig(model=options.model), shape=shape, classes=classes)


def study(cluster: Cluster, config: JobPerStepConfig, show: Show) -> Findings:
    """Train in three ways at every batch size."""
    empty_s = cluster.empty_job_s()
    show(f"an empty job of {cluster.slots} tasks takes {1000 * empty_s:.0f} ms")
    measured = []
    with tempfile.TemporaryDirectory(prefix="sixfold-lab-") as folder:
        batches = batches_of(config.job_per_step.batches)
        parts = Progress(len(batches), show)
        for batch in batches:
            parts.begin(f"batch {batch}, {config.job_per_step.steps} steps in three ways")
            one = measure(cluster, config, batch, Path(folder))
            measured.append(one)
            show(
                f"batch {batch}: a step takes {1000 * one.by_jobs_s:.0f} ms by jobs, "
                f"{1000 * one.long_lived_s:.1f} ms in the long-lived job, "
                f"{1000 * one.serial_s:.1f} ms serially; weights "
                + ("equal, bit for bit" if one.right else "DIFFER")
            )
    result = JobPerStepResult(empty_job_s=empty_s, batches=measured)
    return summarize(cluster.slots, config.job_per_step, result)


def measure(cluster: Cluster, config: JobPerStepConfig, batch: int, folder: Path) -> MeasuredBatch:
    """The same training by jobs, by the long-lived job, and serially."""

    def trained(name: str, engine: EngineConfig) -> dict[str, Any]:
        settings = settings_of(config, batch, folder / f"{name}-{batch}")
        given = cluster.engine if name == "spark" else None
        return train(dataclasses.replace(settings, engine=engine), engine=given)

    long_lived = trained("spark", EngineConfig(engine="spark", workers=cluster.slots))
    alone = trained("serial", EngineConfig(engine="inline", workers=1))
    settings = settings_of(config, batch, folder)
    with one_thread():
        stepped = train_by_jobs(
            cluster, dataclasses.replace(settings, data=datasets.resolve(settings.data))
        )
    timed = stepped.steps[FIRST_TIMED_STEP:]
    hashes = {long_lived["weights_sha256"], alone["weights_sha256"], stepped.weights_sha256}
    middle = sorted(timed, key=lambda step: step.wall_s)[(len(timed) - 1) // 2]
    return MeasuredBatch(
        batch=batch,
        by_jobs_s=statistics.median(step.wall_s for step in timed),
        long_lived_s=batch / float(long_lived["train_images_per_s"]),
        serial_s=batch / float(alone["train_images_per_s"]),
        cost=middle.cost,
        kernel_s=middle.kernel_s,
        update_s=middle.update_s,
        steps=[step.wall_s for step in timed],
        delay_s=statistics.median(step.cost.delay_s / max(step.cost.tasks, 1) for step in timed),
        right=len(hashes) == 1,
        weights_sha256=sorted(hashes),
    )


def settings_of(config: JobPerStepConfig, batch: int, out: Path) -> TrainConfig:
    """The training: no evaluation and no checkpoint on the way."""
    options = config.job_per_step
    return TrainConfig(
        data=DataConfig(data=datasets.absolute_spec(options.data)),
        model=ModelConfig(model=options.model),
        optimizer=OptimizerConfig(lr=options.lr, momentum=options.momentum),
        training=TrainingConfig(
            batch_size=batch, steps=options.steps, seed=options.seed, evaluate_every=0.0
        ),
        run=RunConfig(out=str(out), checkpoint_every=10**9),
    )
