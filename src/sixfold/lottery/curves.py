"""Charts of a trellis: accuracy, early stopping and instability against the weights that are left.

The horizontal axis is logarithmic and runs from the whole network to the sparsest one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sixfold.core.html.axes import MISSING, Axis, Tick, linear, percent, percent_tick, plain
from sixfold.core.html.chart import Chart, Key, Path, dots_path, line_path, places, short

Cells = Sequence[Mapping[str, Any]]

_COLOURS = {"ticket": "training", "reinit": "validation", "random": "other", "dense": "test"}
_LABELS = 8
"""Sparsities that are named on the axis."""


def accuracy_chart(cells: Cells, dense: Mapping[str, Any], rewind: int) -> Chart | None:
    """Test accuracy of tickets and controls of one rewind point, beside the dense network."""
    own = [cell for cell in cells if cell["rewind"] == rewind]
    if not own:
        return None
    ends = [cell["test_accuracy"][end] for cell in own for end in ("low", "high")]
    level = dense["test_accuracy"]["mean"]
    y = linear(max(min(*ends, level), 0.0), min(max(*ends, level), 1.0), percent_tick)
    chart = _chart(
        f"accuracy-{rewind}",
        f"Test accuracy, rewound to step {rewind:,}",
        "bars: 95% interval over seeds; broken line: the dense network",
        own,
        y,
    )
    _flat(chart, level)
    for kind, found in _by_kind(own).items():
        _add(chart, kind, found, [cell["test_accuracy"]["mean"] for cell in found])
        for cell in found:
            _whisker(chart, kind, cell)
    _hover(chart, own, lambda cell: _with_spread(cell["test_accuracy"]))
    chart.hover["rows"].append(["dense", "test", [percent(level, 2)] * len(chart.hover["at"])])
    return chart


def early_stop_chart(cells: Cells, dense: Mapping[str, Any]) -> Chart | None:
    """The step at which validation loss is least, by weights left; the first rewind point."""
    first = min((cell["rewind"] for cell in cells), default=0)
    own = [cell for cell in cells if cell["rewind"] == first and "early_stop_step" in cell]
    if len(own) < 2 or "early_stop_step" not in dense:
        return None
    values = [cell["early_stop_step"] for cell in own] + [dense["early_stop_step"]]
    chart = _chart(
        "early-stop",
        "Early stopping",
        f"step of the least validation loss, rewound to step {first:,}",
        own,
        linear(0.0, max(values), plain),
    )
    _flat(chart, dense["early_stop_step"])
    for kind, found in _by_kind(own).items():
        _add(chart, kind, found, [cell["early_stop_step"] for cell in found])
    _hover(chart, own, lambda cell: plain(round(cell["early_stop_step"])))
    return chart


def instability_chart(cells: Cells) -> Chart | None:
    """Error barrier between two orders of the data, a line for each rewind point."""
    own = [cell for cell in cells if "instability" in cell]
    if not own:
        return None
    values = [cell["instability"] for cell in own]
    chart = _chart(
        "instability",
        "Instability",
        "error barrier on the line between two orders of the data; 0 is stable",
        own,
        linear(min(0.0, *values), max(*values, 0.01), percent_tick),
    )
    colours = ["training", "validation", "test", "other"]
    rewinds = sorted({cell["rewind"] for cell in own})
    rows = []
    for number, rewind in enumerate(rewinds):
        found = [cell for cell in own if cell["rewind"] == rewind]
        name = f"rewound to {rewind:,}"
        css = colours[number % len(colours)]
        _add(chart, name, found, [cell["instability"] for cell in found], css=css)
        rows.append([name, css, [percent(cell["instability"], 2) for cell in found]])
    base = [cell for cell in own if cell["rewind"] == rewinds[0]]
    chart.hover = {
        "at": places(chart.x, np.array([_kept(cell) for cell in base])),
        "head": [f"{percent(_kept(cell))} of weights" for cell in base],
        "rows": rows,
    }
    return chart


def _chart(name: str, title: str, note: str, cells: Cells, y: Axis) -> Chart:
    kept = sorted({_kept(cell) for cell in cells}, reverse=True)
    return Chart(
        id=name,
        title=title,
        note=note,
        summary=f"{title} at {', '.join(percent(value) for value in kept)} of the weights.",
        x=_kept_axis(kept),
        y=y,
        x_label="weights left (log scale)",
    )


def _kept_axis(kept: Sequence[float]) -> Axis:
    """From all weights at the left to the fewest at the right; none at all a decade further."""
    some = min((value for value in kept if value > 0), default=1.0)
    low, high = 1.0, some / 1.05 if min(kept) > 0 else some / 10
    every = -(-len(kept) // _LABELS)
    axis = Axis(low=low, high=high, ticks=(), log=True)
    named = [1.0, *kept[::-1][::every][::-1]]
    ticks = tuple(
        Tick(float(100 * axis.place(value)), percent_tick(float(f"{value:.2g}"))) for value in named
    )
    return dataclasses.replace(axis, ticks=ticks)


def _by_kind(cells: Cells) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in sorted(cells, key=lambda cell: -_kept(cell)):
        found.setdefault(cell["kind"], []).append(cell)
    return found


def _add(
    chart: Chart, name: str, cells: Cells, values: Sequence[float], css: str | None = None
) -> None:
    """A curve through cells, most weights first."""
    colour = css or _COLOURS[name]
    order = sorted(range(len(cells)), key=lambda k: -_kept(cells[k]))
    x = chart.x.place([_kept(cells[k]) for k in order])
    y = chart.y.place([values[k] for k in order])
    chart.paths.append(Path(d=line_path(x, y), css=f"line {colour}"))
    chart.paths.append(Path(d=dots_path(x, y), css=f"dots {colour}"))
    chart.keys.append(Key(name=name, css=colour))


def _flat(chart: Chart, value: float) -> None:
    """The dense network, as a level."""
    y = float(chart.y.place([value])[0])
    chart.paths.append(Path(d=f"M0,{short(1000 - 1000 * y)}h1000", css="line test"))
    chart.keys.append(Key(name="dense", css="test"))


def _whisker(chart: Chart, kind: str, cell: Mapping[str, Any]) -> None:
    x = short(1000 * float(chart.x.place([_kept(cell)])[0]))
    test = cell["test_accuracy"]
    low, high = (short(1000 - 1000 * float(chart.y.place([test[k]])[0])) for k in ("low", "high"))
    chart.paths.append(Path(d=f"M{x},{low}L{x},{high}", css=f"line {_COLOURS[kind]}"))


def _hover(chart: Chart, cells: Cells, write: Any) -> None:
    """Hover values: one place for each number of weights left."""
    kept = sorted({_kept(cell) for cell in cells}, reverse=True)
    rows = []
    for kind, found in _by_kind(cells).items():
        texts = {_kept(cell): write(cell) for cell in found}
        rows.append([kind, _COLOURS[kind], [texts.get(value, MISSING) for value in kept]])
    chart.hover = {
        "at": places(chart.x, np.array(kept)),
        "head": [f"{percent(value)} of weights" for value in kept],
        "rows": rows,
    }


def _with_spread(value: Mapping[str, float]) -> str:
    return f"{percent(value['mean'], 2)} ± {50 * (value['high'] - value['low']):.2f}"


def _kept(cell: Mapping[str, Any]) -> float:
    return float(cell["kept"] / cell["prunable"])
