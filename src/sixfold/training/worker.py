"""What every rank of a training does, from opening the data to the final evaluation.

`train_rank` is the function that an engine's process group runs. It knows a `Communicator` and a
run directory, and neither the engine nor the launcher.
"""

import dataclasses
import importlib
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold import data as datasets
from sixfold.core.cpu_isa import keep_to
from sixfold.core.environment import peak_resident_bytes
from sixfold.core.errors import PeerLostError, UnfitRankError
from sixfold.core.run_directory import Claim, RankFiles
from sixfold.distributed.collectives import all_gather_data, all_gather_int
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.models.project import project_hashes, refuse_edited
from sixfold.training import outcome as outcomes
from sixfold.training.callbacks import Moment
from sixfold.training.checkpoint import path_of, step_of
from sixfold.training.config import TrainConfig
from sixfold.training.entrance import Entrance
from sixfold.training.evaluate import Evaluation
from sixfold.training.log import StepClock, TimedIterator, TrainLog
from sixfold.training.model_card import card_of
from sixfold.training.native import max_pool
from sixfold.training.progress import Progress
from sixfold.training.same_bits import own_bits
from sixfold.training.selection import Pause
from sixfold.training.steering import Steering
from sixfold.training.step.device import CPU, settle_arithmetic
from sixfold.training.step.groups import at_step, unfreezing_steps
from sixfold.training.step.precision import BF16, slow_bf16
from sixfold.training.step.schedule import budget, parse_schedule
from sixfold.training.step.step import Shard
from sixfold.training.strategies.registry import build_strategy, on_loss
from sixfold.training.strategies.spec import REPLACE
from sixfold.training.watch import Expected

CHECKPOINT_S = 60.0
FIRST_TIMED_STEP = 3
"""Throughput counts from the end of this step: the first ones warm up caches and allocators."""

_COURSE = (
    *("settled_at", "is_settled", "first_step", "timed_from", "paused_s", "latest", "recent"),
    *("started", "has_begun", "ended", "lost_steps"),
)
"""What ranks know of a training besides its state and `Progress`, and hand on as plain data."""

_SAVE, _STOP = 1, 2
"""What rank 0 wishes after a step."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What the launcher hands to every rank."""

    config: TrainConfig  # with paths made absolute and the data resolved
    claim: Claim  # the run directory
    # hashes of the user's own files by which the run was recognised; else taken by the rank itself
    source: Mapping[str, str] | None = None
    deadline: float | None = None  # Unix time from which no step is begun
    pause: Pause | None = None
    expected: Expected | None = None  # what steps should take; the training is interrupted if not


def train_rank(job: TrainJob, comm: Communicator) -> dict[str, Any]:
    """Train as one rank of a process group; on rank 0 the figures that `result.json` has of ranks.

    Raises:
        UserError: if the run directory or the data cannot be used from this host.
        NonFiniteLossError: if the training diverges.
        PeerLostError: if another rank is gone, and the group cannot go on without it.
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
        config, self.entered = job.config, time.time()
        self.comm, self.config, self.claim, self.pause = comm, config, job.claim, job.pause
        if comm.view:
            self.files = self._open_files()  # before all else: another host may not see it
        self.data = datasets.open_data(config.data)
        if comm.view == 0 and on_loss(config) == REPLACE:  # what it holds depends on its number
            importlib.import_module("torch._dynamo")  # 1.5 s, at the first tensor without memory
            comm.renew()
        self._build(config.initialization.start_step)
        is_narrow = config.training.precision == BF16 and config.compute.device == CPU
        slow = slow_bf16() if is_narrow else None
        if slow and self.is_root:
            comm.report({"kind": "note", "text": slow})
        model, self.source = config.model, job.source
        if self.source is not None:
            refuse_edited(model.model, self.source)
        elif self.is_root:
            self.source = project_hashes(model.model, model.model_args)
        self.schedule = parse_schedule(config.optimizer)
        self.checkpoints = job.claim.here() / "checkpoints"
        self.kept_steps = {int(step) for step in config.run.save_at_steps}
        self.steering = Steering(comm, config, job.deadline, job.expected)
        bits, total = own_bits(self.strategy.canary(), comm.host), self.budget.total_steps
        self.entrance = Entrance(comm, config, bits, total, self.checkpoints)
        self.saved_at = time.monotonic()
        self.progress, self.holds_state = Progress(), False  # whether it is whole on this rank
        self.safe = self.progress  # at the last point from which all could go on
        self.is_settled = True  # what comes after the last step is done
        self.settled_at = self.first_step = 0
        self.has_begun = False  # callbacks have been told of the start
        self.started = self.ended = self.entered  # the training; its last step
        self.timed_from: tuple[float, int] | None = None
        self.paused_s, self.lost_steps = 0.0, 0  # steps under way when a rank was lost
        self.latest: Mapping[str, Any] = {}
        self.recent: list[dict[str, Any]] = []
        self.is_asked = False  # to let others in before the next step
        self.final: dict[str, Evaluation] = {}  # the last evaluations, by part; on rank 0
        if comm.view == 0:  # this process comes later, and is ready now
            comm.renew()
        try:
            self._enter()
        except PeerLostError as error:
            if not comm.elastic or isinstance(error, UnfitRankError):
                raise
            self._renew()

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

    def _open_files(self) -> RankFiles:
        comm = self.comm
        return RankFiles(self.claim, attempt=comm.attempt, rank=comm.rank, host=comm.host)

    def _renew(self) -> None:
        """Go on in the next view of the group."""
        while True:
            self.comm.renew()
            try:
                return self._enter()
            except UnfitRankError:
                raise
            except PeerLostError:
                continue  # there will be yet another

    def _enter(self) -> None:
        """Begin a view of the group, with the newest state that there is."""
        comm = self.comm
        if self.holds_state and not self.strategy.is_sync_point(self.progress.step):
            self._go_back()
        version = 2 * self.progress.step + self.is_settled if self.holds_state else -1
        course: dict[str, Any] = {name: getattr(self, name) for name in _COURSE}
        course["progress"] = dataclasses.asdict(self.progress)
        course["interrupted"] = self.steering.interrupted
        found = self.entrance.enter(self, version, course)
        if found.progress is not None:
            self._begin_with(found.progress)
        else:
            self._adopt(found.course)
        self.holds_state, self.safe = True, self.progress
        if "files" not in self.__dict__ or self.files.attempt != comm.attempt:
            self.files = self._open_files()
        self.log = TrainLog(
            self.files,
            comm,
            self.progress.step,
            self.budget.total_steps,
            recent=self.recent,
            is_settled=self.is_settled,
        )
        self.lost_steps = found.lost_steps if found.progress is None else self.log.lost_steps
        self.ended = found.ended or self.log.last_time or self.entered
        self.log.begin(self.entered)
        who = {"rank": comm.rank, "of": comm.size, "host": comm.host, "pid": os.getpid()}
        comm.report({"kind": "rank", **who})

    def _go_back(self) -> None:
        """Forget the steps since the last point from which all could go on: they are made again."""
        self.lost_steps += self.progress.step - self.safe.step
        self.progress, self.is_settled = self.safe, True
        self.recent = [line for line in self.recent if line["step"] <= self.safe.step]

    def _begin_with(self, progress: Progress) -> None:
        """Nobody has made a step since a checkpoint, or since the beginning."""
        self.progress, self.is_settled, self.recent = progress, True, []
        self.settled_at = self.first_step = progress.step
        self.has_begun, self.timed_from, self.started = False, None, time.time()

    def _adopt(self, course: Mapping[str, Any]) -> None:
        """Know what the rank knows whose state has been taken, as all ranks do."""
        for name in _COURSE:
            setattr(self, name, course[name])
        self.progress = Progress(**course["progress"])
        self.steering.interrupted = course["interrupted"]

    def run(self) -> dict[str, Any]:
        """Train, evaluate, write the weights."""
        while True:
            try:
                if self._make_steps():
                    return self._finish()
            except PeerLostError as error:
                if not self.comm.elastic or isinstance(error, UnfitRankError):
                    raise
            finally:
                self.log.close()
                self.files.close()
            self.recent = list(self.log.recent)
            self._renew()

    def _make_steps(self) -> bool:
        """Make steps until the training or the view ends; whether it is the training."""
        if not self.is_settled:
            self._after_step(self.progress.step)
        first = self.progress.step
        if not self.has_begun:
            self._keep_snapshot(first - 1, first)
            self._consult(("on_start",))
            self.has_begun = True
        total = self.budget.total_steps
        if first < total and not self.is_over(first):
            stall_s = max(time.time() - self.ended, 0.0)
            self.log.view(first + 1, self.lost_steps, stall_s)
        for end in [s for s in self.unfreezing if first < s < total] + [total]:
            if not self._train(end):
                return False
            if self.is_over(self.progress.step):
                break
            self._unfreeze()
        return True

    def _train(self, end: int) -> bool:
        """Make the steps before `end` that are left; False if others are to be let in before."""
        begin = self.progress.step
        with datasets.prefetch(self.strategy.shards(begin), depth=self.data.ahead) as shards:
            timed = TimedIterator(shards)
            for number in range(begin, end):
                if self.is_over(number):
                    break
                self.lost_steps = 1  # if it comes to nothing
                self.train_step(number, timed)
                self.lost_steps = 0
                self._after_step(number + 1)
                if self.is_asked:
                    return False
        return True

    def _unfreeze(self) -> None:
        """Go on from the checkpoint that was just written, with more parameters in training."""
        all_gather_int(self.comm, 0)  # rank 0 has written it
        self.files.refresh()
        self._build(self.progress.step)
        self.network.restore(path_of(self.checkpoints, self.progress.step))

    def load(self, path: Path) -> Progress:
        """Take up a checkpoint, with what is trained by then."""
        if "files" in self.__dict__:
            self.files.refresh()
        start, step = self.config.initialization.start_step, step_of(path)
        if any(start < other <= step for other in self.unfreezing):
            self._build(step)
        return self.network.restore(path)

    def begin_anew(self) -> None:
        """Have the network with which the training began."""
        if self.comm.view > 1:  # a rank may have trained it
            self._build(self.config.initialization.start_step)

    def train_step(self, number: int, shards: TimedIterator[Shard]) -> dict[str, float]:
        """Make a step and log it; what is logged of its time."""
        clock = StepClock(self.comm.traffic, shards)
        lr = self.schedule.rate(number, self.budget)
        lr *= self.progress.plateau_factor * self.progress.rate_factor
        totals = self.strategy.train_step(number, shards, lr)
        whole_s, line = clock.stop(self.strategy.update_s)
        self.progress = dataclasses.replace(
            self.progress, step=number + 1, images=self.progress.images + totals.samples
        )
        self.is_settled, self.is_asked = False, totals.wishes
        metrics_line = {
            "epoch": round(self.budget.epochs_done(number + 1), 6),
            "loss": totals.loss,
            "accuracy": totals.accuracy,
            "lr": lr,
            "images": totals.samples,
            "images_per_s": round(totals.samples / whole_s, 3),
        }
        self.ended = self.log.step(number + 1, metrics_line, line)
        self.steering.took(line)
        self.latest = metrics_line
        return line

    def _after_step(self, done: int) -> None:
        """Do what comes after a step; again as a whole, if a rank is lost meanwhile."""
        before = self.progress, self.settled_at
        try:
            self._conclude(done, self.first_step)
        except PeerLostError:
            self.progress, self.settled_at = before
            raise
        self.is_settled = True
        if self.strategy.is_sync_point(done):
            self.safe = self.progress

    def _conclude(self, done: int, first: int) -> None:
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
        if done < total and self.budget.crosses(before, done, self.config.training.evaluate_every):
            metrics = self._evaluate()
        events = ("on_step", "on_epoch") if self.budget.crosses(before, done, 1.0) else ("on_step",)
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
        is_ended = bool(self.progress.stopped or self.steering.interrupted)
        return is_last or is_ended or is_paused

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

    def _should_save(self, before: int, done: int) -> bool:
        every = self.config.run.checkpoint_every
        if every is not None:
            return done // every > before // every
        is_late = time.monotonic() - self.saved_at > CHECKPOINT_S
        return is_late or self.budget.crosses(before, done, 1.0)

    def _save(self) -> None:
        self.log.flush()
        self._write(self.checkpoints, self.config.run.keep_checkpoints)
        self.saved_at = time.monotonic()

    def _write(self, folder: Path, keep: int) -> None:
        self.files.fence()
        self.network.save(folder, self.progress, keep=keep)
        self.files.publish()

    def _keep_snapshot(self, before: int, done: int) -> None:
        """Keep the weights of a step for which that was asked, if it lies in (before, done]."""
        wanted = any(before < step <= done for step in self.kept_steps)
        if wanted and (self.is_root or self.network.together):
            self._write(self.files.path / "snapshots", len(self.kept_steps) + 1)

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
        metrics = None if found is None else outcomes.metrics_of(found, self.data.classes)
        before = self.progress.best_step
        self.progress = self.steering.evaluated(
            self.progress, metrics, outcomes.usual_metric(found)
        )
        best_step = self.progress.best_step
        if self.network.together:
            best_step = all_gather_int(self.comm, best_step)[0]
        if best_step != before:
            self.progress = dataclasses.replace(self.progress, best_step=best_step)
            if self.is_root or self.network.together:
                self._save()
        return metrics or {}

    def _log_evaluation(self, part: str, found: Evaluation, spent_s: float | None = None) -> None:
        epoch = round(self.budget.epochs_done(self.progress.step), 6)
        self.log.evaluation(self.progress.step, outcomes.line_of(part, found, epoch, spent_s))

    def _finish(self) -> dict[str, Any]:
        """Final evaluation and weights."""
        is_short = self.progress.step < self.budget.total_steps and not self.progress.stopped
        if is_short and "deviation" in self.steering.interrupted:
            return {**self.steering.interrupted, "steps": self.progress.step}
        if self.pause is not None and is_short:
            found = self.network.evaluate(self.data.validation)
            judged = outcomes.judged_by(self.pause, found, self.data.classes)
            return judged | {"steps": self.progress.step} if judged else {}
        peak_bytes = max(all_gather_int(self.comm, peak_resident_bytes()))
        kernels = all_gather_data(self.comm, max_pool.found.origin)
        self._consult(("on_end",))
        outcome = self._chosen()
        outcome |= self._final_figures()
        outcome |= self.network.publish(self.files, card_of(self.config, self.data, self.source))
        for name, found in self.final.items():  # last, so that they are told once
            self._log_evaluation(name, found)
        if not self.is_root:
            return {"rank": self.comm.rank}
        ended = self.ended - self.paused_s
        speed = outcomes.images_per_s(self.timed_from, ended, self.progress.images)
        return outcome | {
            "train_images_per_s": speed,
            "training_s": round(time.time() - self.started, 6),
            "steps": self.progress.step,
            "epochs": round(self.budget.epochs_done(self.progress.step), 6),
            "images": self.progress.images,
            "bad_files": list(self.data.bad),
            "skipped_images": self.data.skipped,
            "peak_memory_bytes": peak_bytes,
            "native_kernels": kernels,
            "cpu_isa": self.config.compute.cpu_isa,
            **self.entrance.figures(),
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
            self.holds_state = False  # the weights are no longer those of the last step
            self.files.refresh()
            self.network.restore(path_of(self.checkpoints, best))
        return figures | {"final_weights": "best", "weights_step": best}

    def _final_figures(self) -> dict[str, Any]:
        """Test figures, and the validation accuracy where there is such a part."""
        parts = {"validation": self.data.validation, "test": self.data.test}
        found = {name: self.network.evaluate(part) for name, part in parts.items() if len(part)}
        self.final = {name: one for name, one in found.items() if one is not None}
        return outcomes.told_of(self.final, self.data, self.config, self.progress, self.pause)
