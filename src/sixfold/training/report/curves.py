"""Line charts of a training: loss, accuracy, learning rate and throughput."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sixfold.core.html.axes import (
    MISSING,
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
from sixfold.core.html.chart import Chart, Key, Path, dots_path, line_path, places
from sixfold.core.html.json_lines import Table
from sixfold.core.html.series import Floats, extremes, smooth, spread, window_for, without_pauses
from sixfold.training.report.record import Record

_DRAWN = 1200
"""Points of a raw curve: at least two for each pixel of a phone, one for each of a desktop."""

_HOVERED = 320
"""Places along a chart that have hover values."""

_DOTTED = 60
"""Up to this many points of a curve are marked by dots."""


def learning_charts(record: Record) -> list[Chart]:
    """Loss, accuracy and, where it varies, the learning rate; those that have values."""
    charts = [
        _measure_chart(record, "loss", "Loss", "loss", "eval_loss", plain),
        _measure_chart(record, "accuracy", "Accuracy", "accuracy", "eval_accuracy", percent),
        _rate_chart(record),
    ]
    return [chart for chart in charts if chart]


def _measure_chart(
    record: Record, name: str, title: str, column: str, eval_column: str, write: Format
) -> Chart | None:
    """The training's values by step, raw and smoothed, and each part's evaluations."""
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
    chart = Chart(
        id=name,
        title=title,
        note="; ".join(note),
        summary=_summary(title, table, soft, shown, eval_column, write),
        x=x,
        y=y,
        x_label="step",
    )
    if has_training:
        if window > 1:
            keep = extremes(values, _DRAWN)
            path = line_path(x.place(table["step"][keep]), y.place(values[keep]))
            chart.paths.append(Path(d=path, css="raw training"))
        keep = spread(len(soft), _HOVERED)
        _add_line(chart, "training", table["step"][keep], soft[keep], dots=len(soft) <= 3)
    for part, found in shown.items():
        keep = spread(len(found), _HOVERED)
        dots = len(found) <= _DOTTED
        _add_line(chart, part, found["step"][keep], found[eval_column][keep], dots=dots)
    _add_hover(chart, table, soft, shown, eval_column, write)
    return chart


def _rate_chart(record: Record) -> Chart | None:
    """The learning rate by step, if there is more than one."""
    table = record.training
    rates = table["lr"]
    good = rates[np.isfinite(rates)]
    if not len(good) or good.min() == good.max():
        return None
    x = _step_axis([table])
    y = linear(0.0, float(good.max()), compact)
    chart = Chart(
        id="lr",
        title="Learning rate",
        note="",
        summary=f"Learning rate from {plain(good[0])} to {plain(good[-1])}, "
        f"at most {plain(good.max())}.",
        x=x,
        y=y,
        x_label="step",
    )
    keep = extremes(rates, _HOVERED)
    _add_line(chart, "training", table["step"][keep], rates[keep], dots=False, name="rate")
    _add_hover(chart, table, rates, {}, "", plain, name="rate")
    return chart


def throughput_chart(record: Record) -> Chart | None:
    """Images per second over the time since the first step, pauses between restarts cut out."""
    table = record.training
    good = np.isfinite(table["images_per_s"]) & np.isfinite(table["time"])
    rates, steps = table["images_per_s"][good], table["step"][good]
    if not len(rates):
        return None
    time, pauses = without_pauses(table["time"][good])
    window = window_for(len(rates))
    soft = smooth(rates, window)
    x, unit, unit_s = time_axis(float(time[-1]))
    # One stalled step must not flatten the rest, nor one burst: the middle 98% set the scale.
    y = linear(0.0, float(np.percentile(rates, 99)) * 1.05, compact, count=4, snug=True)
    note = "the pause before a resumption is cut out" if len(pauses) else ""
    middle = float(np.median(rates))
    chart = Chart(
        id="throughput",
        title="Throughput",
        note=f"images per second; median {plain(middle)}" + (f"; {note}" if note else ""),
        summary=f"Images per second over {duration(float(time[-1]))}: median {plain(middle)}, "
        f"from {plain(rates.min())} to {plain(rates.max())}.",
        x=x,
        y=y,
        x_label=f"time since the first logged step ({unit})",
        marks=[float(m) for m in 100 * x.place(pauses / unit_s)],
    )
    if window > 1:
        keep = extremes(rates, _DRAWN)
        path = line_path(x.place(time[keep] / unit_s), y.place(rates[keep]))
        chart.paths.append(Path(d=path, css="raw training"))
    keep = spread(len(soft), _HOVERED)
    _add_line(
        chart, "training", time[keep] / unit_s, soft[keep], dots=len(soft) <= 3, name="images/s"
    )
    chart.keys.clear()
    chart.hover = {
        "at": places(x, time[keep] / unit_s),
        "head": [f"step {plain(steps[k])} · {duration(float(time[k]))}" for k in keep],
        "rows": [["images/s", "training", [plain(float(f"{soft[k]:.4g}")) for k in keep]]],
    }
    return chart


def _add_line(
    chart: Chart, css: str, x: Floats, y: Floats, *, dots: bool, name: str | None = None
) -> None:
    """Draw a curve into a chart and name it in the legend."""
    kind = css if css in ("training", "validation", "test") else "other"
    places = chart.x.place(x), chart.y.place(y)
    chart.paths.append(Path(d=line_path(*places), css=f"line {kind}"))
    if dots:
        chart.paths.append(Path(d=dots_path(*places), css=f"dots {kind}"))
    chart.keys.append(Key(name=name or css, css=kind))


def _add_hover(
    chart: Chart,
    table: Table,
    soft: Floats,
    parts: dict[str, Table],
    column: str,
    write: Format,
    *,
    name: str = "training",
) -> None:
    """Hover values at logged steps; of an evaluation the latest one up to that step."""
    if np.isfinite(soft).any():
        base, rows = table, [(name, "training", soft)]
    else:
        base, rows = next(iter(parts.values())), []
    keep = spread(len(base), _HOVERED)
    steps, epochs = base["step"][keep], base["epoch"][keep]
    texts = [[name, css, [write(v) for v in values[keep]]] for name, css, values in rows]
    for part, found in parts.items():
        kind = part if part in ("validation", "test") else "other"
        latest = np.searchsorted(found["step"], steps, side="right") - 1
        texts.append([part, kind, [write(found[column][k]) if k >= 0 else MISSING for k in latest]])
    chart.hover = {
        "at": places(chart.x, steps),
        "head": [
            f"step {plain(step)}" + (f" · epoch {epoch:.2f}" if np.isfinite(epoch) else "")
            for step, epoch in zip(steps, epochs, strict=True)
        ],
        "rows": texts,
    }


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
    """The chart in words."""
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
