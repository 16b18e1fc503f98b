"""Charts of a trellis: accuracy, early stopping and instability against the weights that are left.

The horizontal axis is logarithmic and runs from the whole network to the sparsest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sixfold.core.html.axes import Axis, Format, linear, percent, percent_tick, plain
from sixfold.core.html.charts import Chart, Series

Cells = Sequence[Mapping[str, Any]]

_COLOURS = {"ticket": "training", "reinit": "validation", "random": "other", "dense": "test"}
_LABELS = 8
"""Sparsities that are named on the axis."""


def accuracy_chart(cells: Cells, dense: Mapping[str, Any], rewind: int) -> Chart | None:
    """Test accuracy of tickets and controls of one rewind point, and of the dense network."""
    own = [cell for cell in cells if cell["rewind"] == rewind]
    if not own:
        return None
    ends = [cell["test_accuracy"][end] for cell in own for end in ("low", "high")]
    level = dense["test_accuracy"]["mean"]
    x = _kept_axis(own)
    series = [_flat(x, level)]
    for kind, found in _by_kind(own).items():
        tests = [cell["test_accuracy"] for cell in found]
        low, high = [t["low"] for t in tests], [t["high"] for t in tests]
        series.append(_line(kind, _COLOURS[kind], found, [t["mean"] for t in tests], low, high))
    return _chart(
        f"accuracy-{rewind}",
        f"Test accuracy, rewound to step {rewind:,}",
        "bars: 95% interval over seeds; broken line: the dense network",
        own,
        linear(max(min(*ends, level), 0.0), min(max(*ends, level), 1.0), percent_tick),
        series,
        lambda value: percent(value, 2),
    )


def early_stop_chart(cells: Cells, dense: Mapping[str, Any]) -> Chart | None:
    """The step at which validation loss is least, by weights left; the first rewind point."""
    first = min((cell["rewind"] for cell in cells), default=0)
    own = [cell for cell in cells if cell["rewind"] == first and "early_stop_step" in cell]
    if len(own) < 2 or "early_stop_step" not in dense:
        return None
    values = [cell["early_stop_step"] for cell in own] + [dense["early_stop_step"]]
    series = [_flat(_kept_axis(own), dense["early_stop_step"])]
    for kind, found in _by_kind(own).items():
        steps = [cell["early_stop_step"] for cell in found]
        series.append(_line(kind, _COLOURS[kind], found, steps))
    return _chart(
        "early-stop",
        "Early stopping",
        f"step of the least validation loss, rewound to step {first:,}",
        own,
        linear(0.0, max(values), plain),
        series,
        lambda value: plain(round(value)),
    )


def instability_chart(cells: Cells) -> Chart | None:
    """Error barrier between two orders of the data, a line for each rewind point."""
    own = [cell for cell in cells if "instability" in cell]
    if not own:
        return None
    values = [cell["instability"] for cell in own]
    colours = ["training", "validation", "test", "other"]
    series = []
    for number, rewind in enumerate(sorted({cell["rewind"] for cell in own})):
        found = _by_kept([cell for cell in own if cell["rewind"] == rewind])
        barriers = [cell["instability"] for cell in found]
        colour = colours[number % len(colours)]
        series.append(_line(f"rewound to {rewind:,}", colour, found, barriers))
    return _chart(
        "instability",
        "Instability",
        "error barrier on the line between two orders of the data; 0 is stable",
        own,
        linear(min(0.0, *values), max(*values, 0.01), percent_tick),
        series,
        lambda value: percent(value, 2),
    )


def _chart(
    name: str, title: str, note: str, cells: Cells, y: Axis, series: list[Series], write: Format
) -> Chart:
    kept = sorted({_kept(cell) for cell in cells}, reverse=True)
    return Chart(
        id=name,
        title=title,
        note=note,
        summary=f"{title} at {', '.join(percent(value) for value in kept)} of the weights.",
        x=_kept_axis(cells),
        y=y,
        x_label="weights left (log scale)",
        series=series,
        write=write,
        head=lambda value: f"{percent(value)} of weights",
    )


def _kept_axis(cells: Cells) -> Axis:
    """From all weights at the left to the fewest at the right; none at all a decade further."""
    kept = sorted({_kept(cell) for cell in cells}, reverse=True)
    some = min((value for value in kept if value > 0), default=1.0)
    axis = Axis(low=1.0, high=some / 1.05 if min(kept) > 0 else some / 10, log=True)
    every = -(-len(kept) // _LABELS)
    named = [1.0, *kept[::-1][::every][::-1]]
    return axis.ticked(named, lambda value: percent_tick(float(f"{value:.2g}")))


def _by_kept(cells: Cells) -> list[Mapping[str, Any]]:
    return sorted(cells, key=lambda cell: -_kept(cell))


def _by_kind(cells: Cells) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in _by_kept(cells):
        found.setdefault(cell["kind"], []).append(cell)
    return found


def _line(
    name: str,
    colour: str,
    cells: Cells,
    values: Sequence[float],
    low: Sequence[float] = (),
    high: Sequence[float] = (),
) -> Series:
    x = [_kept(cell) for cell in cells]
    return Series(name=name, x=x, y=values, colour=colour, dots=True, low=low, high=high)


def _flat(x: Axis, value: float) -> Series:
    """The dense network, as a level; held from the sparsest network on, it is known everywhere."""
    return Series(name="dense", x=[x.high, x.low], y=[value] * 2, colour="test", held=True)


def _kept(cell: Mapping[str, Any]) -> float:
    return float(cell["kept"] / cell["prunable"])
