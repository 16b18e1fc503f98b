"""Line charts of a training: loss, accuracy, learning rate and throughput."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from sixfold.core.html.axes import (
    Axis,
    Format,
    compact,
    duration,
    linear,
    logarithmic,
    percent,
    percent_tick,
    plain,
    time_axis,
)
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.json_lines import Table
from sixfold.core.html.series import Floats, extremes, smooth, spread, window_for, without_pauses
from sixfold.training.report.record import Record

_DRAWN = 1200
"""Points of a raw curve: at least two for each pixel of a phone, one for each of a desktop."""

_HOVERED = 320  # places along a chart that have hover values
_DOTTED = 60  # up to this many points of a curve are marked by dots


def learning_charts(record: Record) -> list[Chart]:
    """Loss, accuracy and, where it varies, the learning rate; those that have values."""
    charts = [
        _measure_chart(record, "loss", "Loss", "loss", "eval_loss", plain),
        _measure_chart(record, "accuracy", "Accuracy", "accuracy", "eval_accuracy", percent),
        _rate_chart(record),
    ]
    found = [chart for chart in charts if chart]
    if len(found) % 2:
        found[-1].css += " wide"
    return found


def _measure_chart(
    record: Record, name: str, title: str, column: str, eval_column: str, write: Format
) -> Chart | None:
    """The training's values by step, raw and smoothed, and each split's evaluations."""
    table = record.training
    values = table[column]
    shown = {part: t for part, t in record.evaluations.items() if np.isfinite(t[eval_column]).any()}
    has_training = bool(np.isfinite(values).any())
    if not has_training and not shown:
        return None
    window = window_for(len(values))
    soft = smooth(values, window)
    x = _step_axis([table, *record.evaluations.values()])
    y = _value_axis(name, values, soft, [t[eval_column] for t in shown.values()])
    note = [f"log scale of {name}"] if y.log else []
    if has_training and window > 1:
        note.append(f"line: mean of {window:,} logged steps; faint: each of them")
    series = _smoothed("training", table["step"], values, soft, window) if has_training else []
    for part, found in shown.items():
        keep = spread(len(found), _HOVERED)
        series.append(
            Series(
                name=part,
                x=found["step"][keep],
                y=found[eval_column][keep],
                colour=part if part in ("validation", "test") else "other",
                dots=len(found) <= _DOTTED,
                held=True,
            )
        )
    return Chart(
        id=name,
        title=title,
        note="; ".join(note),
        summary=_summary(title, table, soft, shown, eval_column, write),
        x=x,
        y=y,
        x_label="step",
        series=series,
        write=write,
        head=_step_head(table if has_training else next(iter(shown.values()))),
    )


def _smoothed(name: str, x: Floats, raw: Floats, soft: Floats, window: int) -> list[Series]:
    """A curve, above the values it is a mean of."""
    found = []
    if window > 1:
        keep = extremes(raw, _DRAWN)
        found.append(
            Series(name="each", x=x[keep], y=raw[keep], kind="faint", key=False, hover=False)
        )
    keep = spread(len(soft), _HOVERED)
    return [*found, Series(name=name, x=x[keep], y=soft[keep], dots=len(soft) <= 3)]


def _step_head(table: Table) -> Callable[[float], str]:
    """A step in words, with its epoch where that is known."""
    epochs = dict(zip(table["step"].tolist(), table["epoch"].tolist(), strict=True))

    def head(step: float) -> str:
        epoch = epochs.get(step, math.nan)
        return f"step {plain(step)}" + (f" · epoch {epoch:.2f}" if math.isfinite(epoch) else "")

    return head


def _rate_chart(record: Record) -> Chart | None:
    table = record.training
    rates = table["lr"]
    good = rates[np.isfinite(rates)]
    if not len(good) or good.min() == good.max():
        return None
    keep = extremes(rates, _HOVERED)
    return Chart(
        id="lr",
        title="Learning rate",
        summary=f"Learning rate from {plain(good[0])} to {plain(good[-1])}, "
        f"at most {plain(good.max())}.",
        x=_step_axis([table]),
        y=linear(0.0, float(good.max()), compact),
        x_label="step",
        css="low",
        series=[Series(name="rate", x=table["step"][keep], y=rates[keep])],
        head=_step_head(table),
    )


def throughput_chart(record: Record) -> Chart | None:
    """Images per second over the time since the first step, pauses between restarts cut out."""
    table = record.training
    good = np.isfinite(table["images_per_s"]) & np.isfinite(table["time"])
    rates, steps = table["images_per_s"][good], table["step"][good]
    if not len(rates):
        return None
    time, pauses = without_pauses(table["time"][good])
    window = window_for(len(rates))
    x, unit, unit_s = time_axis(float(time[-1]))
    note = "; the pause before a resumption is cut out" if len(pauses) else ""
    middle = float(np.median(rates))
    shown = time / unit_s
    step_at = dict(zip(shown.tolist(), steps.tolist(), strict=True))
    soft = smooth(rates, window)
    return Chart(
        id="throughput",
        title="Throughput",
        note=f"images per second; median {plain(middle)}{note}",
        summary=f"Images per second over {duration(float(time[-1]))}: median {plain(middle)}, "
        f"from {plain(rates.min())} to {plain(rates.max())}.",
        x=x,
        # One stalled step must not flatten the rest, nor one burst: the middle 98% set the scale.
        y=linear(0.0, float(np.percentile(rates, 99)) * 1.05, compact, count=4, snug=True),
        x_label=f"time since the first logged step ({unit})",
        css="low",
        legend=False,
        restarts=[float(pause) for pause in pauses / unit_s],
        series=_smoothed("images/s", shown, rates, soft, window),
        write=lambda rate: plain(float(f"{rate:.4g}")),
        head=lambda at: f"step {plain(step_at[at])} · {duration(at * unit_s)}",
    )


def _step_axis(tables: Sequence[Table]) -> Axis:
    """From the first to the last step of any table."""
    steps = np.concatenate([table["step"] for table in tables])
    low, high = float(steps.min()), float(steps.max())
    if high - low < 1:
        low, high = low - 1, high + 1
    # A run that begins at step 1 gets an axis that begins at 0, where its round ticks are.
    if low <= 0.02 * high:
        low = 0.0
    return linear(low, high, compact, snug=True, least=1)


def _value_axis(name: str, raw: Floats, soft: Floats, evaluations: Sequence[Floats]) -> Axis:
    """An axis that shows all smoothed and evaluated values and nearly all raw ones."""
    main = np.concatenate([soft, *evaluations])
    main = main[np.isfinite(main)]
    raw = raw[np.isfinite(raw)]
    edges = np.percentile(raw, [1, 99]) if len(raw) else main
    low, high = min(main.min(), edges[0]), max(main.max(), edges[-1])
    if name == "accuracy":
        low, high = np.clip([low, high], 0.0, 1.0)
        return linear(float(min(low, 0.99)), float(max(high, low + 0.01)), percent_tick)
    if low > 0 and high > 100 * low:
        return logarithmic(float(low), float(high), compact)
    return linear(0.0 if 0 <= low < 0.7 * high else float(low), float(high), compact)


def _summary(
    title: str, table: Table, soft: Floats, parts: dict[str, Table], column: str, write: Format
) -> str:
    told = []
    good = np.flatnonzero(np.isfinite(soft))
    if len(good):
        first, last = soft[good[0]], soft[good[-1]]
        told.append(f"training from {write(first)} to {write(last)}")
    for part, found in parts.items():
        values = found[column][np.isfinite(found[column])]
        told.append(f"{part} {write(values[-1])} at the end")
    step = table["step"][-1] if len(table) else next(iter(parts.values()))["step"][-1]
    return f"{title} up to step {plain(step)}: {', '.join(told)}."
