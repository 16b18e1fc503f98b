"""What a person sees while a command works: bars on a terminal, plain lines elsewhere.

A bar shows how much is done, of how much, and how long the rest will take; a job has one for all of
its tasks, one for each that runs, and one for each of the last that ended.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

PLAIN_EVERY_S = 5.0  # between two lines, where there is no terminal
JOB_EVERY_S = 30.0  # the same for the tasks of a job that run
REDRAW_S = 0.1  # between two drawings of the bars
_RECENT = 6  # ended tasks whose bars stay
_ENDED = ("done", "failed", "kept")

_TEXTS = {
    "progress": ("step", "epoch {epoch:.2f}  loss {loss:.4f}  {right}{images_per_s:,.0f} images/s"),
    "learned": (
        "update",
        "energy {energy:.4f}  error {error:.2%}  sparsity {sparsity:.2%}  {code_steps:.0f} steps  "
        "{images_per_s:,.0f} images/s",
    ),
    "prepare": ("images prepared", ""),
    "coded": ("images coded", ""),
    "predicted": ("images classified", ""),
    "distorted": ("distortions evaluated", "the last with accuracy {accuracy:.1%}"),
}
"""Events of progress: what is counted, and what else is said."""

_COUNTS = ("step", "done", "images")  # fields of events that hold how much is done


class Console:
    """Shows the events of a run on standard error; to be used in a `with`."""

    def __init__(self) -> None:
        from rich.console import Console as Screen
        from rich.progress import BarColumn, Progress, TextColumn

        self._screen = Screen(stderr=True)
        self._live = self._screen.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._screen,
            auto_refresh=False,  # no thread, where a process may fork
            disable=not self._live,
        )
        self._tasks: dict[str, Any] = {}
        self._drawn_at = self._said_at = float("-inf")
        self._job_said_at = time.monotonic()
        self._began: dict[str, tuple[float, int]] = {}
        self._ended: list[str] = []

    def __enter__(self) -> Console:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show an event; see `sixfold.core.events`."""
        kind = event.get("kind")
        if kind in _TEXTS:
            self._show_progress(kind, event)
        elif kind == "job":
            self._show_job(event["lines"], event["left_s"])
        elif kind == "evaluation":
            self.line(
                f"step {event['step']}  epoch {event['epoch']:.2f}  {event['part']}: "
                f"loss {event['eval_loss']:.4f}  {_figures(event)}".rstrip()
            )
        elif kind == "note":
            self.line(str(event["text"]))

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._live:
            self._screen.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bars as they are; what comes next is shown below them."""
        self._bars.refresh()
        self._bars.stop()

    def _show_progress(self, kind: str, event: Mapping[str, Any]) -> None:
        noun, text = _TEXTS[kind]
        done = next(int(event[name]) for name in _COUNTS if name in event)
        total = event.get("total")
        left = self._left(kind, done, total)
        what = f"{noun} {done:,}" + (f" of {total:,}" if total else "")
        text = "  ".join(filter(None, [text.format_map({**event, "right": _right(event)}), left]))
        if self._live:
            self._bar(kind, what, done, total, text)
            self._draw(now=done == total)
        elif time.monotonic() - self._said_at > PLAIN_EVERY_S or (kind, done) == ("prepare", total):
            self._said_at = time.monotonic()
            self.line(f"{what}  {text}".rstrip())

    def _left(self, kind: str, done: int, total: int | None) -> str:
        """How long it will take, from the pace since the first word; nothing if not known."""
        at, first = self._began.setdefault(kind, (time.monotonic(), done))
        if not total or not first < done < total:
            return ""
        return _about((time.monotonic() - at) / (done - first) * (total - done))

    def _show_job(self, lines: Sequence[Mapping[str, Any]], left_s: float | None) -> None:
        new = [x for x in lines if x["state"] in _ENDED and x["name"] not in self._ended]
        self._ended += [line["name"] for line in new]
        ended = sum(line["state"] in _ENDED for line in lines)
        heading = ", ".join(filter(None, [_counts(lines), _about(left_s)]))
        if self._live:
            self._bar("", "tasks", ended, len(lines), heading)
            for line in lines:
                shown = line["state"] == "running" or line["name"] in self._ended[-_RECENT:]
                if shown or line["name"] in self._tasks:
                    self._bar(line["name"], line["name"], line["part"], 1.0, _facts(line), shown)
            self._draw()
            return
        for line in new:
            if line["state"] != "kept":
                self.line(f"{line['name']:<30} {_facts(line)}  ({_counts(lines)})")
        if time.monotonic() - self._job_said_at > JOB_EVERY_S:
            self._job_said_at = time.monotonic()
            for line in lines:
                if line["state"] == "running":
                    self.line(f"{line['name']:<30} {line['part']:>4.0%}  {_facts(line)}")
            self.line(f"tasks: {heading}")

    def _bar(
        self, key: str, what: str, done: float, total: float | None, text: str, shown: bool = True
    ) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(what, total=total, text=text)
        self._bars.update(
            self._tasks[key], description=what, completed=done, text=text, visible=shown
        )

    def _draw(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._drawn_at > REDRAW_S:
            self._drawn_at = time.monotonic()
            self._bars.refresh()


def _right(event: Mapping[str, Any]) -> str:
    return "" if event.get("accuracy") is None else f"accuracy {event['accuracy']:.1%}  "


def _figures(event: Mapping[str, Any]) -> str:
    """What an evaluation found besides the loss: the accuracy, or the errors of a regression."""
    if event.get("eval_accuracy") is not None:
        return f"accuracy {event['eval_accuracy']:.2%}"
    known = [(name, event.get(f"eval_{name}")) for name in ("mae", "rmse", "r2")]
    return "  ".join(f"{name} {value:.4g}" for name, value in known if value is not None)


def _counts(lines: Sequence[Mapping[str, Any]]) -> str:
    """How many tasks are in which state.

    >>> _counts([{"state": "done"}, {"state": "running"}, {"state": "kept"}])
    '1 of 3 done, 1 kept, 1 running'
    """
    counts = dict.fromkeys(("done", "kept", "failed", "running", "waiting"), 0)
    for line in lines:
        counts[line["state"]] += 1
    done = f"{counts.pop('done')} of {len(lines)} done"
    return ", ".join([done, *(f"{count} {state}" for state, count in counts.items() if count)])


def _facts(line: Mapping[str, Any]) -> str:
    """What is known of one task of a job.

    >>> _facts({"state": "running", "epoch": 2.0, "accuracy": 0.9, "seconds": 4.0, "left_s": 4.0})
    'running  epoch 2.00   accuracy 90.00%  4 s  about 4 s left'
    """
    parts = [f"{line['state']:<7}"]
    if line["epoch"] is not None:
        parts.append(f"epoch {line['epoch']:<5.2f}")
    if line["accuracy"] is not None:
        parts.append(f"accuracy {line['accuracy']:.2%}")
    parts.append(time_text(line["seconds"]))
    if line["state"] == "running" and line["left_s"]:
        parts.append(_about(line["left_s"]))
    return "  ".join(parts)


def _about(seconds: float | None) -> str:
    return f"about {time_text(seconds)} left" if seconds else ""


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
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
