"""The members of a job while they run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PLAIN_EVERY_S = 30.0
"""Between two words on running members, where there is no terminal."""

_RECENT = 6
"""Finished members that stay in the live table."""

ENDED = ("done", "failed", "kept")


class JobTable:
    """Events of a job as text for `write`; with a terminal, lines can be rewritten."""

    def __init__(self, write: Callable[[str], None], *, terminal: bool) -> None:
        self._write, self._terminal = write, terminal
        self._drawn = 0
        self._ended: list[str] = []
        self._said_s = time.monotonic()

    def show(self, event: Mapping[str, Any]) -> None:
        """Show the state of all members; see `sixfold.distributed.tasks.progress.Board`."""
        lines: Sequence[Mapping[str, Any]] = event["lines"]
        new = [line for line in lines if line["state"] in ENDED and line["name"] not in self._ended]
        self._ended += [line["name"] for line in new]
        if self._terminal:
            self._redraw(self._table(lines, event["left_s"]))
            return
        for line in new:
            if line["state"] != "kept":
                self._write(f"{_row(line)}  ({_counts(lines)})\n")
        if time.monotonic() - self._said_s > PLAIN_EVERY_S:
            self._said_s = time.monotonic()
            for line in lines:
                if line["state"] == "running":
                    self._write(_row(line) + "\n")
            self._write(_heading(lines, event["left_s"]) + "\n")

    def close(self) -> None:
        """What comes next is printed below the table."""
        self._drawn = 0

    def _table(self, lines: Sequence[Mapping[str, Any]], left_s: float | None) -> list[str]:
        by_name = {line["name"]: line for line in lines}
        recent = [by_name[name] for name in self._ended[-_RECENT:] if name in by_name]
        running = [line for line in lines if line["state"] == "running"]
        return [_heading(lines, left_s), *map(_row, recent), *map(_row, running)]

    def _redraw(self, rows: list[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self._write(up + "\x1b[J" + "".join(row[:width] + "\n" for row in rows))
        self._drawn = len(rows)


def _heading(lines: Sequence[Mapping[str, Any]], left_s: float | None) -> str:
    left = "" if not left_s else f", about {time_text(left_s)} left"
    return f"members: {_counts(lines)}{left}"


def _counts(lines: Sequence[Mapping[str, Any]]) -> str:
    """How many members are in which state.

    >>> _counts([{"state": "done"}, {"state": "running"}, {"state": "kept"}])
    '1 of 3 done, 1 kept, 1 running'
    """
    counts = dict.fromkeys(("done", "kept", "failed", "running", "waiting"), 0)
    for line in lines:
        counts[line["state"]] += 1
    done = f"{counts.pop('done')} of {len(lines)} done"
    return ", ".join([done, *(f"{count} {state}" for state, count in counts.items() if count)])


def _row(line: Mapping[str, Any]) -> str:
    """One member in one line.

    >>> _row({"name": "ticket 1 @0 seed 0", "state": "running", "part": 0.5, "epoch": 2.0,
    ...       "accuracy": 0.9, "seconds": 4.0, "left_s": 4.0})
    'ticket 1 @0 seed 0             running  50%  epoch 2.00   accuracy 90.00%  4 s  4 s left'
    """
    parts = [f"{line['name']:<30} {line['state']:<7} {line['part']:>4.0%}"]
    if line["epoch"] is not None:
        parts.append(f"epoch {line['epoch']:<5.2f}")
    if line["accuracy"] is not None:
        parts.append(f"accuracy {line['accuracy']:.2%}")
    parts.append(time_text(line["seconds"]))
    if line["state"] == "running" and line["left_s"]:
        parts.append(f"{time_text(line['left_s'])} left")
    return "  ".join(parts)


def time_text(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> time_text(75), time_text(7300)
    ('1 min 15 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
