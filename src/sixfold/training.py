"""What every rank of a training does, from opening the data to the final evaluation.

`train_rank` is the function that an engine's gang runs. It knows a `World` and a run directory,
and neither the engine nor the launcher.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from sixfold import data as datasets
from sixfold import metrics, models
from sixfold.checkpoint import (
    Progress,
    list_checkpoints,
    load_checkpoint,
    model_tensors,
    save_checkpoint,
    weights_sha256,
)
from sixfold.collectives import all_gather_data
from sixfold.config import TrainConfig
from sixfold.evaluate import evaluate
from sixfold.run_directory import Claim, RankFiles
from sixfold.step.batches import BatchPlan
from sixfold.step.norm_sync import has_batch_norm
from sixfold.step.optimizer import make_optimizer
from sixfold.step.schedule import budget, parse_schedule
from sixfold.step.step import Shard, Step
from sixfold.strategies.sync import Sync
from sixfold.trained import ModelCard, pack
from sixfold.training_log import TimedIterator, TrainLog
from sixfold.world import World

CHECKPOINT_S = 60.0
FIRST_TIMED_STEP = 3
"""Throughput counts from the end of this step: the first ones warm up caches and allocators."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What the launcher hands to every rank.

    Attributes:
        config: the settings, with paths made absolute and the data resolved.
        claim: the run directory.
    """

    config: TrainConfig
    claim: Claim


def train_rank(job: TrainJob, world: World) -> dict[str, Any]:
    """Train as one rank of a gang.

    Returns:
        On rank 0 the figures of `result.json` that ranks know; on the others their rank.

    Raises:
        UserError: if the run directory or the data cannot be used from this host.
        NonFiniteLossError: if the training diverges.
        PeerLostError: if another rank is gone.
    """
    with _single_thread():
        return _Training(job, world).run()


@contextmanager
def _single_thread() -> Iterator[None]:
    """One thread a rank, and the caller's number again afterwards: workers are reused."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Training:
    """One rank's training, from set-up to the final evaluation."""

    def __init__(self, job: TrainJob, world: World) -> None:
        config = job.config
        self.world, self.config = world, config
        self.files = RankFiles(job.claim, attempt=world.attempt, rank=world.rank, host=world.host)
        self.data = datasets.open_data(config.data)
        model = models.build(
            config.model,
            shape=self.data.shape,
            classes=len(self.data.classes),
            seed=config.training.seed,
        ).to(getattr(torch, config.training.precision))
        self.make_batch = datasets.BatchMaker(
            self.data, "float64" if config.training.precision == "float64" else "float32"
        )
        augment = datasets.parse_augment(config.data.augment)
        self.plan = BatchPlan(
            data=self.data,
            budget=budget(config.training, len(self.data.train)),
            seed=config.training.seed,
            make_batch=self.make_batch,
            augment=augment,
            batch_norm=has_batch_norm(model),
            wanted_shards=config.training.shards,
        )
        self.step = Step(
            model,
            seed=config.training.seed,
            sync_norms=config.training.batch_norm == "sync",
        )
        self.schedule = parse_schedule(config.optimizer)
        self.optimizer = make_optimizer(config.optimizer, self.step.state.parameters)
        self.strategy = Sync(world, self.step, self.optimizer, exact=config.strategy.exact)
        self.checkpoints = self.files.path / "checkpoints"
        self.progress = self._restore()
        self.log = TrainLog(self.files, world, self.progress.step)
        self.paused_s = 0.0
        self.saved_at = time.monotonic()
        self.ended = 0.0
        self.timed_from: tuple[float, int] | None = None

    @property
    def is_root(self) -> bool:
        return self.world.rank == 0

    def _restore(self) -> Progress:
        """Go on from the checkpoint that rank 0 finds newest, or from the beginning."""
        found = list_checkpoints(self.checkpoints) if self.is_root else []
        newest = all_gather_data(self.world, found[-1].name if found else "")[0]
        if not newest:
            return Progress()
        return load_checkpoint(self.checkpoints / newest, self.step.state, self.optimizer)

    def run(self) -> dict[str, Any]:
        """Train, evaluate, write the weights."""
        world = self.world
        world.report({"kind": "rank", "rank": world.rank, "host": world.host, "pid": os.getpid()})
        self._warn_of_idle_ranks()
        started = time.monotonic()
        total = self.plan.budget.total_steps
        first = self.progress.step
        shards = datasets.prefetch(self.plan.own_shards(self.world, first), depth=4)
        try:
            with shards as supply:
                timed = TimedIterator(supply)
                for number in range(first, total):
                    self._advance(number, timed)
                    self._after_step(number, first)
            return self._finish(started)
        finally:
            self.log.close()

    def _warn_of_idle_ranks(self) -> None:
        count, size = self.plan.count(0), self.world.size
        if self.is_root and size > count:
            self.world.report(
                {
                    "kind": "note",
                    "text": f"{size - count} of {size} workers have nothing to do: a step of "
                    f"{self.plan.budget.batch_size} images has {count} logical shards (--shards, "
                    "or a larger --batch-size, gives more)",
                }
            )

    def _advance(self, number: int, supply: TimedIterator[Shard]) -> None:
        """Make a step and log it."""
        begin, before = time.perf_counter(), dataclasses.replace(self.world.traffic)
        data_before = supply.waited_s
        lr = self.schedule.rate(number, self.plan.budget)
        totals = self.strategy.advance(number, self.plan.count(number), supply, lr)
        whole_s = time.perf_counter() - begin
        traffic = self.world.traffic
        times = {
            "data_s": supply.waited_s - data_before,
            "communication_s": traffic.communication_s - before.communication_s,
            "waiting_s": traffic.waiting_s - before.waiting_s,
            "update_s": self.strategy.update_s,
        }
        times["compute_s"] = max(whole_s - sum(times.values()), 0.0)
        self.progress = dataclasses.replace(
            self.progress, step=number + 1, images=self.progress.images + totals.samples
        )
        metrics_line = {
            "epoch": round(self.plan.budget.epochs_done(number + 1), 6),
            "loss": totals.loss,
            "accuracy": totals.accuracy,
            "lr": lr,
            "images": totals.samples,
            "images_per_s": round(totals.samples / whole_s, 3),
        }
        self.ended = self.log.step(number + 1, metrics_line, times)

    def _after_step(self, number: int, first: int) -> None:
        """Evaluate and save where it is time to."""
        done, total = number + 1, self.plan.budget.total_steps
        if done - first == min(FIRST_TIMED_STEP, max(total - first - 1, 1)):
            self.timed_from = (self.ended, self.progress.images)
            self.paused_s = 0.0
        if done < total and self._crosses(done, self.config.training.evaluate_every):
            self._evaluate()
        if self.is_root:
            stop = self.world.should_stop()
            if done == total or stop or self._should_save(done):
                self._save()
            if stop:
                raise KeyboardInterrupt

    def _crosses(self, done: int, every_epochs: float) -> bool:
        """True if a multiple of so many epochs was reached by the last step."""
        if every_epochs <= 0:
            return False
        steps = every_epochs * self.plan.budget.steps_per_epoch
        return int(done / steps + 1e-9) > int((done - 1) / steps + 1e-9)

    def _should_save(self, done: int) -> bool:
        every = self.config.run.checkpoint_every
        if every is not None:
            return done % every == 0
        return (
            done % self.plan.budget.steps_per_epoch == 0
            or time.monotonic() - self.saved_at > CHECKPOINT_S
        )

    def _save(self) -> None:
        self.files.fence()
        self.log.flush()
        save_checkpoint(
            self.checkpoints,
            self.progress,
            self.step.state,
            self.optimizer,
            keep=self.config.run.keep,
        )
        self.saved_at = time.monotonic()

    def _evaluate(self) -> None:
        """Evaluate between epochs: on the validation part if there is one."""
        begin = time.monotonic()
        on_validation = len(self.data.validation) > 0
        part = self.data.validation if on_validation else self.data.test
        found = evaluate(self.world, self.step.model, part, self.make_batch)
        spent = time.monotonic() - begin
        self.paused_s += spent
        if found is None:
            return
        name = "validation" if on_validation else "test"
        self.log.evaluation(
            self.progress.step,
            {
                "epoch": round(self.plan.budget.epochs_done(self.progress.step), 6),
                "part": name,
                "eval_loss": found.loss,
                "eval_accuracy": found.accuracy,
                "eval_s": round(spent, 6),
            },
        )
        # Only the validation part may choose: the test set is looked at, never selected on.
        if on_validation and found.accuracy > self.progress.best_accuracy:
            self.progress = dataclasses.replace(
                self.progress, best_step=self.progress.step, best_accuracy=found.accuracy
            )
            self._save()

    def _finish(self, started: float) -> dict[str, Any]:
        """Final evaluation and weights."""
        outcome = self._final_figures()
        if not self.is_root:
            return {"rank": self.world.rank}
        tensors = model_tensors(self.step.model)
        self.files.write_bytes("model.safetensors", pack(self.step.model, self._card()))
        outcome |= {
            "train_images_per_s": self._throughput(),
            "training_s": round(time.monotonic() - started, 6),
            "steps": self.progress.step,
            "epochs": round(self.plan.budget.epochs_done(self.progress.step), 6),
            "images": self.progress.images,
            "weights_sha256": weights_sha256(tensors),
            "parameters": sum(p.numel() for p in self.step.model.parameters()),
            "logical_shards": self.plan.count(0),
            "bad_files": list(self.data.bad),
        }
        return outcome

    def _final_figures(self) -> dict[str, Any]:
        """Test figures, and the validation accuracy where there is such a part."""
        figures: dict[str, Any] = {}
        for name in ("validation", "test"):
            part = getattr(self.data, name)
            if not len(part):
                continue
            found = evaluate(self.world, self.step.model, part, self.make_batch)
            if found is None:
                continue
            self.log.evaluation(
                self.progress.step,
                {
                    "epoch": round(self.plan.budget.epochs_done(self.progress.step), 6),
                    "part": name,
                    "eval_loss": found.loss,
                    "eval_accuracy": found.accuracy,
                },
            )
            if name == "test":
                figures |= {"test_loss": found.loss}
                figures |= metrics.summarize(
                    found.labels,
                    found.predicted,
                    found.confidence,
                    found.in_top5,
                    classes=self.data.classes,
                    names=part.names,
                )
            else:
                figures |= {"validation_accuracy": found.accuracy}
                if self.progress.best_step >= 0:
                    figures["best_step"] = self.progress.best_step
                    figures["best_validation_accuracy"] = self.progress.best_accuracy
        return figures

    def _throughput(self) -> float | None:
        """Images over wall time from the end of step 3 to the last, evaluation left out."""
        if self.timed_from is None:
            return None
        begin, images = self.timed_from
        spent = self.ended - begin - self.paused_s
        done = self.progress.images - images
        return round(done / spent, 3) if done and spent > 0 else None

    def _card(self) -> ModelCard:
        return ModelCard(
            model=self.config.model.model,
            model_args=self.config.model.model_args,
            precision=self.config.training.precision,
            shape=self.data.shape,
            classes=self.data.classes,
            mean=tuple(float(value) for value in self.data.mean),
            std=tuple(float(value) for value in self.data.std),
        )
