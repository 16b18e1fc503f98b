"""The one model of a chart: series over two axes, drawn as SVG or returned as a plotly figure.

A drawing is 1000 by 1000 units and is stretched to its frame; labels are text outside of it, so
that they keep their size on any screen.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sixfold.core.html.axes import MISSING, Axis, Format, plain
from sixfold.core.html.series import Floats

# For series that stand for nothing in particular, in this order.
COLOURS = (
    *("training", "validation", "other", "update"),
    *("data", "communication", "waiting", "compute"),
)

Kind = Literal["line", "faint", "broken", "dots", "area"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """Values over places; NaN breaks a line."""

    name: str
    x: ArrayLike  # (n,); of an area the n + 1 edges of its steps
    y: ArrayLike  # (n,)
    colour: str = "training"  # a class of the style sheet
    kind: Kind = "line"
    dots: bool = False  # whether a line's points are marked
    low: ArrayLike = ()  # (n,) lower ends of error bars, or the lower edge of an area
    high: ArrayLike = ()
    key: bool = True  # whether the legend names it
    hover: bool = True
    held: bool = False  # whether a value holds up to the next one, as an evaluation's does

    @property
    def places(self) -> Floats:
        """(n,) where hover values are."""
        x = np.asarray(self.x, float)
        return (x[1:] + x[:-1]) / 2 if self.kind == "area" else x

    @property
    def values(self) -> Floats:
        """(n,) what hover values say: of an area its height."""
        y = np.asarray(self.y, float)
        return y - np.asarray(self.low, float) if self.kind == "area" and len(self._low) else y

    @property
    def _low(self) -> Floats:
        return np.asarray(self.low, float)

    def texts(self, at: Floats, write: Format) -> list[str]:
        """Its value at each place, or a dash where it has none."""
        x, y = self.places, self.values
        if self.held:
            order = np.argsort(x, kind="stable")
            latest = np.searchsorted(x[order], at, side="right") - 1
            return [write(float(y[order[k]])) if k >= 0 else MISSING for k in latest]
        known = {float(place): k for k, place in enumerate(x)}
        return [self._text(known.get(float(place)), write) for place in at]

    def _text(self, k: int | None, write: Format) -> str:
        if k is None or not math.isfinite(value := float(self.values[k])):
            return MISSING
        if self.kind == "area" or not len(self._low):
            return write(value)
        low, high = float(self._low[k]), float(np.asarray(self.high, float)[k])
        return f"{write(value)} ({write(low)} to {write(high)})"


class Path(NamedTuple):
    """An SVG path and the classes that give it colour and weight."""

    d: str
    css: str


class Key(NamedTuple):
    """An entry of a legend: a name and its colour's class."""

    name: str
    css: str


@dataclass(kw_only=True)
class Chart:
    """Series over two axes."""

    id: str  # unique on its page
    title: str
    note: str = ""  # how to read it, one line
    summary: str  # what a reader who cannot see it should know
    x: Axis
    y: Axis
    x_label: str
    series: list[Series] = field(default_factory=list)  # back to front
    write: Format = plain  # how hover values are written
    head: Callable[[float], str] = plain  # how a place is written above them
    restarts: Sequence[float] = ()  # places of vertical lines
    rows: list[tuple[str, str, list[str]]] | None = None
    """Hover values that are not the series' own: name, colour, a text for each place of the
    first series."""
    heads: list[str] | None = None  # for `rows`
    legend: bool = True  # whether the page shows one
    css: str = ""  # of its card: "low", "tall", "wide"
    kind = "chart"

    @property
    def keys(self) -> list[Key]:
        """The legend."""
        named = {s.name: s.colour for s in reversed(self.series) if s.key}
        return [Key(name=name, css=named[name]) for name in reversed(named)]

    @property
    def marks(self) -> list[float]:
        """Vertical lines, in percent of the width."""
        return [float(place) for place in 100 * self.x.place(np.asarray(self.restarts, float))]

    @property
    def paths(self) -> list[Path]:
        """What is drawn, back to front."""
        return [path for series in self.series for path in self._paths(series)]

    def _paths(self, s: Series) -> list[Path]:
        x, y = self.x.place(s.x), self.y.place(s.y)
        if s.kind == "area":
            low = self.y.place(s.low) if len(s._low) else np.zeros(len(y))
            return [Path(d=area_path(x, low, y), css=f"area {s.colour}")]
        if s.kind == "dots":
            return [Path(d=dots_path(x, y), css=f"dots {s.colour}")]
        css = {"line": "line", "faint": "raw", "broken": "line fit"}[s.kind]
        found = [Path(d=line_path(x, y), css=f"{css} {s.colour}")]
        if s.dots:
            found.append(Path(d=dots_path(x, y), css=f"dots {s.colour}"))
        if len(s._low):
            ends = self.y.place(s.low), self.y.place(s.high)
            d = "".join(
                f"M{short(1000 * at)},{short(1000 - 1000 * low)}V{short(1000 - 1000 * high)}"
                for at, low, high in zip(x, *ends, strict=True)
                if math.isfinite(low + high)
            )
            found.append(Path(d=d, css=f"line {s.colour}"))
        return found

    @property
    def hover(self) -> dict[str, Any]:
        """For the script: `at` (places in percent), and for each its `head` and its `rows`."""
        own = [s for s in self.series if s.hover]
        lead = [s for s in own if not s.held and s.kind != "broken"] or own
        if not lead:
            return {"at": [], "head": [], "rows": []}
        at = np.unique(np.concatenate([s.places for s in lead]))
        if self.rows is not None:
            at = lead[0].places
        places = self.x.place(at)
        order = np.argsort(places, kind="stable")
        rows = self.rows or [
            (s.name, s.colour, s.texts(at, self.write))
            for s in (own[::-1] if own[0].kind == "area" else own)
        ]
        heads = self.heads or [self.head(float(value)) for value in at]
        return {
            "at": [round(100 * float(places[k]), 2) for k in order],
            "head": [heads[k] for k in order],
            "rows": [[name, css, [texts[k] for k in order]] for name, css, texts in rows],
        }

    def figure(self) -> Any:
        """The chart as a `plotly.graph_objects.Figure`, for notebooks."""
        from plotly import graph_objects as go

        made = go.Figure()
        for s in self.series:
            made.add_trace(go.Scatter(**_trace(s)))
        for place in self.restarts:
            made.add_vline(place, line_dash="dot", line_color=colours()["faint"])
        for name, axis, title in (("xaxis", self.x, self.x_label), ("yaxis", self.y, "")):
            ends = [axis.low, axis.high]
            made.layout[name].update(
                type="log" if axis.log else "linear",
                range=[math.log10(end) for end in ends] if axis.log else ends,
                title=title,
                tickvals=[axis.value(tick.at) for tick in axis.ticks],
                ticktext=[tick.label for tick in axis.ticks],
            )
        made.update_layout(template="plotly_white", title=self.title, hovermode="x unified")
        return made


def _trace(s: Series) -> dict[str, Any]:
    x, y = np.asarray(s.x, float), np.asarray(s.y, float)
    colour = colours().get(s.colour, colours()["soft"])
    found: dict[str, Any] = {"name": s.name, "showlegend": s.key, "line": {"color": colour}}
    if s.kind == "area":
        low = s._low if len(s._low) else np.zeros(len(y))
        x = np.repeat(x, 2)[1:-1]
        outline = np.concatenate([np.repeat(y, 2), np.repeat(low, 2)[::-1]])
        found |= {"x": np.concatenate([x, x[::-1]]), "y": outline, "fill": "toself"}
        return found | {"mode": "lines", "hoveron": "fills"}
    found |= {"x": x, "y": y, "opacity": 0.3 if s.kind == "faint" else 1.0}
    found["mode"] = "markers" if s.kind == "dots" else "lines+markers" if s.dots else "lines"
    found["line"] |= {"dash": "dash"} if s.kind == "broken" else {}
    found["line"] |= {"shape": "hv"} if s.held and len(y) > 2 else {}
    found["marker"] = {"color": colour}
    if len(s._low):
        found["error_y"] = {"array": np.asarray(s.high, float) - y, "arrayminus": y - s._low}
    return found


@cache
def colours() -> dict[str, str]:
    """Class -> colour on a light ground, from the style sheet of the pages."""
    style = (resources.files(__package__) / "style.css").read_text(encoding="utf-8")
    light = style.partition("@media")[0]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))


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


def area_path(edges: Floats, low: Floats, high: Floats) -> str:
    """The outline of adjoining bars: along the tops to the right, along the bottoms back.

    `edges` (b + 1,) are the places of the borders, `low` and `high` (b,) those of bottoms and tops.
    """
    across = [short(1000 * place) for place in edges]
    up = [
        f"V{short(1000 - 1000 * top)}H{place}" for top, place in zip(high, across[1:], strict=True)
    ]
    back = [
        f"V{short(1000 - 1000 * bottom)}H{place}"
        for bottom, place in zip(low[::-1], across[-2::-1], strict=True)
    ]
    return f"M{across[0]},{short(1000 - 1000 * low[0])}{''.join(up)}{''.join(back)}Z"


def _runs(good: np.ndarray[Any, np.dtype[np.bool_]]) -> list[tuple[int, int]]:
    """Half-open ranges in which `good` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def short(value: float) -> str:
    """A coordinate with one digit after the point where it needs one."""
    return f"{value:.1f}".removesuffix(".0")
