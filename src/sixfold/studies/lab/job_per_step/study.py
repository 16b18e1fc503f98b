"""`sixfold lab job-per-step`: a job for every step, beside one that lives through all of them."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

from sixfold import data as datasets
from sixfold import models
from sixfold.core.config import RunConfig
from sixfold.core.errors import UserError
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.models.config import ModelConfig
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.config import JobPerStepConfig
from sixfold.studies.lab.findings import Findings
from sixfold.studies.lab.job_per_step.stepper import train_by_jobs
from sixfold.studies.lab.job_per_step.summary import JobPerStepResult, MeasuredBatch, tell
from sixfold.studies.lab.run import Progress, Show
from sixfold.training.config import OptimizerConfig, TrainConfig, TrainingConfig
from sixfold.training.run import train
from sixfold.training.worker import FIRST_TIMED_STEP


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
    return tell(cluster.slots, config.job_per_step, result)


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
