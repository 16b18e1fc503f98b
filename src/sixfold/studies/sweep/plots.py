"""Charts of sweeps: lines of measurements with their range, and the curves of laws beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sixfold.core.html.axes import Axis, Format, Tick, compact, linear, logarithmic, percent, plain
from sixfold.core.html.chart import Chart, Key, Path, dots_path, line_path, places, short

COLOURS = (
    "training",
    "validation",
    "other",
    "update",
    "data",
    "communication",
    "waiting",
    "compute",
)
MOST_LINES = len(COLOURS)
_LOG_FROM = 8.0
"""Ratio of the greatest to the least value from which an axis is logarithmic."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve."""

    name: str
    x: Sequence[float]  # places, as numbers
    y: Sequence[float]  # values; NaN where there is none
    low: Sequence[float] = field(default=())  # lower ends of bars, or empty
    high: Sequence[float] = field(default=())  # upper ends of bars, or empty
    fit: bool = False  # whether it is a law's: drawn broken and without dots
    colour: int | None = None  # number of the colour; that of its place among the lines if None


def chart(
    name: str,
    title: str,
    note: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    write: Format = plain,
    zero: bool = True,
    log_y: bool = False,
    labels: Mapping[float, str] | None = None,
) -> Chart | None:
    """Lines over one axis; None if there is nothing to be drawn.

    Args:
        name: unique on the page.
        title: what is shown.
        note: how to read it.
        lines: measurements and laws.
        x_label: what x is.
        write: how values are written.
        zero: whether the vertical axis begins at 0.
        log_y: whether it is logarithmic.
        labels: names of places on the horizontal axis, where these stand for words.
    """
    values = [v for line in lines for v in (*line.y, *line.low, *line.high) if math.isfinite(v)]
    xs = sorted({x for line in lines for x, y in zip(line.x, line.y, strict=True) if y == y})
    if not values or not xs:
        return None
    y = _y_axis(values, write, zero=zero, log=log_y)
    x = _x_axis(xs, [x for line in lines if not line.fit for x in line.x], labels)
    made = Chart(
        id=name,
        title=title,
        note=note,
        summary=f"{title}: {len([line for line in lines if not line.fit])} lines over {x_label}.",
        x=x,
        y=y,
        x_label=x_label,
    )
    measured = 0
    for line in lines:
        css = COLOURS[(measured if line.colour is None else line.colour) % MOST_LINES]
        measured += not line.fit
        at, up = x.place(line.x), y.place(line.y)
        kind = "line fit" if line.fit else "line"
        made.paths.append(Path(d=line_path(at, up), css=f"{kind} {css}"))
        if not line.fit:
            made.paths.append(Path(d=dots_path(at, up), css=f"dots {css}"))
            made.keys.append(Key(name=line.name, css=css))
        for place, low, high in zip(at, line.low, line.high, strict=False):
            ends = [short(1000 - 1000 * float(end)) for end in y.place([low, high])]
            across = short(1000 * float(place))
            made.paths.append(Path(d=f"M{across},{ends[0]}L{across},{ends[1]}", css=f"line {css}"))
    made.hover = _hover(lines, x, write, labels)
    return made


def _y_axis(values: Sequence[float], write: Format, *, zero: bool, log: bool) -> Axis:
    if log:
        return logarithmic(min(v for v in values if v > 0), max(values), write)
    return linear(0.0 if zero else min(values), max(values), write)


def _x_axis(
    xs: Sequence[float], measured: Sequence[float], labels: Mapping[float, str] | None
) -> Axis:
    if labels:
        low, high = min(labels) - 0.5, max(labels) + 0.5
        ticks = tuple(
            Tick(100 * (at - low) / (high - low), text) for at, text in sorted(labels.items())
        )
        return Axis(low=low, high=high, ticks=ticks)
    named = sorted(set(measured)) or list(xs)
    if xs[0] > 0 and xs[-1] / xs[0] >= _LOG_FROM:
        low, high = xs[0] / 1.15, xs[-1] * 1.15
        scale = math.log(high / low)
        ticks = tuple(Tick(100 * math.log(at / low) / scale, compact(at)) for at in named)
        return Axis(low=low, high=high, ticks=ticks, log=True)
    pad = 0.04 * (xs[-1] - xs[0]) or 0.5
    low, high = xs[0] - pad, xs[-1] + pad
    ticks = tuple(Tick(100 * (at - low) / (high - low), compact(at)) for at in named)
    return Axis(low=low, high=high, ticks=ticks)


def _hover(
    lines: Sequence[Line], x: Axis, write: Format, labels: Mapping[float, str] | None
) -> dict[str, Any]:
    shown = sorted({at for line in lines if not line.fit for at in line.x})
    rows = []
    measured = 0
    for line in lines:
        css = COLOURS[(measured if line.colour is None else line.colour) % MOST_LINES]
        measured += not line.fit
        own = dict(zip(line.x, line.y, strict=True))
        rows.append([line.name, css, [write(own.get(at, math.nan)) for at in shown]])
    return {
        "at": places(x, np.array(shown)),
        "head": [(labels or {}).get(at, plain(at)) for at in shown],
        "rows": rows,
    }


def named(values: Mapping[str, Any]) -> str:
    """A choice of values in words."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "as given"


def percent_plain(value: float) -> str:
    """A fraction in percent, as ticks and hover texts show it."""
    return percent(value, 0 if value >= 0.1 else 1) if value == value else plain(value)
