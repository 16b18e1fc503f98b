"""Charts and tables of sweeps: measurements with their range, and the laws through them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sixfold.core.html.axes import (
    Axis,
    Format,
    compact,
    duration,
    linear,
    logarithmic,
    percent,
    plain,
)
from sixfold.core.html.charts import COLOURS, Chart, Series
from sixfold.core.html.page import Card, Cell, Fold, Part, Table
from sixfold.studies.sweep.fits import FittedLaw, LawPoint, ScaledPoint, Spread

MOST_LINES = len(COLOURS)
_LOG_FROM = 8.0  # ratio of the greatest to the least value from which an axis is logarithmic
THROUGH = 1e-3  # relative error up to which a law is said to go through a measurement


def measured(
    number: int, name: str, x: Sequence[float], spreads: Sequence[Spread], scale: float = 1.0
) -> Series:
    """Medians over places, with bars from least to most."""
    y, low, high = (
        [scale * getattr(spread, end) for spread in spreads] for end in ("median", "least", "most")
    )
    return line(number, name, x, y, low=low, high=high)


def line(number: int, name: str, x: Sequence[float], y: Sequence[float], **more: Any) -> Series:
    """Measurements, in the colour of their number."""
    return Series(name=name, x=x, y=y, colour=COLOURS[number % MOST_LINES], dots=True, **more)


def law_line(number: int, name: str, x: Sequence[float], y: Sequence[float]) -> Series:
    """A law's curve: broken, without dots, and not in the legend."""
    colour = COLOURS[number % MOST_LINES]
    return Series(name=name, x=x, y=y, colour=colour, kind="broken", key=False)


def chart(
    name: str,
    title: str,
    note: str,
    series: Sequence[Series],
    *,
    x_label: str,
    write: Format = plain,
    zero: bool = True,
    log_y: bool = False,
    labels: Mapping[float, str] | None = None,
) -> Chart | None:
    """Lines over one axis; None if there is nothing to be drawn.

    `labels` are names of places on the horizontal axis, where these stand for words.
    """
    ends = [np.asarray(end, float) for one in series for end in (one.y, one.low, one.high)]
    values = [float(v) for end in ends for v in end if math.isfinite(v)]
    own = [one for one in series if one.key]
    xs = sorted({float(x) for one in series for x in np.asarray(one.x, float)})
    if not values or not xs:
        return None
    if log_y:
        y = logarithmic(min(v for v in values if v > 0), max(values), write)
    else:
        y = linear(0.0 if zero else min(values), max(values), write)
    return Chart(
        id=name,
        title=title,
        note=note,
        summary=f"{title}: {len(own)} lines over {x_label}.",
        x=_x_axis(xs, sorted({float(x) for one in own for x in np.asarray(one.x)}), labels),
        y=y,
        x_label=x_label,
        series=list(series),
        write=write,
        head=lambda at: (labels or {}).get(at, plain(at)),
    )


def _x_axis(
    xs: Sequence[float], ticks: Sequence[float], labels: Mapping[float, str] | None
) -> Axis:
    if labels:
        axis = Axis(low=min(labels) - 0.5, high=max(labels) + 0.5)
        return axis.ticked(sorted(labels), labels.__getitem__)
    if log := xs[0] > 0 and xs[-1] / xs[0] >= _LOG_FROM:
        low, high = xs[0] / 1.15, xs[-1] * 1.15
    else:
        pad = 0.04 * (xs[-1] - xs[0]) or 0.5
        low, high = xs[0] - pad, xs[-1] + pad
    return Axis(low=low, high=high, log=log).ticked(ticks or xs, compact)


def law_card(
    law: FittedLaw,
    head: Sequence[str],
    place: Callable[[LawPoint | ScaledPoint], Sequence[str]],
    *,
    title: str = "",
    detail: str,
) -> Card:
    """A law with its coefficients and, point by point, predicted and measured.

    `head` and `place` tell its measurements apart; `title` stands for the law's name.
    """
    values = []
    if law.serial_part is not None:
        values.append(("serial part s", str(law.serial_part)))
    if law.most_speedup:
        values.append(("S is at most", f"{law.most_speedup:.3g}"))
    if law.batch_per_worker:
        values.append(("images per worker and step", plain(law.batch_per_worker)))
    values += [(one.name, str(one)) for one in law.coefficients]
    if law.held_out_error is not None:
        values.append(("error on what was held out", percent(law.held_out_error)))
    coefficients = Table(
        title=title or law.law.capitalize(),
        detail=detail,
        note=exactness(law) if law.exact else "",
        rows=values,
        css="",
    )
    rows = [[*place(point), *_compared(point)] for point in law.points]
    columns = [*head, "Measured", "Predicted", "95%", "Off by", "Held out"]
    compared = Table(head=columns, rows=rows, texts=())
    return Card(blocks=[coefficients, Fold(summary="Predicted and measured", blocks=[compared])])


def _compared(point: LawPoint | ScaledPoint) -> tuple[str, ...]:
    if isinstance(point, ScaledPoint):
        median, predicted = point.measured.median, point.predicted
        return f"{median:.2f}", f"{predicted:.2f}", "", f"{_off(predicted, median)}", ""
    median, interval, held_out = point.measured_s.median, "", ""
    if point.low_s is not None and point.high_s is not None:
        interval = f"{1000 * point.low_s:.3g} to {1000 * point.high_s:.3g}"
    if point.held_out_s is not None:
        held_out = f"{duration(point.held_out_s)} ({_off(point.held_out_s, median)})"
    times = (duration(time) for time in (median, point.predicted_s))
    return *times, interval, _off(point.predicted_s, median), held_out


def _off(predicted: float, median: float) -> str:
    return f"{100 * (predicted / median - 1):+.1f}%"


def exactness(law: FittedLaw) -> str:
    """What a law says of measurements that are no more than its coefficients."""
    pairs = [
        (p.predicted, p.measured.median)
        if isinstance(p, ScaledPoint)
        else (p.predicted_s, p.measured_s.median)
        for p in law.points
    ]
    told = "No more measurements than coefficients: it says nothing of its own fit"
    if all(abs(predicted / median - 1) < THROUGH for predicted, median in pairs):
        return f"{told}, and goes through all of them, whatever they are."
    return f"{told}. Coefficients of at least 0 keep it from going through all of them."


def law_text(law: FittedLaw) -> str:
    """A law in one line."""
    at = " ".join(f"{name}={value}" for name, value in law.values.items())
    if law.kind:
        at = f"payload={law.kind} of={law.outcome}"
    if law.batch_per_worker:
        at = f"{at} {law.batch_per_worker} images per worker".strip()
    told = ", ".join(f"{one.name} {one}" for one in law.coefficients)
    if law.serial_part is not None:
        told = f"serial part {law.serial_part}"
    if law.held_out_error is not None:
        told += f"; held-out error {law.held_out_error:.1%}"
    if law.exact:
        told += "; no more measurements than coefficients: says nothing of its own fit"
    return f"{law.law}{f' ({at})' if at else ''}: {told}"


def shares(parts: Mapping[str, float], colours: Mapping[str, str]) -> Cell:
    """Where time went, as a bar: parts (s) in the order of their colours."""
    whole = sum(parts.values()) or 1.0
    return Cell(
        parts=[
            Part(
                colour=colour,
                width=round(100 * parts.get(name, 0.0) / whole, 2),
                title=f"{name.replace('_', ' ')} {duration(parts.get(name, 0.0))}",
            )
            for name, colour in colours.items()
        ]
    )


def span(spread: Spread, write: Format) -> str:
    """The range of a measurement."""
    return f"{write(spread.least)} to {write(spread.most)}"


def named(values: Mapping[str, Any]) -> str:
    """A choice of values in words."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "as given"
