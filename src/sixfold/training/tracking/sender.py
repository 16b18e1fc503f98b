"""Sends a training to one tracker, from the files of its run directory.

What has been sent is noted in `tracking.json`, so whoever goes on (a resume, another try) sends the
rest. A step that is made again after a restart is not sent again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold.core.events import OnEvent
from sixfold.core.files import write_json
from sixfold.core.run_directory import RunDirectory, read_json
from sixfold.training.tracking.lines import (
    Line,
    MetricsFollower,
    flat,
    kind_of,
    points_of,
    result_points,
)
from sixfold.training.tracking.registry import TrackerSpec
from sixfold.training.tracking.tracker import Tracker

RECORD, METRICS, CONFIG = "tracking.json", "metrics.jsonl", "config.json"
POLL_S = 1.0
RETRY_S = 30.0  # until a tracker that has failed is tried again
LINES = 100  # lines of metrics that are sent at once: MLflow takes 1,000 values
_NOT_TOLD = ("resume", "overwrite", "trust_model", "track", "spark_conf")
"""Settings that say nothing of the training, or may hold secrets."""


@dataclass
class Record:
    """What a tracker has of a run."""

    path: Path
    tracker: str
    run_id: str = ""
    sent: dict[str, int] = field(default_factory=dict)  # last step, by the kind of line
    done: dict[str, str] = field(default_factory=dict)  # of all else: what, and its hash

    @classmethod
    def read(cls, directory: RunDirectory, tracker: str) -> Record:
        """The record of a run; a new one where there is none."""
        path = directory.file(RECORD)
        known = (read_json(path) or {}).get(tracker, {})
        names = ("run_id", "sent", "done")
        return cls(path, tracker, **{name: known[name] for name in names if name in known})

    def write(self) -> None:
        """Write it beside those of other trackers."""
        with _writing:
            everyone = read_json(self.path) or {}
            everyone[self.tracker] = {
                "run_id": self.run_id,
                "sent": self.sent,
                "done": self.done,
            }
            write_json(self.path, everyone)


_writing = threading.Lock()  # trackers of a run share the file


class Sender:
    """A thread that sends a training to one tracker; a failure of the tracker stays in it.

    `on_event` is told in one line when the tracker fails for the first time.
    """

    def __init__(
        self,
        name: str,
        spec: TrackerSpec,
        directory: RunDirectory,
        settings: Mapping[str, Any],
        on_event: OnEvent,
    ) -> None:
        self.name, self._spec, self._directory = name, spec, directory
        known = flat(settings)
        self._settings = {key: known[key] for key in known if key not in _NOT_TOLD}
        self._on_event: OnEvent | None = on_event
        self._record = Record.read(directory, name)
        self._metrics = MetricsFollower(directory.file(METRICS), self._record.sent)
        self._waiting: list[Line] = []  # read, and not sent as yet
        self._tracker: Tracker | None = None
        self._status = "running"
        self._result: Mapping[str, Any] | None = None
        self._failure = ""
        self._failed_at = float("-inf")
        self._got_on_at = 0.0
        self._is_complete = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"track-{name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def end(self, status: str, result: Mapping[str, Any] | None, patience_s: float) -> str:
        """Send what is left, and wait as long as it gets on; what was not sent, in one line.

        `patience_s` is how long to wait for any one thing to be sent.
        """
        self._status, self._result = status, result
        self._got_on_at = time.monotonic()
        self._ending.set()
        while self._thread.is_alive() and time.monotonic() - self._got_on_at < patience_s:
            self._thread.join(0.1)
        if self._is_complete:
            return ""
        self._on_event = None  # whoever still hangs has nobody left to talk to
        why = self._failure or f"has not answered for {patience_s:g} s"
        missing = ", ".join(self.missing(result)) or "how the run ended"
        return f"--track {self.name}: {why}; not sent: {missing}"

    def missing(self, result: Mapping[str, Any] | None) -> list[str]:
        """What the tracker has not got of a run, in words."""
        return [*self._missing_steps(), *self._missing_pieces(result)]

    def _missing_pieces(self, result: Mapping[str, Any] | None) -> dict[str, str]:
        """What there is besides metrics and was not sent, with the hash that tells it was."""
        wanted = {"settings": _hash(self._settings)}
        if CONFIG in self._spec.takes:
            wanted[CONFIG] = wanted["settings"]
        if result is not None:
            files = [name for name in self._spec.takes if name != CONFIG]
            model = ["model"] if self._spec.takes_model else []
            wanted |= dict.fromkeys(["result", *files, *model], _hash(result))
        return {name: mark for name, mark in wanted.items() if self._record.done.get(name) != mark}

    def _missing_steps(self) -> list[str]:
        with contextlib.closing(
            MetricsFollower(self._directory.file(METRICS), self._record.sent)
        ) as lines:
            steps = [int(line["step"]) for line in lines.read(sys.maxsize)]
        return [f"metrics of steps {min(steps)} to {max(steps)}"] if steps else []

    def _work(self) -> None:
        with contextlib.closing(self._metrics):
            is_last = False
            while not is_last:
                is_last = self._ending.wait(POLL_S)
                if is_last or time.monotonic() - self._failed_at > RETRY_S:
                    self._try(is_last)

    def _try(self, is_last: bool) -> None:
        try:
            self._send(is_last)
            self._is_complete, self._failure = is_last, ""
        except Exception as error:  # of whatever kind: a training does not fail for its tracker
            with contextlib.suppress(Exception):
                self._close("running")
            is_first = self._failed_at < 0
            self._failed_at, self._failure = time.monotonic(), _told(error)
            if is_first and not is_last and self._on_event is not None:
                text = f"--track {self.name}: {self._failure}; the training goes on without it"
                self._on_event({"kind": "note", "text": text})

    def _send(self, is_last: bool) -> None:
        """Send all that there is now."""
        result = self._result if is_last else None
        if self._tracker is None:
            self._tracker = self._spec.open(self._directory.path, self._record.run_id)
            self._begin_record(self._tracker.run_id)
        for name, mark in self._missing_pieces(None).items():
            self._send_piece(self._tracker, name, mark)
        self._send_metrics(self._tracker)
        for name, mark in self._missing_pieces(result).items():
            self._send_piece(self._tracker, name, mark)
        if is_last:
            self._close(self._status)

    def _begin_record(self, run_id: str) -> None:
        """Note by which name the tracker has the run; one that is new to it is sent as a whole."""
        record = self._record
        if record.run_id not in ("", run_id):
            record.sent.clear()
            record.done.clear()
            self._waiting = []
            self._metrics.close()  # and read again from the beginning
        record.run_id = run_id
        self._note()

    def _send_metrics(self, tracker: Tracker) -> None:
        while lines := self._waiting or self._metrics.read(LINES):
            self._waiting = lines
            tracker.points([point for line in lines for point in points_of(line)])
            self._waiting = []
            self._record.sent |= {kind_of(line): int(line["step"]) for line in lines}
            self._note()

    def _send_piece(self, tracker: Tracker, name: str, mark: str) -> None:
        path = self._directory.path
        if name == "settings":
            tracker.table(name, self._settings)
        elif name == "result":
            assert self._result is not None, "asked for with one"
            words = {key: text for key, text in self._result.items() if isinstance(text, str)}
            tracker.table(name, words | {"run_directory": str(path)})
            tracker.points(result_points(self._result, time.time()))
        elif name == "model":
            tracker.model(path)
        elif path.joinpath(name).exists():  # a page that could not be written has been told
            tracker.file(path / name)
        self._record.done[name] = mark
        self._note()

    def _note(self) -> None:
        """Note what was sent."""
        self._record.write()
        self._got_on_at = time.monotonic()

    def _close(self, status: str) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.close(status)


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _told(error: Exception) -> str:
    """An error in one line that is not too long."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
