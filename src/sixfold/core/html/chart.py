"""A chart's geometry: what the page's template needs to lay it out, and paths from places.

A drawing is 1000 by 1000 units and is stretched to its frame; labels are text outside of it, so
that they keep their size on any screen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sixfold.core.html.axes import Axis
from sixfold.core.html.series import Floats


@dataclass(frozen=True, kw_only=True)
class Path:
    """One drawn line.

    Attributes:
        d: the SVG path.
        css: classes that give colour and weight.
    """

    d: str
    css: str


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a legend: a name and its colour's class."""

    name: str
    css: str


@dataclass(kw_only=True)
class Chart:
    """A chart ready to be laid out.

    Attributes:
        id: unique name.
        title: what is shown.
        note: how to read it, one line.
        summary: what a reader who cannot see it should know.
        x: horizontal axis.
        y: vertical axis.
        x_label: what x is.
        paths: lines, back to front.
        keys: the legend.
        marks: places of vertical lines (restarts), in percent of x.
        hover: for the script: `at` (places in percent), `head` (one text each) and `rows`
            (name, colour's class, one text each).
    """

    id: str
    title: str
    note: str
    summary: str
    x: Axis
    y: Axis
    x_label: str
    paths: list[Path] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)
    hover: dict[str, Any] = field(default_factory=dict)


def line_path(x: Floats, y: Floats) -> str:
    """An SVG path through places in [0, 1]; NaN breaks it; y points up.

    >>> line_path(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0]))
    'M0,1000L500,500 1000,0'
    """
    parts: list[str] = []
    for start, stop in _runs(np.isfinite(y)):
        points = [
            f"{short(1000 * px)},{short(1000 - 1000 * py)}"
            for px, py in zip(x[start:stop], y[start:stop], strict=True)
        ]
        # A lone point is a line of no length, which round ends make visible.
        parts.append(f"M{points[0]}L{' '.join(points[1:] or points)}")
    return "".join(parts)


def dots_path(x: Floats, y: Floats) -> str:
    """A path of lines without length, which round ends turn into dots.

    >>> dots_path(np.array([0.5]), np.array([0.25]))
    'M500,750h0'
    """
    return "".join(
        f"M{short(1000 * px)},{short(1000 - 1000 * py)}h0"
        for px, py in zip(x, y, strict=True)
        if np.isfinite(py)
    )


def _runs(good: np.ndarray[Any, np.dtype[np.bool_]]) -> list[tuple[int, int]]:
    """Half-open ranges in which `good` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def short(value: float) -> str:
    """A coordinate with one digit after the point where it needs one."""
    return f"{value:.1f}".removesuffix(".0")


def places(axis: Axis, values: Floats) -> list[float]:
    """Places of values on an axis in percent, as the script takes them."""
    return [round(float(v), 2) for v in 100 * axis.place(values)]
