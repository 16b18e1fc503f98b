"""A task in the hands of a worker: its folder, what it stands on, its progress and its result.

The result is one file, written all at once as the last act: whoever finds it does not do the work
again. A worker that is killed before leaves a folder whose contents the next try may use, such as
the checkpoints of a training.
"""

import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold.core.errors import RunError, UserError
from sixfold.core.files import write_json
from sixfold.core.run_directory import read_json

REPORT_S = 0.5  # between two reports of progress: a person's eye needs no more


@dataclass(kw_only=True)
class Assignment:
    """What a worker is given."""

    name: str
    cache_key: str
    settings: Mapping[str, Any]
    folder: Path  # where it keeps its files; may hold those of a try that was killed
    dependencies: Mapping[str, Path] = field(default_factory=dict)  # their folders, by name
    token: str = ""  # names the run of the job; tries are counted for each
    _reported_at: float = field(default=float("-inf"), init=False, repr=False)

    def report_progress(self, **progress: Any) -> None:
        """Show progress: `part` (0 to 1) and, where known, `epoch` and `accuracy`.

        Dropped if the last was less than half a second ago. Never fails: nobody depends on it.
        """
        now = time.monotonic()
        if now - self._reported_at < REPORT_S:
            return
        if progress.get("part"):  # the word that work has begun holds nothing back
            self._reported_at = now
        path = self.folder / "progress.json"
        temporary = path.with_name(f".progress.{os.getpid()}.tmp")
        with suppress(OSError):
            # No fsync: this is worth nothing after a crash.
            temporary.write_text(json.dumps(progress | {"token": self.token, "pid": os.getpid()}))
            temporary.replace(path)


Work = Callable[[Assignment], dict[str, Any]]
"""Does a task's work and returns its result, as plain data; picklable."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The function that the engine's pool runs: it does one task's work, at most once."""

    work: Work
    retries: int  # how often a task is tried again after its worker died

    def __call__(self, assignment: Assignment) -> dict[str, Any]:
        """Do the work, unless it is done or cannot be; the record, or ``failed`` and why."""
        if (found := finished(assignment.folder, assignment.cache_key)) is not None:
            return found
        assignment.folder.mkdir(parents=True, exist_ok=True)
        for name, folder in assignment.dependencies.items():
            if not (folder / "result.json").exists():
                return {"failed": f"needs {name}, which has no result"}
        tries = _count_try(assignment)
        if tries > self.retries + 1:
            return {"failed": f"its worker died {tries - 1} times"}
        assignment.report_progress(part=0.0)
        began, at = time.monotonic(), time.time()
        try:
            result = self.work(assignment)
        except Exception as error:
            kind = "" if isinstance(error, UserError | RunError) else f"{type(error).__name__}: "
            lines = traceback.format_exc().splitlines()
            return {"failed": f"{kind}{error}", "trace": lines[-20:]}
        record = {
            "identity": assignment.cache_key,
            "name": assignment.name,
            "settings": dict(assignment.settings),
            "result": result,
            "started_at": at,
            "seconds": round(time.monotonic() - began, 6),
            "tries": tries,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        write_json(assignment.folder / "result.json", record)
        return record


def finished(folder: Path, cache_key: str) -> dict[str, Any] | None:
    """The record of a task that is done, or None."""
    record = read_json(folder / "result.json")
    return record if record is not None and record.get("identity") == cache_key else None


def _count_try(assignment: Assignment) -> int:
    """The number of this try within this run of the job, from 1."""
    path = assignment.folder / "tries.json"
    before = read_json(path) or {}
    tries = before.get("tries", 0) + 1 if before.get("token") == assignment.token else 1
    write_json(path, {"token": assignment.token, "tries": tries})
    return int(tries)
