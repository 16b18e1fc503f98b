"""Charts of a trellis: accuracy, early stopping and instability against the weights that are left.

The horizontal axis is logarithmic and runs from the whole network to the sparsest one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from sixfold.core.html.axes import Axis, Format, linear, percent, percent_tick, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.lottery.results import CellFigures, Dense

Cells = Sequence[CellFigures]
_COLOURS = {"ticket": "training", "reinit": "validation", "random": "other", "dense": "test"}
_LABELS = 8  # sparsities that are named on the axis
_points = partial(percent, digits=2)


def accuracy_chart(cells: Cells, dense: Dense, rewind: int) -> Chart | None:
    """Test accuracy of tickets and controls of one rewind point, and of the dense network."""
    own = [cell for cell in cells if cell.rewind == rewind]
    if not own:
        return None
    ends = [end for cell in own for end in (cell.test_accuracy.low, cell.test_accuracy.high)]
    level = dense.test_accuracy.mean
    series = [_flat(own, level)]
    for kind, found in _by_kind(own).items():
        tests = [cell.test_accuracy for cell in found]
        low, high = [t.low for t in tests], [t.high for t in tests]
        values = [t.mean for t in tests]
        series.append(_line(kind, _COLOURS[kind], found, values, low=low, high=high))
    return _chart(
        f"accuracy-{rewind}",
        f"Test accuracy, rewound to step {rewind:,}",
        "bars: 95% interval over seeds; broken line: the dense network",
        own,
        linear(max(min(*ends, level), 0.0), min(max(*ends, level), 1.0), percent_tick),
        series,
        _points,
    )


def early_stop_chart(cells: Cells, dense: Dense) -> Chart | None:
    """The step at which validation loss is least, by weights left; the first rewind point."""
    first, level = min((cell.rewind for cell in cells), default=0), dense.early_stop_step
    own = [cell for cell in cells if cell.rewind == first and cell.early_stop_step is not None]
    if len(own) < 2 or level is None:
        return None
    series = [_flat(own, level)]
    for kind, found in _by_kind(own).items():
        steps = [cell.early_stop_step or 0.0 for cell in found]
        series.append(_line(kind, _COLOURS[kind], found, steps))
    return _chart(
        "early-stop",
        "Early stopping",
        f"step of the least validation loss, rewound to step {first:,}",
        own,
        linear(0.0, max(level, *(cell.early_stop_step or 0.0 for cell in own)), plain),
        series,
        lambda value: plain(round(value)),
    )


def instability_chart(cells: Cells) -> Chart | None:
    """Error barrier between two orders of the data, a line for each rewind point."""
    own = [cell for cell in cells if cell.instability is not None]
    if not own:
        return None
    colours = list(_COLOURS.values())
    series, values = [], [cell.instability or 0.0 for cell in own]
    for number, rewind in enumerate(sorted({cell.rewind for cell in own})):
        found = _by_left(cell for cell in own if cell.rewind == rewind)
        barriers = [cell.instability or 0.0 for cell in found]
        colour = colours[number % len(colours)]
        series.append(_line(f"rewound to {rewind:,}", colour, found, barriers))
    return _chart(
        "instability",
        "Instability",
        "error barrier on the line between two orders of the data; 0 is stable",
        own,
        linear(min(0.0, *values), max(*values, 0.01), percent_tick),
        series,
        _points,
    )


def _chart(
    name: str, title: str, note: str, cells: Cells, y: Axis, series: list[Series], write: Format
) -> Chart:
    left = sorted({cell.left for cell in cells}, reverse=True)
    return Chart(
        id=name,
        title=title,
        note=note,
        summary=f"{title} at {', '.join(percent(value) for value in left)} of the weights.",
        x=_left_axis(cells),
        y=y,
        x_label="weights left (log scale)",
        series=series,
        write=write,
        head=lambda value: f"{percent(value)} of weights",
    )


def _left_axis(cells: Cells) -> Axis:
    """From all weights at the left to the fewest at the right; none at all a decade further."""
    left = sorted({cell.left for cell in cells}, reverse=True)
    some = min((value for value in left if value > 0), default=1.0)
    axis = Axis(low=1.0, high=some / 1.05 if min(left) > 0 else some / 10, log=True)
    every = -(-len(left) // _LABELS)
    named = [1.0, *left[::-1][::every][::-1]]
    return axis.ticked(named, lambda value: percent_tick(float(f"{value:.2g}")))


def _by_left(cells: Any) -> list[CellFigures]:
    return sorted(cells, key=lambda cell: -cell.left)


def _by_kind(cells: Cells) -> dict[str, list[CellFigures]]:
    found: dict[str, list[CellFigures]] = {}
    for cell in _by_left(cells):
        found.setdefault(cell.kind, []).append(cell)
    return found


def _line(name: str, colour: str, cells: Cells, values: Sequence[float], **ends: Any) -> Series:
    x = [cell.left for cell in cells]
    return Series(name=name, x=x, y=values, colour=colour, dots=True, **ends)


def _flat(cells: Cells, value: float) -> Series:
    """The dense network, as a level; held from the sparsest network on, it is known everywhere."""
    x = _left_axis(cells)
    return Series(name="dense", x=[x.high, x.low], y=[value] * 2, colour="test", held=True)
