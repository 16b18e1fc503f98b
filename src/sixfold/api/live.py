"""What is shown while a function works: a bar in notebooks and terminals, nothing elsewhere."""

from __future__ import annotations

import html
import inspect
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sixfold.core.checks import is_true
from sixfold.core.console.console import Console
from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent

REDRAW_S = 0.2


def silent(_: Mapping[str, Any]) -> None:
    """Shows nothing."""


@contextmanager
def shown(on_event: OnEvent | None, quiet: bool | None) -> Iterator[OnEvent]:
    """Who hears of events: the caller's own function, a live display, or nobody."""
    if on_event is not None and not _takes_one(on_event):
        raise UserError(f"on_event is a {type(on_event).__name__}: expected a function of an event")
    if quiet is not None:
        is_true(quiet, "quiet")
    if on_event is not None:
        yield on_event
    elif quiet or (quiet is None and not (in_notebook() or sys.stderr.isatty())):
        yield silent
    elif in_notebook():
        with NotebookBar() as bar:
            yield bar
    else:
        with Console() as console:
            yield console


def _takes_one(function: Any) -> bool:
    """Whether something can be called with one argument, as far as that can be told."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # nobody knows of what is written in C
        return callable(function)
    return True


def in_notebook() -> bool:
    """Whether this is a notebook's kernel, which can show HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


class NotebookBar:
    """A bar with the loss in a notebook's cell, and below it the evaluations and notes."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._handle: Any = display(HTML("<progress></progress>"), display_id=True)
        self._bar, self._total = "", 1
        self._lines: list[str] = []
        self._drawn_s = 0.0

    def __enter__(self) -> NotebookBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show an event."""
        kind = event.get("kind")
        if kind == "progress":
            done = event["step"]
            self._total = total = event.get("total") or done
            self._bar = _bar(done, total) + (
                f" step {done:,} of {total:,}, epoch {event['epoch']:.2f}, "
                f"loss {event['loss']:.4f}, accuracy {event['accuracy']:.1%}, "
                f"{event['images_per_s']:,.0f} images/s"
            )
        elif kind == "prepare":
            done, total = event["done"], event["total"]
            self._bar = _bar(done, total) + f" preparing images: {done:,} of {total:,}"
        elif kind == "evaluation":
            self._bar = _bar(event["step"], self._total) + f" step {event['step']:,}"
            self._lines.append(
                f"epoch {event['epoch']:.2f}, {event['part']}: loss {event['eval_loss']:.4f}, "
                f"accuracy {event['eval_accuracy']:.2%}"
            )
        elif kind == "note":
            self._lines.append(str(event["text"]))
        else:
            return
        if kind in ("evaluation", "note") or time.monotonic() - self._drawn_s > REDRAW_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in self._lines)
        self._handle.update(self._html(f"<div>{self._bar}</div>{lines}"))


def _bar(done: int, total: int) -> str:
    return f'<progress value="{done}" max="{max(total, 1)}"></progress>'
