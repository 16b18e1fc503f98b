"""The state of a job's members, seen from the launcher: read from their folders, now and then."""

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
    """What is known of one member."""

    name: str
    # "waiting", "running", "done", "failed", or "kept" (done in an earlier run)
    state: str = "waiting"
    cost: float = 1.0  # as planned
    part: float = 0.0  # how much of it is done, 0 to 1
    epoch: float | None = None  # of a training, or None
    accuracy: float | None = None  # the latest, or None
    seconds: float = 0.0
    left_s: float | None = None  # expected until it is done, or None


class ProgressMonitor:
    """Follows a job and tells a listener about it; to be used in a `with`."""

    def __init__(
        self,
        members: Sequence[Task],
        folders: Mapping[str, Path],
        workers: int,
        token: str,
        on_event: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.lines = {member.name: Line(name=member.name, cost=member.cost) for member in members}
        self._folders, self._workers, self._token = folders, workers, token
        self._listen = on_event
        self._since: dict[str, float] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="sixfold-board")

    def __enter__(self) -> ProgressMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show()

    def settle(self, name: str, state: str, seconds: float, accuracy: float | None) -> None:
        """A member has come to its end."""
        with self._lock:
            line = self.lines[name]
            line.state, line.seconds, line.left_s = state, seconds, 0.0
            line.part = 0.0 if state == "failed" else 1.0
            line.accuracy = line.accuracy if accuracy is None else accuracy

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            with self._lock:
                for line in self.lines.values():
                    if line.state in ("waiting", "running"):
                        self._look(line)
            self._show()

    def _look(self, line: Line) -> None:
        """Take in what a member says of itself."""
        told = read_json(self._folders[line.name] / "progress.json")
        if told is None or told.get("token") != self._token:
            return
        now = time.monotonic()
        line.state = "running"
        line.part = float(told.get("part", 0.0))
        line.epoch, line.accuracy = told.get("epoch"), told.get("accuracy", line.accuracy)
        line.seconds = now - self._since.setdefault(line.name, now)
        # The first moments of a member are its start-up, which says nothing of its pace.
        if line.part > 0.02 and line.seconds > 1.0:
            line.left_s = line.seconds * (1 - line.part) / line.part

    def left_s(self) -> float | None:
        """Expected seconds until the whole job is done; None as long as nothing is known."""
        spent = cost = missing = 0.0
        longest = 0.0
        for line in self.lines.values():
            if line.state in ("done", "running") and line.part > 0.02:
                spent += line.seconds
                cost += line.cost * line.part
            if line.state in ("waiting", "running"):
                missing += line.cost * (1 - line.part)
                longest = max(longest, line.left_s or 0.0)
        if not cost:
            return None
        return max(missing * spent / cost / self._workers, longest)

    def _show(self) -> None:
        with self._lock:
            lines = [vars(line).copy() for line in self.lines.values()]
            left_s = self.left_s()
        self._listen({"kind": "job", "lines": lines, "left_s": left_s})
