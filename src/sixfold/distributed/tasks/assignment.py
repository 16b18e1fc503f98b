"""A member in the hands of a worker: its folder, what it stands on, its progress and its result.

The result is one file, written all at once as the last act: whoever finds it need not, and does
not, do the work again. A worker that is killed before leaves a folder whose contents the next try
may use, such as the checkpoints of a training.
"""

from __future__ import annotations

import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold.core.errors import RunError, UserError
from sixfold.core.files import write_json
from sixfold.core.run_directory import read_json

TELL_S = 0.5
"""Between two reports of progress: a person's eye needs no more."""


@dataclass(kw_only=True)
class Assignment:
    """What a worker is given."""

    name: str
    identity: str
    settings: Mapping[str, Any]
    folder: Path  # where it keeps its files; exists, and may hold those of a try that was killed
    # folders of the members that it needs, by their names
    needs: Mapping[str, Path] = field(default_factory=dict)
    token: str = ""  # names the run of the job; tries are counted for each
    _told_at: float = field(default=float("-inf"), init=False, repr=False)

    def tell(self, **progress: Any) -> None:
        """Show progress: `part` (0 to 1) and, where known, `epoch` and `accuracy`.

        Dropped if the last was less than half a second ago. Never fails: nobody depends on it.
        """
        now = time.monotonic()
        if now - self._told_at < TELL_S:
            return
        if progress.get("part"):  # the word that work has begun holds nothing back
            self._told_at = now
        path = self.folder / "progress.json"
        temporary = path.with_name(f".progress.{os.getpid()}.tmp")
        try:
            # No fsync: this is worth nothing after a crash.
            temporary.write_text(json.dumps(progress | {"token": self.token, "pid": os.getpid()}))
            temporary.replace(path)
        except OSError:
            return


Work = Callable[[Assignment], dict[str, Any]]
"""Does a member's work and returns its result, as plain data; picklable."""


@dataclass(frozen=True, kw_only=True)
class CoordinatorClient:
    """The function that the engine's pool runs: it does one member's work, at most once."""

    work: Work
    retries: int  # how often a member is tried again after its worker died

    def __call__(self, assignment: Assignment) -> dict[str, Any]:
        """Do the work, unless it is done or cannot be; the record, or ``failed`` and why."""
        if (found := finished(assignment.folder, assignment.identity)) is not None:
            return found
        assignment.folder.mkdir(parents=True, exist_ok=True)
        for name, folder in assignment.needs.items():
            if not (folder / "result.json").exists():
                return {"failed": f"needs {name}, which has no result"}
        tries = _count_try(assignment)
        if tries > self.retries + 1:
            return {"failed": f"its worker died {tries - 1} times"}
        assignment.tell(part=0.0)
        began, at = time.monotonic(), time.time()
        try:
            result = self.work(assignment)
        except Exception as error:
            return {"failed": _reason(error), "trace": traceback.format_exc().splitlines()[-20:]}
        record = {
            "identity": assignment.identity,
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


def finished(folder: Path, identity: str) -> dict[str, Any] | None:
    """The record of a member that is done, or None."""
    record = read_json(folder / "result.json")
    return record if record is not None and record.get("identity") == identity else None


def _count_try(assignment: Assignment) -> int:
    """The number of this try within this run of the job, from 1."""
    path = assignment.folder / "tries.json"
    before = read_json(path) or {}
    tries = before.get("tries", 0) + 1 if before.get("token") == assignment.token else 1
    write_json(path, {"token": assignment.token, "tries": tries})
    return int(tries)


def _reason(error: Exception) -> str:
    if isinstance(error, UserError | RunError):
        return str(error)
    return f"{type(error).__name__}: {error}"
