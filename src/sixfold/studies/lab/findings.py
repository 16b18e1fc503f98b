"""What a study has found, in the form from which its table, its page and its JSON are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sixfold.core.html.charts import Chart
from sixfold.core.html.page import Bar, Bars, Table

__all__ = ["Bar", "Bars", "Findings", "Table", "megabytes", "millions", "ratio", "seconds"]


@dataclass(kw_only=True)
class Findings:
    """What a study has found."""

    title: str
    subtitle: str  # what was computed, and where
    verdict: list[str] = field(default_factory=list)  # what wins and why, a sentence a line
    right: bool = True  # whether every result that was checked was right
    tables: list[Table] = field(default_factory=list)  # shown on the terminal and on the page
    bars: list[Bars] = field(default_factory=list)  # plots of bars
    charts: list[Chart] = field(default_factory=list)  # plots of curves
    # what a reader must know besides, such as what was not run
    notes: list[str] = field(default_factory=list)
    # everything that was measured, as plain data
    data: dict[str, Any] = field(default_factory=dict)


def seconds(value: float) -> str:
    """A time in seconds with three significant digits.

    >>> seconds(0.01234), seconds(1.5), seconds(7384.2)
    ('0.0123', '1.50', '7,384')
    """
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - _magnitude(value))}f}"


def _magnitude(value: float) -> int:
    """Power of ten of the first digit."""
    return int(f"{value:e}".partition("e")[2]) if value else 0


def ratio(value: float) -> str:
    """How many times, with three significant digits.

    >>> ratio(2.25), ratio(1234.5), ratio(0.987)
    ('2.25x', '1,234x', '0.987x')
    """
    return f"{seconds(value)}x"


def megabytes(size: float) -> str:
    """Bytes in MB (10^6).

    >>> megabytes(0), megabytes(9700), megabytes(131_072_000)
    ('0', '0.010', '131')
    """
    if not size:
        return "0"
    return (
        f"{size / 1e6:.3f}"
        if size < 1e6
        else f"{size / 1e6:,.3g}"
        if size < 1e9
        else (f"{size / 1e6:,.0f}")
    )


def millions(count: float) -> str:
    """A count in millions.

    >>> millions(2_457_600_000), millions(96_000)
    ('2,458', '0.0960')
    """
    return seconds(count / 1e6)
