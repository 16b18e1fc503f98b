"""A study's findings as one HTML file: verdict, plots, tables, and what ran."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sixfold.core.html.frame import render_page
from sixfold.studies.lab.findings import Bars, Findings


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A bar as the template draws it.

    Attributes:
        name: what is measured.
        text: the figure beside it.
        parts: left edge and width in percent, and colour's class.
        estimated: whether it was extrapolated.
    """

    name: str
    text: str
    parts: list[tuple[float, float, str]]
    estimated: bool


def render(findings: Findings, record: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        findings: of the study.
        record: facts of the run, as in its JSON.
    """
    return render_page(
        __package__,
        "page.html",
        findings=findings,
        record=record,
        plots=[(bars, drawn(bars)) for bars in findings.bars],
    )


def drawn(plot: Bars) -> list[Drawn]:
    """The bars of a plot, laid out; the longest takes all the width."""
    totals = [bar.total for bar in plot.bars if bar.total > 0]
    most, least = max(totals, default=1.0), min(totals, default=1.0)
    found = []
    for bar in plot.bars:
        parts, left = [], 0.0
        for value, css in bar.parts:
            width = _log_place(value, least, most) if plot.log else 100 * value / most
            parts.append((round(left, 2), round(width, 2), css))
            left += width
        found.append(Drawn(name=bar.name, text=bar.text, parts=parts, estimated=bar.estimated))
    return found


def _log_place(value: float, least: float, most: float) -> float:
    """A length in percent: 4 for the least value, 100 for the greatest.

    >>> _log_place(1.0, 1.0, 100.0), _log_place(10.0, 1.0, 100.0)
    (4.0, 52.0)
    """
    if value <= 0:
        return 0.0
    span = math.log(most / least) or 1.0
    return 4 + 96 * math.log(value / least) / span
