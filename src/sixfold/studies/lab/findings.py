"""What a study has found, in the form from which its table, its page and its JSON are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sixfold.core.html.charts import Chart
from sixfold.core.html.page import Bars, Page, Section, Table, Text, pairs


@dataclass(kw_only=True)
class Findings:
    """What a study has found."""

    title: str
    subtitle: str  # what was computed, and where
    right: bool = True  # whether every result that was checked was right
    verdict: list[str] = field(default_factory=list)  # what wins and why, a sentence a line
    tables: list[Table] = field(default_factory=list)  # shown on the terminal and on the page
    bars: list[Bars] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else matters, such as what was not run
    result: Any = None  # a dataclass that holds everything that was measured

    def lines(self) -> list[str]:
        """What a person reads at the end."""
        tables = [line for table in self.tables for line in ("", *table.lines())]
        return [*tables, "", *self.verdict, *(f"note: {note}" for note in self.notes)]

    def page(self, record: Mapping[str, Any]) -> Page:
        """Verdict, plots, tables, and what ran: the facts of the run as in its JSON."""
        settings = [
            f"{name}={value}"
            for values in record["settings"].values()
            for name, value in values.items()
        ]
        ran = [
            ("Settings", " ".join(settings)),
            ("Machine", record["machine"]),
            ("Versions", ", ".join(f"{name} {v}" for name, v in record["versions"].items())),
        ]
        return Page(
            title=f"sixfold lab {record['study']}",
            eyebrow="Sixfold laboratory",
            heading=self.title,
            state="all results right" if self.right else "a result is wrong",
            good=self.right,
            subtitle=f"{self.subtitle} · {record['master']}, {record['slots']} slots · load "
            f"average before {record['load_average']['before'][0]:.1f}",
            notes=self.notes,
            sections=[
                Section(title="What wins, and why", blocks=[Text(lines=self.verdict)]),
                Section(blocks=[*self.bars, *self.charts]),
                Section(title="Figures", blocks=self.tables),
                Section(title="What ran", blocks=[pairs(ran)]),
            ],
            files=f"{record['study']}.json next to it holds every figure.",
        )


def seconds(value: float) -> str:
    """A time in seconds with three significant digits.

    >>> seconds(0.01234), seconds(1.5), seconds(7384.2)
    ('0.0123', '1.50', '7,384')
    """
    if value >= 1000:
        return f"{value:,.0f}"
    magnitude = int(f"{value:e}".partition("e")[2]) if value else 0
    return f"{value:.{max(0, 2 - magnitude)}f}"


def ratio(value: float) -> str:
    """How many times, with three significant digits.

    >>> ratio(2.25), ratio(1234.5), ratio(0.987)
    ('2.25x', '1,234x', '0.987x')
    """
    return f"{seconds(value)}x"


def megabytes(size: float) -> str:
    """Bytes in MB (10^6).

    >>> megabytes(0), megabytes(9700), megabytes(131_072_000), megabytes(2e9)
    ('0', '0.010', '131', '2,000')
    """
    if not size:
        return "0"
    digits = ".3f" if size < 1e6 else ",.3g" if size < 1e9 else ",.0f"
    return f"{size / 1e6:{digits}}"


def millions(count: float) -> str:
    """A count in millions.

    >>> millions(2_457_600_000), millions(96_000)
    ('2,458', '0.0960')
    """
    return seconds(count / 1e6)


def percent(part: float, whole: float) -> str:
    """A part in whole percent; nothing where the whole is not known."""
    return f"{100 * part / whole:.0f}" if whole else ""


def yes(right: bool) -> str:
    """Whether a result was right, as a cell of a table."""
    return "yes" if right else "NO"
