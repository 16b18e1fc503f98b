"""What every rank of a training does, from opening the data to the final evaluation.

`train_rank` is the function that an engine's process group runs. It knows a `Communicator` and a
run directory, and neither the engine nor the launcher.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sixfold import data as datasets
from sixfold.core.cpu_isa import keep_to
from sixfold.core.environment import peak_resident_bytes
from sixfold.core.run_directory import Claim, RankFiles
from sixfold.distributed.collectives import all_gather_data, all_gather_int
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.models.project import project_hashes, refuse_edited
from sixfold.training.callbacks import Moment
from sixfold.training.checkpoint import newest_intact, path_of, read_notes, step_of
from sixfold.training.config import TrainConfig
from sixfold.training.evaluate import Evaluation
from sixfold.training.log import TimedIterator, TrainLog
from sixfold.training.model_card import ModelCard
from sixfold.training.native import max_pool
from sixfold.training.progress import Progress
from sixfold.training.same_bits import (
    Bits,
    own_bits,
    rank_difference,
    refuse_other_bits,
    saved_bits,
)
from sixfold.training.selection import Pause, pick, value_of
from sixfold.training.steering import Steering
from sixfold.training.step.device import CPU, settle_arithmetic
from sixfold.training.step.groups import at_step, unfreezing_steps
from sixfold.training.step.precision import BF16, slow_bf16, weights_precision
from sixfold.training.step.schedule import budget, parse_schedule
from sixfold.training.step.step import Shard
from sixfold.training.strategies.registry import build_strategy, find_strategy

CHECKPOINT_S = 60.0
FIRST_TIMED_STEP = 3
"""Throughput counts from the end of this step: the first ones warm up caches and allocators."""

_SAVE, _STOP = 1, 2
"""What rank 0 wishes after a step."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What the launcher hands to every rank.

    Attributes:
        config: the settings, with paths made absolute and the data resolved.
        claim: the run directory.
        source: hashes of the user's own files that the network is made of, as the run was
            recognised by them; taken by the rank itself if absent.
    """

    config: TrainConfig
    claim: Claim
    source: Mapping[str, str] | None = None
    deadline: float | None = None  # Unix time from which no step is begun
    pause: Pause | None = None


def train_rank(job: TrainJob, comm: Communicator) -> dict[str, Any]:
    """Train as one rank of a process group.

    Returns:
        On rank 0 the figures of `result.json` that ranks know; on the others their rank.

    Raises:
        UserError: if the run directory or the data cannot be used from this host.
        NonFiniteLossError: if the training diverges.
        PeerLostError: if another rank is gone.
        RunError: if the network's source has changed since the launcher looked at it.
    """
    config = job.config
    keep_to(config.compute.cpu_isa)  # an engine that was handed in may not know of it
    if config.compute.device != CPU:
        settle_arithmetic(config.compute, exact=config.strategy.deterministic)
    with one_thread():
        return Training(job, comm).run()


class Training:
    """One rank's training, from set-up to the final evaluation; see `train_rank`."""

    def __init__(self, job: TrainJob, comm: Communicator) -> None:
        config, entered = job.config, time.time()
        self.comm, self.config = comm, config
        self.files = RankFiles(job.claim, attempt=comm.attempt, rank=comm.rank, host=comm.host)
        self.data = datasets.open_data(config.data)
        self._build(config.initialization.start_step)
        is_narrow = config.training.precision == BF16 and config.compute.device == CPU
        slow = slow_bf16() if is_narrow else None
        if slow and self.is_root:
            self._note(slow)
        model = config.model
        self.source = job.source
        if self.source is not None:
            refuse_edited(model.model, self.source)
        elif self.is_root:
            self.source = project_hashes(model.model, model.model_args)
        self.schedule = parse_schedule(config.optimizer)
        self.checkpoints = self.files.path / "checkpoints"
        self.kept_steps = {int(step) for step in config.run.save_at_steps}
        self.steering = Steering(comm, config, job.deadline)
        self.progress = self._restore()
        self.settled_at = self.progress.step
        self.log = TrainLog(self.files, comm, self.progress.step, self.budget.total_steps)
        self.log.begin(entered)
        self.paused_s = 0.0
        self.saved_at = time.monotonic()
        self.ended = 0.0
        self.timed_from: tuple[float, int] | None = None
        self.latest: Mapping[str, Any] = {}
        self.pause = job.pause

    def _build(self, step: int) -> None:
        """The network as it is trained from a step on: what is frozen may change by epochs."""
        config = self.config
        per_epoch = budget(config.training, len(self.data.train)).steps_per_epoch
        self.unfreezing = unfreezing_steps(config.optimizer, per_epoch)
        optimizer = at_step(config.optimizer, step, per_epoch)
        config = dataclasses.replace(config, optimizer=optimizer)
        self.strategy = build_strategy(self.comm, config, self.data)
        self.network, self.budget = self.strategy.network, self.strategy.budget

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""
        return self.comm.rank == 0

    def _note(self, text: str) -> None:
        self.comm.report({"kind": "note", "text": text})

    def _restore(self) -> Progress:
        """Go on from the checkpoint that rank 0 finds newest, or from the beginning."""
        found = newest_intact(self.checkpoints, self._note) if self.is_root else None
        own = own_bits(self.strategy.canary(), self.comm.host)
        then = saved_bits(read_notes(found)) if found else Bits()
        told = all_gather_data(
            self.comm, [own.to_plain(), found.name if found else "", then.to_plain()]
        )
        self.bits = [Bits(**each) for each, *_ in told]
        strategy = self.config.strategy
        exact = strategy.deterministic and find_strategy(strategy.strategy).repeatable
        odd = rank_difference(self.bits, exact=exact)
        if odd and self.is_root:
            self._note(odd)
        _, newest, before = told[0]
        if not newest:
            return Progress(step=self.config.initialization.start_step, canary=own.canary)
        step = step_of(self.checkpoints / newest)
        if any(self.config.initialization.start_step < s <= step for s in self.unfreezing):
            self._build(step)
        progress = self.network.restore(self.checkpoints / newest)
        if exact and progress.step < self.budget.total_steps:
            refuse_other_bits(self.checkpoints / newest, Bits(**before), own)
        return dataclasses.replace(progress, canary=own.canary)

    def run(self) -> dict[str, Any]:
        """Train, evaluate, write the weights."""
        comm = self.comm
        comm.report({"kind": "rank", "rank": comm.rank, "host": comm.host, "pid": os.getpid()})
        started = time.monotonic()
        first = self.progress.step
        self._keep_snapshot(first - 1, first)
        try:
            self._consult(("on_start",))
            total = self.budget.total_steps
            for end in [s for s in self.unfreezing if first < s < total] + [total]:
                self._train(end, first)
                if self.is_over(self.progress.step):
                    break
                self._unfreeze()
            return self._finish(started)
        finally:
            self.log.close()

    def _train(self, end: int, first: int) -> None:
        """Make the steps before `end` that are left; the run began with step `first`."""
        begin = self.progress.step
        with datasets.prefetch(self.strategy.supply(begin), depth=self.data.ahead) as supply:
            timed = TimedIterator(supply)
            for number in range(begin, end):
                if self.is_over(number):
                    return
                self.advance(number, timed)
                self._after_step(number + 1, first)

    def _unfreeze(self) -> None:
        """Go on from the checkpoint that was just written, with more parameters in training."""
        all_gather_int(self.comm, 0)  # rank 0 has written it
        self._build(self.progress.step)
        self.network.restore(path_of(self.checkpoints, self.progress.step))

    def advance(self, number: int, supply: TimedIterator[Shard]) -> dict[str, float]:
        """Make a step and log it; what is logged of its time."""
        started, traffic = time.time(), self.comm.traffic
        traffic.entered = None
        begin, before = time.perf_counter(), dataclasses.replace(traffic)
        cpu_before = time.process_time()
        data_before = supply.waited_s
        lr = self.schedule.rate(number, self.budget)
        lr *= self.progress.plateau_factor * self.progress.rate_factor
        totals = self.strategy.advance(number, supply, lr)
        whole_s = time.perf_counter() - begin
        times = {
            "data_s": supply.waited_s - data_before,
            "communication_s": traffic.communication_s - before.communication_s,
            "waiting_s": traffic.waiting_s - before.waiting_s,
            "update_s": self.strategy.update_s,
        }
        times["compute_s"] = max(whole_s - sum(times.values()), 0.0)
        line = times | {
            "begin": started,
            "exchanges": traffic.exchanges - before.exchanges,
            "cpu_s": time.process_time() - cpu_before,
        }
        if traffic.entered is not None:
            line["arrived_s"] = traffic.entered - begin
        self.progress = dataclasses.replace(
            self.progress, step=number + 1, images=self.progress.images + totals.samples
        )
        metrics_line = {
            "epoch": round(self.budget.epochs_done(number + 1), 6),
            "loss": totals.loss,
            "accuracy": totals.accuracy,
            "lr": lr,
            "images": totals.samples,
            "images_per_s": round(totals.samples / whole_s, 3),
        }
        self.ended = self.log.step(number + 1, metrics_line, line)
        self.latest = metrics_line
        return line

    def _after_step(self, done: int, first: int) -> None:
        """Evaluate and save where it is time to, and the ranks hold weights to be judged."""
        total = self.budget.total_steps
        if done - first == min(FIRST_TIMED_STEP, max(total - first - 1, 1)):
            self.timed_from = (self.ended, self.progress.images)
            self.paused_s = 0.0
        if not self.strategy.is_sync_point(done):
            return
        before, self.settled_at = self.settled_at, done
        self._keep_snapshot(before, done)
        metrics: Mapping[str, float | None] = {}
        if done < total and self._crosses(before, done, self.config.training.evaluate_every):
            metrics = self._evaluate()
        events = ("on_step", "on_epoch") if self._crosses(before, done, 1.0) else ("on_step",)
        self._consult(events, metrics)
        stop = self.is_root and self.comm.should_stop()
        is_due = self.is_over(done) or done in self.unfreezing or self._should_save(before, done)
        wish = _STOP if stop else _SAVE if is_due else 0
        if self.network.together:
            wish = all_gather_int(self.comm, wish)[0]
        elif not self.is_root:
            return
        if wish:
            self._save()
        if wish == _STOP:
            raise KeyboardInterrupt

    def is_over(self, done: int) -> bool:
        """Whether no step is made after so many, the same on every rank."""
        is_last = done == self.budget.total_steps
        is_paused = self.pause is not None and self.settled_at >= self.pause.step
        return is_last or bool(self.progress.stopped) or self.steering.out_of_time or is_paused

    def _consult(
        self, events: tuple[str, ...], metrics: Mapping[str, float | None] | None = None
    ) -> None:
        """Ask callbacks and the clock."""
        progress, latest = self.progress, self.latest
        moment = Moment(
            step=progress.step,
            total_steps=self.budget.total_steps,
            epoch=self.budget.epochs_done(progress.step),
            lr=latest.get("lr", self.schedule.peak),
            loss=latest.get("loss", math.nan),
            accuracy=latest.get("accuracy", math.nan),
            metrics=metrics or {},
        )
        self.progress, logged = self.steering.consulted(progress, moment, events)
        if logged and self.is_root:
            self.log.values(progress.step, logged)

    def _crosses(self, before: int, done: int, every_epochs: float) -> bool:
        """True if a multiple of so many epochs was reached after step `before`."""
        if every_epochs <= 0:
            return False
        steps = every_epochs * self.budget.steps_per_epoch
        return int(done / steps + 1e-9) > int(before / steps + 1e-9)

    def _should_save(self, before: int, done: int) -> bool:
        every = self.config.run.checkpoint_every
        if every is not None:
            return done // every > before // every
        return self._crosses(before, done, 1.0) or time.monotonic() - self.saved_at > CHECKPOINT_S

    def _save(self) -> None:
        self.files.fence()
        self.log.flush()
        self.network.save(self.checkpoints, self.progress, keep=self.config.run.keep_checkpoints)
        self.saved_at = time.monotonic()

    def _keep_snapshot(self, before: int, done: int) -> None:
        """Keep the weights of a step for which that was asked, if it lies in (before, done]."""
        wanted = any(before < step <= done for step in self.kept_steps)
        if wanted and (self.is_root or self.network.together):
            self.files.fence()
            folder = self.files.path / "snapshots"
            self.network.save(folder, self.progress, keep=len(self.kept_steps) + 1)

    def _evaluate(self) -> Mapping[str, float | None]:
        """Evaluate between epochs: on the validation part if there is one.

        Returns:
            On rank 0 the metrics of the validation part.
        """
        begin = time.monotonic()
        on_validation = len(self.data.validation) > 0
        part = self.data.validation if on_validation else self.data.test
        if not len(part):
            return {}
        found = self.network.evaluate(part)
        spent = time.monotonic() - begin
        self.paused_s += spent
        if found is not None:
            self._log_evaluation("validation" if on_validation else "test", found, spent)
        # Only the validation part may choose: the test set is looked at, never selected on.
        return self._select(found) if on_validation else {}

    def _select(self, found: Evaluation | None) -> Mapping[str, float | None]:
        """Save if no evaluation was better, and see whether to go on; None but on rank 0."""
        metrics = None if found is None else self._metrics_of(found)
        before = self.progress.best_step
        self.progress = self.steering.evaluated(self.progress, metrics, _usual_metric(found))
        best_step = self.progress.best_step
        if self.network.together:
            best_step = all_gather_int(self.comm, best_step)[0]
        if best_step != before:
            self.progress = dataclasses.replace(self.progress, best_step=best_step)
            if self.is_root or self.network.together:
                self._save()
        return metrics or {}

    def _metrics_of(self, found: Evaluation) -> dict[str, float | None]:
        """What may be selected by."""
        more = found.summary(self.data.classes, part="")
        known = {name: value for name, value in more.items() if isinstance(value, float)}
        return known | found.metrics()

    def _log_evaluation(self, part: str, found: Evaluation, spent_s: float | None) -> None:
        line = {
            "epoch": round(self.budget.epochs_done(self.progress.step), 6),
            "part": part,
            **{f"eval_{name}": value for name, value in found.metrics().items()},
        }
        if spent_s is not None:
            line["eval_s"] = round(spent_s, 6)
        self.log.evaluation(self.progress.step, line)

    def _finish(self, started: float) -> dict[str, Any]:
        """Final evaluation and weights."""
        is_short = self.progress.step < self.budget.total_steps and not self.progress.stopped
        if self.pause is not None and is_short:
            found = self.network.evaluate(self.data.validation)
            return {} if found is None else self._judged(found) | {"steps": self.progress.step}
        peak_bytes = max(all_gather_int(self.comm, peak_resident_bytes()))
        kernels = all_gather_data(self.comm, max_pool.found.origin)
        self._consult(("on_end",))
        outcome = self._chosen()
        outcome |= self._final_figures()
        outcome |= self.network.publish(self.files, self._card())
        if not self.is_root:
            return {"rank": self.comm.rank}
        return outcome | {
            "train_images_per_s": self._throughput(),
            "training_s": round(time.monotonic() - started, 6),
            "steps": self.progress.step,
            "epochs": round(self.budget.epochs_done(self.progress.step), 6),
            "images": self.progress.images,
            "bad_files": list(self.data.bad),
            "skipped_images": self.data.skipped,
            "peak_memory_bytes": peak_bytes,
            "native_kernels": kernels,
            "canary": self.bits[0].canary,
            "cpu_isa": self.config.compute.cpu_isa,
            "arithmetic": self.bits[0].arithmetic,
            **self._odd_arithmetic(),
            **self.strategy.figures(),
        }

    def _chosen(self) -> dict[str, Any]:
        """Take the weights that are asked for; what is told of the end and of the choice."""
        figures = self.steering.figures(self.progress)
        if self.config.selection.final_weights == "last":
            return figures
        self._select(self.network.evaluate(self.data.validation))
        best = self.progress.best_step
        if 0 <= best != self.progress.step:
            self.network.restore(path_of(self.checkpoints, best))
        return figures | {"final_weights": "best", "weights_step": best}

    def _odd_arithmetic(self) -> dict[str, Any]:
        """That of every rank, where they are not all alike."""
        all_words = [each.arithmetic for each in self.bits]
        alike = all(words == all_words[0] for words in all_words)
        return {} if alike else {"arithmetic_by_rank": all_words}

    def _final_figures(self) -> dict[str, Any]:
        """Test figures, and the validation accuracy where there is such a part."""
        figures: dict[str, Any] = {}
        for name in ("validation", "test"):
            part = getattr(self.data, name)
            found = self.network.evaluate(part) if len(part) else None
            if found is None:
                continue
            self._log_evaluation(name, found, None)
            if name == "test":
                figures |= {"test_loss": found.loss}
                figures |= found.summary(self.data.classes, part.names)
            else:
                figures |= {f"validation_{n}": value for n, value in found.metrics().items()}
                figures |= self._judged(found)
                if self.progress.best_step >= 0:
                    figures["best_step"] = self.progress.best_step
                    metric = self.config.selection.best or _usual_metric(found)
                    best = value_of(metric, self.progress.best_accuracy)
                    figures[f"best_validation_{metric}"] = best
        return figures

    def _judged(self, found: Evaluation) -> dict[str, float | None]:
        """The metric that a training is judged by where it pauses."""
        if self.pause is None:
            return {}
        metric = self.pause.metric or _usual_metric(found)
        return {f"validation_{metric}": pick("--metric", metric, self._metrics_of(found))}

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
            precision=weights_precision(self.config.training.precision),
            shape=self.data.shape,
            classes=self.data.classes,
            mean=tuple(float(value) for value in self.data.mean),
            std=tuple(float(value) for value in self.data.std),
            kind=self.data.kind,
            source=dict(self.source or {}),
        )


def _usual_metric(found: Evaluation | None) -> str:
    """By what the best is chosen if nobody says; read on rank 0, which has the evaluation."""
    return "loss" if found is not None and found.accuracy is None else "accuracy"
