"""Charts of sweeps: measurements with their range, and the curves of laws through them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sixfold.core.html.axes import Axis, Format, compact, linear, logarithmic, percent, plain
from sixfold.core.html.charts import COLOURS, Chart, Series

MOST_LINES = len(COLOURS)
_LOG_FROM = 8.0
"""Ratio of the greatest to the least value from which an axis is logarithmic."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve; a law's (`fit`) is drawn broken and without dots."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())
    fit: bool = False
    colour: int | None = None  # its place among the lines if None


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
    series = []
    measured = 0
    for line in lines:
        series.append(
            Series(
                name=line.name,
                x=line.x,
                y=line.y,
                low=line.low,
                high=line.high,
                colour=COLOURS[(measured if line.colour is None else line.colour) % MOST_LINES],
                kind="broken" if line.fit else "line",
                dots=not line.fit,
                key=not line.fit,
            )
        )
        measured += not line.fit
    return Chart(
        id=name,
        title=title,
        note=note,
        summary=f"{title}: {len([line for line in lines if not line.fit])} lines over {x_label}.",
        x=_x_axis(xs, [x for line in lines if not line.fit for x in line.x], labels),
        y=_y_axis(values, write, zero=zero, log=log_y),
        x_label=x_label,
        series=series,
        write=write,
        head=lambda at: (labels or {}).get(at, plain(at)),
    )


def _y_axis(values: Sequence[float], write: Format, *, zero: bool, log: bool) -> Axis:
    if log:
        return logarithmic(min(v for v in values if v > 0), max(values), write)
    return linear(0.0 if zero else min(values), max(values), write)


def _x_axis(
    xs: Sequence[float], measured: Sequence[float], labels: Mapping[float, str] | None
) -> Axis:
    if labels:
        axis = Axis(low=min(labels) - 0.5, high=max(labels) + 0.5)
        return axis.ticked(sorted(labels), labels.__getitem__)
    if log := xs[0] > 0 and xs[-1] / xs[0] >= _LOG_FROM:
        low, high = xs[0] / 1.15, xs[-1] * 1.15
    else:
        pad = 0.04 * (xs[-1] - xs[0]) or 0.5
        low, high = xs[0] - pad, xs[-1] + pad
    return Axis(low=low, high=high, log=log).ticked(sorted(set(measured)) or xs, compact)


def named(values: Mapping[str, Any]) -> str:
    """A choice of values in words."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "as given"


def interval(value: Mapping[str, Any]) -> str:
    """A coefficient, with its interval where that is known."""
    middle = f"{value['value']:.3g}"
    return (
        middle if value["low"] is None else f"{middle} ({value['low']:.3g} to {value['high']:.3g})"
    )


def percent_plain(value: float) -> str:
    """A fraction in percent, as ticks and hover texts show it."""
    return percent(value, 0 if value >= 0.1 else 1) if value == value else plain(value)
