"""What a study has found, in the form from which its table, its page and its JSON are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sixfold.core.html.charts import Chart


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text."""

    title: str
    note: str  # how to read it
    head: tuple[str, ...]  # names of the columns; the first column is text, the others are figures
    rows: Sequence[tuple[str, ...]]  # one cell a column

    def lines(self) -> list[str]:
        r"""The table as lines of text.

        >>> table = Table(title="t", note="", head=("a", "b"), rows=[("x", "10"), ("yy", "2")])
        >>> print("\n".join(table.lines()))
        t
        a    b
        x   10
        yy   2
        """
        cells = [self.head, *self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.head))]
        lines = [self.title, *([self.note] if self.note else [])]
        for row in cells:
            first, *rest = (
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join([first, *rest]).rstrip())
        return lines


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of a plot."""

    name: str
    # values of its parts, stacked, each with its colour's class
    parts: tuple[tuple[float, str], ...]
    text: str  # the figure beside it
    estimated: bool = False  # whether it was extrapolated

    @property
    def total(self) -> float:
        """Sum of its parts."""
        return sum(value for value, _ in self.parts)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A plot of bars."""

    title: str
    note: str  # how to read it
    bars: list[Bar]  # from top to bottom
    keys: tuple[tuple[str, str], ...] = ()  # what each colour's class stands for
    log: bool = False  # whether lengths are proportional to the logarithm; such bars have one part


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
