"""How far a job's tasks are, seen from the launcher: read from their folders, now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.run_directory import read_json
from sixfold.distributed.tasks.task import Task

LOOK_S = 1.0


@dataclass(kw_only=True)
class Line:
    """What is known of one task."""

    name: str
    # "waiting", "running", "done", "failed", or "kept" (done in an earlier run)
    state: str = "waiting"
    cost: float = 1.0  # as planned
    part: float = 0.0  # how much of it is done, 0 to 1
    epoch: float | None = None  # of a training
    accuracy: float | None = None  # the latest
    seconds: float = 0.0
    left_s: float | None = None  # expected until it is done


class ProgressMonitor:
    """Follows a job and reports on it; to be used in a `with`."""

    def __init__(
        self, workers: int, token: str, on_event: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.lines: dict[str, Line] = {}
        self._folders: dict[str, Path] = {}
        self._workers, self._token, self._on_event = workers, token, on_event
        self._since: dict[str, float] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="sixfold-progress")

    def __enter__(self) -> ProgressMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._report()

    def add(self, tasks: Sequence[Task], folders: Mapping[str, Path]) -> None:
        """Follow these tasks, too."""
        with self._lock:
            self.lines |= {task.name: Line(name=task.name, cost=task.cost) for task in tasks}
            self._folders |= folders

    def settle(self, name: str, state: str, record: Mapping[str, Any] | None = None) -> None:
        """A task has come to its end, with a record unless it failed."""
        with self._lock:
            line = self.lines[name]
            line.state, line.left_s = state, 0.0
            line.part, line.seconds = (0.0, 0.0) if record is None else (1.0, record["seconds"])
            if record is not None:
                line.accuracy = record["result"].get("accuracy", line.accuracy)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            with self._lock:
                for line in self.lines.values():
                    if line.state in ("waiting", "running"):
                        self._look(line)
            self._report()

    def _look(self, line: Line) -> None:
        """Take in what a task says of itself."""
        found = read_json(self._folders[line.name] / "progress.json")
        if found is None or found.get("token") != self._token:
            return
        now = time.monotonic()
        line.state = "running"
        line.part = float(found.get("part", 0.0))
        line.epoch, line.accuracy = found.get("epoch"), found.get("accuracy", line.accuracy)
        line.seconds = now - self._since.setdefault(line.name, now)
        # The first moments of a task are its start-up, which says nothing of its pace.
        if line.part > 0.02 and line.seconds > 1.0:
            line.left_s = line.seconds * (1 - line.part) / line.part

    def _left_s(self) -> float | None:
        """Expected seconds until the whole job is done; None as long as nothing is known."""
        known = [x for x in self.lines.values() if x.state in ("done", "running") and x.part > 0.02]
        coming = [x for x in self.lines.values() if x.state in ("waiting", "running")]
        cost = sum(line.cost * line.part for line in known)
        if not cost:
            return None
        pace = sum(line.seconds for line in known) / cost / self._workers
        longest = max((line.left_s or 0.0 for line in coming), default=0.0)
        return max(pace * sum(line.cost * (1 - line.part) for line in coming), longest)

    def _report(self) -> None:
        with self._lock:
            lines = [vars(line).copy() for line in self.lines.values()]
            left_s = self._left_s()
        self._on_event({"kind": "job", "lines": lines, "left_s": left_s})
