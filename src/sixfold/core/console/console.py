"""What a person sees while a command works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from sixfold.core.console.job_table import JobTable, time_text

PLAIN_EVERY_S = 5.0


class Console:
    """Shows events of a run on standard error.

    On a terminal, progress is one line that is rewritten; elsewhere a line now and then.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._open_line = False
        self._last_s = float("-inf")
        self._began: dict[str, tuple[float, int]] = {}
        self._jobs = JobTable(self._raw, terminal=self._terminal)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show an event; see `sixfold.training.launch_names.OnEvent`."""
        kind = event.get("kind")
        if kind == "progress":
            self._passing(
                f"step {_of(event)}  epoch {event['epoch']:.2f}  loss {event['loss']:.4f}  "
                f"accuracy {event['accuracy']:.1%}  {event['images_per_s']:,.0f} images/s"
                + self._left(event)
            )
        elif kind == "prepare":
            whole = event["done"] >= event["total"]
            self._passing(f"preparing images: {event['done']:,} of {event['total']:,}", now=whole)
        elif kind == "learned":
            self._passing(
                f"update {_of(event)}  energy {event['energy']:.4f}  error "
                f"{event['error']:.2%}  sparsity {event['sparsity']:.2%}  "
                f"{event['code_steps']:.0f} steps  {event['images_per_s']:,.0f} images/s"
                + self._left(event)
            )
        elif kind == "coded":
            self._passing(f"coded {event['images']:,} of {event['total']:,} images")
        elif kind == "predicted":
            self._passing(f"classified {event['images']:,} images")
        elif kind == "distorted":
            self._passing(
                f"{event['done']} of {event['total']} evaluated, the last with accuracy "
                f"{event['accuracy']:.1%}"
            )
        elif kind == "evaluation":
            self.line(
                f"step {event['step']}  epoch {event['epoch']:.2f}  {event['part']}: "
                f"loss {event['eval_loss']:.4f}  accuracy {event['eval_accuracy']:.2%}"
            )
        elif kind == "job":
            self._end_line()
            self._jobs.show(event)
        elif kind == "note":
            self.line(str(event["text"]))

    def _left(self, event: Mapping[str, Any]) -> str:
        """How long it will take, from the pace since the first word; nothing if not known."""
        kind, done, total = event["kind"], event["step"], event.get("total")
        at, first = self._began.setdefault(kind, (time.monotonic(), done))
        if not total or done <= first:
            return ""
        seconds = (time.monotonic() - at) / (done - first) * (total - done)
        return f"  about {time_text(seconds)} left"

    def line(self, text: str) -> None:
        """A line that stays."""
        self.close()
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End a line, or a table, that was being rewritten."""
        self._end_line()
        self._jobs.close()

    def _end_line(self) -> None:
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False

    def _raw(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)

    def _passing(self, text: str, *, now: bool = False) -> None:
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._open_line = True
        elif now or time.monotonic() - self._last_s > PLAIN_EVERY_S:
            self._last_s = time.monotonic()
            print(text, file=sys.stderr, flush=True)


def _of(event: Mapping[str, Any]) -> str:
    """How many steps are done, and of how many where that is known."""
    total = event.get("total")
    return f"{event['step']:,} of {total:,}" if total else f"{event['step']:,}"
