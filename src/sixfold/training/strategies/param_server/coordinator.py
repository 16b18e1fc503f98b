"""The one place in a run with parameter servers that knows of everybody.

It hands out leases, hears what became of them, and decides when to save, to evaluate and to end.
It lives in the launcher, whose death ends the run anyway. It holds no weights: those are the
servers'. Its methods may be called from any thread.
"""

import dataclasses
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.run_directory import RankFiles
from sixfold.training.checkpoint import list_checkpoints, path_of
from sixfold.training.config import TrainConfig
from sixfold.training.progress import Progress
from sixfold.training.step.schedule import TrainingLength
from sixfold.training.strategies.param_server.journal import Journal
from sixfold.training.strategies.param_server.leases import LeaseBook, plan_leases
from sixfold.training.strategies.param_server.server import LeaseName, Snapshot
from sixfold.training.strategies.param_server.whole import WholeState

CHECKPOINT_S = 60.0
WAIT_S = 0.05  # after which a worker that has nothing to do asks again
EVALUATION_S = 120.0
"""For an evaluation, after which an idle worker makes it instead; the first to end it counts."""
FIRST_TIMED_STEP = 3
Table = Mapping[LeaseName, int]
OnEvent = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Comeback:
    """A server that started again: what its snapshot had not held."""

    server: int
    after_steps: int  # how many steps of the run had been accepted then
    lost_updates: int  # acknowledged updates of its slice that were lost, and made again
    leases: int  # how many leases they belonged to
    away_s: float  # seconds from the loss of its connection until it was back


@dataclass(kw_only=True)
class _Server:
    """A server as far as it is known: `life` 0 means that it is not there."""

    address: tuple[str, int] | None = None
    life: int = 0
    starts: int = 0
    left_at: float = 0.0


class Coordinator:
    """Issues leases, logs steps, orders snapshots and evaluations; see the module.

    `progress` is how far the run was before, `snapshots` what the servers start from, `whole` the
    network, for checkpoints; `part` ("validation" or "test") is evaluated between epochs.
    """

    def __init__(
        self,
        config: TrainConfig,
        budget: TrainingLength,
        files: RankFiles,
        whole: WholeState,
        progress: Progress,
        snapshots: Sequence[Snapshot],
        *,
        workers: int,
        on_event: OnEvent,
        part: str,
    ) -> None:
        self.config, self.budget, self.files, self.whole = config, budget, files, whole
        self.progress = progress
        self._listen, self._part = on_event, part
        ledgers = [snapshot.ledger for snapshot in snapshots]
        fences = [fence for ledger in ledgers for fence in ledger.fences.values()]
        self.book = LeaseBook(
            plan_leases(budget),
            tables=[ledger.applied for ledger in ledgers],
            first_attempt=max(fences, default=0) + 1,
        )
        self._journal = Journal(files, on_event, progress.step, workers)
        self._lock = threading.RLock()
        self._servers = [_Server() for _ in snapshots]
        self._seen: Counter[int] = Counter()
        self._homes: dict[int, tuple[str, int]] = {}
        self._heard_at = time.monotonic()
        self._evaluations: deque[dict[str, Any]] = deque()
        self._evaluating: dict[int, tuple[float, dict[str, Any]]] = {}
        self._considered = progress.step
        self._saved_at = time.monotonic()
        self._timed_from: tuple[float, int] | None = None
        self._ended = 0.0
        self._images_logged = progress.images
        self._bytes = self._steps_reported = 0
        self._last_snapshots: Sequence[Snapshot] = snapshots
        self.comebacks: list[Comeback] = []
        self.worker_losses = 0
        self.finished = False
        self.failure: BaseException | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, or nothing can be done any more."""
        return self.finished or self.failure is not None

    def fail(self, error: BaseException) -> None:
        """Something went wrong that no worker knows of: all are sent home."""
        with self._lock:
            self.failure = self.failure or error

    # What servers say.

    def server_joined(
        self, server: int, address: tuple[str, int] | None, life: int, table: Table, pid: int
    ) -> None:
        """A server has started, with this table."""
        self._listen({"kind": "server", "server": server, "pid": pid})
        with self._lock:
            entry = self._servers[server]
            entry.address, entry.life = address, life
            entry.starts += 1
            if entry.starts == 1:
                return
            setback = self.book.restored(table)
            back = Comeback(
                server=server,
                after_steps=self.book.steps_logged,
                lost_updates=setback.steps,
                leases=setback.leases,
                away_s=round(time.monotonic() - entry.left_at, 3),
            )
            self.comebacks.append(back)
        text = (
            f"server {server} is back after {back.away_s:.1f} s: {back.lost_updates} updates of "
            f"its slice, of {back.leases} leases, were not in its snapshot and are made again"
        )
        self._listen({"kind": "note", "text": text})

    def server_left(self, server: int, life: int) -> None:
        """A server is gone."""
        with self._lock:
            entry = self._servers[server]
            if entry.life == life:
                entry.address, entry.life, entry.left_at = None, 0, time.monotonic()

    def servers(self) -> list[tuple[tuple[str, int] | None, int]]:
        """Address and life of every server; a life of 0 means that it is not there."""
        with self._lock:
            return [(entry.address, entry.life) for entry in self._servers]

    # What workers say.

    def worker_joined(self, worker: int, host: str, pid: int) -> None:
        """A worker has come, perhaps in the place of one that died."""
        with self._lock:
            self._seen[worker] += 1
            self._homes[worker] = host, pid
            self._heard_at = time.monotonic()
        self._listen({"kind": "rank", "rank": worker, "host": host, "pid": pid})

    def worker_left(self, worker: int, *, dead: bool) -> None:
        """A worker is gone: what it held is open again."""
        with self._lock:
            self._homes.pop(worker, None)
            self.book.release(worker)
            evaluation = self._evaluating.pop(worker, None)
            if evaluation is not None:
                self._evaluations.appendleft(evaluation[1])
            if dead:
                self.worker_losses += 1

    def answer(self, worker: int, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """The reply to a worker's message; None where it wants none."""
        kind = message["kind"]
        if kind == "next":
            return self.next_for(worker)
        if kind == "servers":
            return {"servers": self.servers(), "over": self.over}
        if kind == "report":
            self.report(worker, message)
        elif kind == "evaluated":
            self.evaluated(worker, *message["values"])
        return None

    def next_for(self, worker: int) -> dict[str, Any]:
        """What an idle worker is to do."""
        with self._lock:
            if self.over:
                return {"kind": "done"}
            now = self._heard_at = time.monotonic()
            self._evaluating.pop(worker, None)  # it asks again without a result: it has found none
            self._take_back_evaluations(now)
            if self._evaluations:
                evaluation = self._evaluations.popleft()
                self._evaluating[worker] = (now, evaluation)
                return {"kind": "evaluate", **evaluation}
            grant = self.book.take(worker, now)
            if grant is None:
                return {"kind": "wait", "wait_s": WAIT_S}
            return {
                "kind": "lease",
                "name": list(grant.lease.name),
                "first": grant.lease.first,
                "steps": grant.lease.steps,
                "attempt": grant.attempt,
            }

    def report(self, worker: int, report: Mapping[str, Any]) -> None:
        """A worker tells how far its lease is on all servers, and of the step that it has made.

        `report` has ``name`` and ``attempt`` of the lease, ``count`` of updates that all servers
        have applied, ``lives`` of these servers, ``bytes`` moved since the last report, and where a
        step was made its ``line`` and ``times``.
        """
        with self._lock:
            self._heard_at = time.monotonic()
            self._bytes += int(report["bytes"])
            if list(report["lives"]) != [entry.life for entry in self._servers]:
                return  # of a server that has forgotten since
            name = LeaseName(*report["name"])
            new = self.book.advance(
                name, int(report["attempt"]), int(report["count"]), time.monotonic()
            )
            line = report.get("line")
            if new == 0 or line is None:
                return
            self._steps_reported += 1
            step = self.book.steps_logged
            self._images_logged += int(line["images"])
            epoch = {"epoch": round(self.budget.epochs_done(step), 6)}
            self._ended = self._journal.step(worker, step, {**epoch, **line}, report["times"])
            if self._timed_from is None and step >= self.progress.step + FIRST_TIMED_STEP:
                self._timed_from = (self._ended, self._images_logged)

    def evaluated(
        self, worker: int, figures: Mapping[str, float | None], quality: float, spent_s: float
    ) -> None:
        """A worker has evaluated what it was told to."""
        with self._lock:
            asked = self._evaluating.pop(worker, None)
            if asked is None:
                return
            step = int(asked[1]["step"])
            line = {
                "epoch": round(self.budget.epochs_done(step), 6),
                "part": self._part,
                **{f"eval_{name}": value for name, value in figures.items()},
                "eval_s": round(spent_s, 6),
            }
            self._journal.evaluation(step, line)
            # Only the validation part may choose: the test set is looked at, never selected on.
            if self._part == "validation" and self.progress.is_better(quality):
                self.progress = dataclasses.replace(
                    self.progress, best_step=step, best_accuracy=quality
                )

    def silent_workers(self, patience_s: float) -> list[tuple[str, int]]:
        """Host and process of every worker if none of them has said anything for so long.

        One that hangs alone needs no verdict: its lease is given to another.
        """
        with self._lock:
            now = time.monotonic()
            if self.over or self._evaluating or now - self._heard_at < patience_s:
                return []
            self._heard_at = now
            return list(self._homes.values())

    # What is decided.

    def keep(self, gather: Callable[[], Sequence[Snapshot] | None]) -> None:
        """Save, order evaluations, and end the run where it is time to; to be called often.

        `gather` fetches the snapshots of all servers; None if one of them is not there.
        """
        with self._lock:
            if self.finished:
                return
            done, complete = self.book.steps_logged, self.book.finished
            busy = bool(self._evaluations or self._evaluating)
            evaluate = not complete and self._crossed(done, self.config.training.evaluate_every)
        if complete and busy:
            return
        if not (complete or evaluate or self._save_due(done)):
            return
        saved = self.save(gather)
        if saved is None:
            return
        self._considered = done
        with self._lock:
            if evaluate:
                self._evaluations.append({"step": self.progress.step, "checkpoint": saved.name})
            # A server may have fallen back between the last lease and the snapshots.
            if complete and self.progress.step == self.budget.total_steps:
                self.finished = True

    def save(self, gather: Callable[[], Sequence[Snapshot] | None]) -> Path | None:
        """Write a checkpoint of what the servers hold now; None if one of them is not there."""
        snapshots = gather()
        if snapshots is None:
            return None
        tables = [snapshot.ledger.applied for snapshot in snapshots]
        held = LeaseBook(self.book.leases, tables=tables)
        places = [self.budget.place(step) for step in held.steps_done()]
        with self._lock:
            self.files.fence()
            self._journal.flush()
            self.progress = dataclasses.replace(
                self.progress,
                step=len(places),
                images=sum(stop - start for _, start, stop in places),
            )
            wanted = [*self._evaluations, *(task for _, task in self._evaluating.values())]
            progress, keep = self.progress, self.config.run.keep_checkpoints
        folder = self.files.path / "checkpoints"
        if wanted:  # what is still to be evaluated must not be removed
            oldest = path_of(folder, min(int(task["step"]) for task in wanted))
            newer = [path for path in list_checkpoints(folder) if path >= oldest]
            keep = max(keep, len(newer) + 1)
        path = self.whole.save(folder, progress, snapshots, keep=keep)
        self._saved_at = time.monotonic()
        self._last_snapshots = snapshots
        return path

    def close(self) -> None:
        """Write what waits."""
        self._journal.close()

    def figures(self) -> dict[str, Any]:
        """What the servers and their workers add to ``result.json``, after the last `save`."""
        ages: Counter[int] = Counter()
        refused: Counter[str] = Counter()
        for snapshot in self._last_snapshots:
            ages += snapshot.ledger.stalenesses
            refused += snapshot.ledger.refused
        count = max(sum(ages.values()), 1)
        return {
            "servers": len(self._servers),
            "staleness": {str(age): ages[age] for age in sorted(ages)},
            "mean_staleness": round(sum(age * n for age, n in ages.items()) / count, 4),
            "refused_pushes": dict(refused),
            "bytes_per_step": round(self._bytes / max(self._steps_reported, 1)),
            "worker_losses": self.worker_losses,
            "server_losses": [dataclasses.asdict(back) for back in self.comebacks],
            "lost_updates": sum(back.lost_updates for back in self.comebacks),
        }

    def throughput(self) -> float | None:
        """Images over wall time from the end of step 3 to the last."""
        if self._timed_from is None:
            return None
        began, images = self._timed_from
        spent, done = self._ended - began, self._images_logged - images
        return round(done / spent, 3) if done and spent > 0 else None

    def _take_back_evaluations(self, now: float) -> None:
        """Offer again what a worker does not come to an end with."""
        for worker, (begun, evaluation) in list(self._evaluating.items()):
            if now - begun > EVALUATION_S:
                del self._evaluating[worker]
                self._evaluations.append(evaluation)

    def _crossed(self, done: int, every_epochs: float) -> bool:
        """Whether a multiple of so many epochs was reached since `keep` last acted."""
        if every_epochs <= 0:
            return False
        steps = every_epochs * self.budget.steps_per_epoch
        return int(done / steps + 1e-9) > int(self._considered / steps + 1e-9)

    def _save_due(self, done: int) -> bool:
        every = self.config.run.checkpoint_every
        if every is not None:
            return done // every > self._considered // every
        return self._crossed(done, 1.0) or time.monotonic() - self._saved_at > CHECKPOINT_S
