"""`metrics.jsonl` as it grows, and its lines as points of metrics."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sixfold.core.files import parse_json
from sixfold.training.tracking.tracker import Point

Line = Mapping[str, Any]


def kind_of(line: Line) -> str:
    """What a line tells of: `train`, a part that was evaluated, or `logged` by a callback."""
    if "logged" in line:
        return "logged"
    return str(line.get("part", "train"))


def points_of(line: Line) -> list[Point]:
    """A line's numbers by their names: train/loss, validation/accuracy, logged/NAME."""
    kind = kind_of(line)
    values = line["logged"] if kind == "logged" else line
    known = {name: value for name, value in values.items() if _is_number(value)}
    if kind == "logged":
        named = known
    elif kind == "train":
        named = {name: value for name, value in known.items() if name not in ("step", "time")}
    else:
        metrics = {n: v for n, v in known.items() if n.startswith("eval_")}
        named = {n if n == "eval_s" else n.removeprefix("eval_"): v for n, v in metrics.items()}
    step, time = int(line["step"]), float(line["time"])
    return [
        Point(name=f"{kind}/{name}", value=float(value), step=step, time=time)
        for name, value in named.items()
    ]


def result_points(result: Mapping[str, Any], time: float) -> list[Point]:
    """The numbers of a result, at the last step of its metrics."""
    last = int(result.get("rounds", result["steps"]))  # hogwild logs rounds
    return [
        Point(name=f"result/{name}", value=float(value), step=last, time=time)
        for name, value in result.items()
        if _is_number(value) and not math.isnan(value)
    ]


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the command line's names; lists as JSON, nothing where nothing is set."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value)
        elif isinstance(value, list | tuple):
            found[name] = json.dumps(value) if value else ""
        else:
            found[name] = "" if value is None else value
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class MetricsFollower:
    """Reads lines of a file, which need not be there yet, as they come.

    A restart of the ranks puts a new file, which begins with the lines up to the checkpoint, into
    the old one's place. What was sent before (`sent`: the last step by kind of line, kept up to
    date by the caller) is passed over then, also where its steps are made again.
    """

    def __init__(self, path: Path, sent: Mapping[str, int]) -> None:
        self._path, self._sent = path, sent
        self._file: IO[bytes] | None = None
        self._skip: dict[str, int] = {}

    def read(self, most: int) -> list[Line]:
        """Up to so many new lines; fewer where there are no more as yet."""
        found: list[Line] = []
        while len(found) < most:
            if self._file is not None:
                found += self._rest(most - len(found))
            if len(found) == most or not self._is_replaced():
                break
            self._reopen()
            if self._file is None:
                break
        return found

    def _rest(self, most: int) -> list[Line]:
        lines: list[Line] = []
        for text in self._complete():
            line = _parsed(text)
            if line is not None and line["step"] > self._skip.get(kind_of(line), -1):
                lines.append(line)
                if len(lines) == most:
                    break
        return lines

    def _complete(self) -> Iterator[bytes]:
        """Lines from here on that end with a line feed."""
        assert self._file is not None
        while True:
            begin = self._file.tell()
            text = self._file.readline()
            if not text.endswith(b"\n"):
                self._file.seek(begin)
                return
            yield text

    def _is_replaced(self) -> bool:
        """Whether another file than the open one stands at the path."""
        try:
            now = self._path.stat()
        except OSError:
            return False
        if self._file is None:
            return True
        # The open file keeps its number, so no new one has the same.
        opened = os.fstat(self._file.fileno())
        return (opened.st_dev, opened.st_ino) != (now.st_dev, now.st_ino)

    def _reopen(self) -> None:
        self.close()
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return
        self._skip = dict(self._sent)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _parsed(text: bytes) -> Line | None:
    """The object of a line, or None where a crash has damaged it."""
    try:
        line = parse_json(text)
    except ValueError:
        return None
    if not isinstance(line, dict):
        return None
    return line if _is_number(line.get("step")) and _is_number(line.get("time")) else None
