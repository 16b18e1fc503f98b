"""What a training writes while it runs: metrics, and where each rank's time went."""

import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from sixfold.core.run_directory import JsonLines, RankFiles
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.communicator import Traffic

FLUSH_S = 0.5
FLUSH_STEPS = 10
REPORT_S = 1.0
RECENT = 2 * FLUSH_STEPS + 4
"""Steps that ranks remember: more than rank 0 can have left unwritten, and be ahead of them."""

Item = TypeVar("Item")


class TrainLog:
    """Metrics (rank 0) and time line (every rank), and word of progress to the launcher."""

    def __init__(
        self,
        files: RankFiles,
        comm: Communicator,
        step: int,
        total: int = 0,
        *,
        recent: Iterable[dict[str, Any]] = (),
        is_settled: bool = True,
    ) -> None:
        """Go on after `step` of `total` steps; what was logged of later ones is dropped.

        `recent` are the last steps' metrics, which a rank 0 that was lost may not have written. If
        the last step is not settled, lines of what came after it are dropped too.
        """
        files.fence()
        self._world, self._files, self._total = comm, files, total
        self.recent = deque(recent, maxlen=RECENT)  # kept up to date on every rank
        self.lost_steps = 0  # how many had been made beyond `step`; known on rank 0
        self.last_time: float | None = None  # of the last of all, in Unix seconds; the same
        name = f"rank-{comm.rank:04d}.jsonl"
        self._timeline = JsonLines(files.path / "timeline" / name, up_to_step=step)
        self._metrics: JsonLines | None = None
        if comm.rank == 0:
            keep = None if is_settled else _is_of_step
            self._metrics = JsonLines(files.path / "metrics.jsonl", up_to_step=step, keep=keep)
            last = self._metrics.last.get("step", 0)
            self._metrics.append(*(line for line in self.recent if last < line["step"] <= step))
            lost = [line for line in self._metrics.dropped if _is_of_step(line)]
            self.lost_steps = len(lost)
            self.last_time = (lost or [self._metrics.last])[0].get("time")
        self._waiting: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._flushed_at = self._reported_at = float("-inf")

    def begin(self, entered: float) -> None:
        """Say who this rank is, when it was called (Unix seconds), and that it is ready now."""
        comm = self._world
        name = f"timeline/rank-{comm.rank:04d}.json"
        facts = {"rank": comm.rank, "host": comm.host, "pid": os.getpid()}
        times = {"attempt": comm.attempt, "entered": entered, "ready": time.time()}
        self._files.write_json(name, facts | times)

    def step(self, step: int, line: dict[str, Any], times: dict[str, float]) -> float:
        """Log a step, from 1, at once or with the next few; the time that was logged.

        `times` has, for the time line, `begin` in Unix seconds, when the first exchange began after
        it (`arrived_s`), how many `exchanges` there were, processor time of this process with all
        its threads (`cpu_s`), and the seconds of each phase.
        """
        ended = time.time()
        seconds = {name: round(value, 7) for name, value in times.items()}
        metrics = {"step": step, "time": ended, **line}
        self.recent.append(metrics)
        self._waiting.append((metrics, {"step": step, **seconds}))
        now = time.monotonic()
        if now - self._flushed_at > FLUSH_S or len(self._waiting) >= FLUSH_STEPS:
            self.flush()
        if self._metrics is not None and now - self._reported_at > REPORT_S:
            self._reported_at = now
            self._world.report({"kind": "progress", "step": step, "total": self._total, **line})
        return ended

    def evaluation(self, step: int, line: dict[str, Any]) -> None:
        """Log an evaluation and tell the launcher."""
        self.flush()
        if self._metrics is not None:
            self._metrics.append({"step": step, "time": time.time(), **line})
            self._world.report({"kind": "evaluation", "step": step, **line})

    def view(self, first_step: int, lost_steps: int, stall_s: float) -> None:
        """Tell the launcher of a view before its first step."""
        if self._metrics is not None:
            view = {"ranks": self._world.size, "first_step": first_step, "lost_steps": lost_steps}
            self._world.report({"kind": "view", **view, "stall_s": round(stall_s, 6)})

    def values(self, step: int, logged: dict[str, float]) -> None:
        """Log what a callback wants to have logged."""
        self.flush()
        if self._metrics is not None:
            self._metrics.append({"step": step, "time": time.time(), "logged": logged})

    def flush(self) -> None:
        """Write what waits."""
        self._flushed_at = time.monotonic()
        if self._waiting:
            self._timeline.append(*(times for _, times in self._waiting))
            if self._metrics is not None:
                self._metrics.append(*(line for line, _ in self._waiting))
            self._waiting.clear()

    def close(self) -> None:
        """Write what waits and close."""
        self.flush()
        self._timeline.close()
        if self._metrics is not None:
            self._metrics.close()


def _is_of_step(line: dict[str, Any]) -> bool:
    """Whether a line of the metrics tells of a step, not of an evaluation or a callback."""
    return "loss" in line


class TimedIterator(Generic[Item]):
    """An iterator that adds up in `waited_s` how long its user waited for items."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._next = items.__next__
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        begin = time.perf_counter()
        try:
            return self._next()
        finally:
            self.waited_s += time.perf_counter() - begin


class StepClock:
    """Where the time of one step goes, from now on."""

    def __init__(self, traffic: Traffic, shards: TimedIterator[Any]) -> None:
        self._traffic, self._shards = traffic, shards
        traffic.entered = None
        self._started, self._cpu_s = time.time(), time.process_time()
        self._before, self._data_s = dataclasses.replace(traffic), shards.waited_s
        self._begin = time.perf_counter()

    def stop(self, update_s: float) -> tuple[float, dict[str, float]]:
        """The seconds of the whole step, and what `TrainLog.step` takes of them."""
        whole_s, traffic, before = time.perf_counter() - self._begin, self._traffic, self._before
        times = {
            "data_s": self._shards.waited_s - self._data_s,
            "communication_s": traffic.communication_s - before.communication_s,
            "waiting_s": traffic.waiting_s - before.waiting_s,
            "update_s": update_s,
        }
        times["compute_s"] = max(whole_s - sum(times.values()), 0.0)
        line = times | {
            "begin": self._started,
            "exchanges": traffic.exchanges - before.exchanges,
            "cpu_s": time.process_time() - self._cpu_s,
        }
        if traffic.entered is not None:
            line["arrived_s"] = traffic.entered - self._begin
        return whole_s, line
