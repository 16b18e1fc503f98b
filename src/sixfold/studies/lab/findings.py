"""What a study has found, in the form from which its table, its page and its JSON are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sixfold.core.html.chart import Chart


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text.

    Attributes:
        title: what it shows.
        note: how to read it.
        head: names of the columns; the first column is text, the others are figures.
        rows: one cell a column.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

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
    """A bar of a plot.

    Attributes:
        name: what is measured.
        parts: values of its parts, stacked, each with its colour's class.
        text: the figure beside it.
        estimated: whether it was extrapolated.
    """

    name: str
    parts: tuple[tuple[float, str], ...]
    text: str
    estimated: bool = False

    @property
    def total(self) -> float:
        """Sum of its parts."""
        return sum(value for value, _ in self.parts)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A plot of bars.

    Attributes:
        title: what it shows.
        note: how to read it.
        bars: from top to bottom.
        keys: what each colour's class stands for.
        log: whether lengths are proportional to the logarithm; such bars have one part.
    """

    title: str
    note: str
    bars: list[Bar]
    keys: tuple[tuple[str, str], ...] = ()
    log: bool = False


@dataclass(kw_only=True)
class Findings:
    """What a study has found.

    Attributes:
        title: of its page.
        subtitle: what was computed, and where.
        verdict: what wins and why, a sentence a line.
        right: whether every result that was checked was right.
        tables: shown on the terminal and on the page.
        bars: plots of bars.
        charts: plots of curves.
        notes: what a reader must know besides, such as what was not run.
        data: everything that was measured, as plain data.
    """

    title: str
    subtitle: str
    verdict: list[str] = field(default_factory=list)
    right: bool = True
    tables: list[Table] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
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
