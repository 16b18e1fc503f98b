"""The one model of a page: sections of charts, tables, bars, matrices and pictures.

A feature builds a `Page` from its figures; one template and one style sheet show it.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sixfold.core.console.tables import aligned
from sixfold.core.html.axes import Tick
from sixfold.core.html.charts import Chart
from sixfold.core.html.frame import render_page
from sixfold.core.html.settings import setting_sections

Figure = tuple[str, str, str]  # a key figure: its name, its value, a line of detail
Keys = Sequence[tuple[str, str]]  # what colours stand for: a name and the colour's class


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a bar: its length and where it begins in percent, and its colour's class."""

    colour: str
    width: float
    left: float = 0.0
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table or matrix."""

    text: str = ""
    detail: str = ""  # in smaller print
    css: str = ""
    title: str = ""  # for a pointer that rests on it
    strength: float | None = None  # depth of a matrix' colour, 0 to 1
    parts: Sequence[Part] = ()  # a stacked bar

    @property
    def line(self) -> str:
        """As text: of a bar its three longest parts."""
        longest = sorted(self.parts, key=lambda part: -part.width)[:3]
        return self.text or ", ".join(part.title for part in longest)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text, shown on a page and on the terminal."""

    head: Sequence[str] = ()
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""
    detail: str = ""  # after the title, in smaller print
    note: str = ""
    texts: Collection[int] = (0,)  # columns of words; the others hold figures
    groups: Sequence[tuple[str, int]] = ()  # a line above the head: a name and its columns
    row_css: Sequence[str] = ()
    keys: Keys = ()
    css: str = "rows"
    kind = "table"

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows as cells."""
        return [[c if isinstance(c, Cell) else Cell(text=c) for c in row] for row in self.rows]

    @property
    def names(self) -> list[str]:
        """The columns' names, with those of their groups."""
        groups = [name for name, span in self.groups for _ in range(span)] or [""] * len(self.head)
        return [
            f"{group}: {name}".removeprefix(": ")
            for group, name in zip(groups, self.head, strict=True)
        ]

    def lines(self) -> list[str]:
        r"""The table as lines of text.

        >>> table = Table(title="t", head=("a", "b"), rows=[("x", "10"), ("yy", "2")])
        >>> print("\n".join(table.lines()))
        t
        a    b
        x   10
        yy   2
        """
        rows = [[cell.line for cell in row] for row in self.cells]
        above = [f"{self.title} ({self.detail})" if self.detail else self.title, self.note]
        head = [list(self.head)] if self.head else []
        return [line for line in above if line] + aligned([*head, *rows], self.texts)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Cells coloured by their strength; None where there is nothing."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    title: str = ""
    detail: str = ""
    corner: Sequence[str] = ()  # what rows and columns are
    css: str = ""
    kind = "matrix"


@dataclass(frozen=True, kw_only=True)
class MatrixPicture:
    """A confusion matrix too large for numbers: a picture with a pixel for each cell."""

    title: str
    uri: str
    names: Sequence[str]
    labels: Sequence[Tick]  # some names, and where each is from the top
    counts: Sequence[Sequence[int]]  # rows as [column, count, column, count, ...]
    kind = "matrix_picture"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar: values of its parts with their colours, and the figure next to it."""

    name: str
    parts: Sequence[tuple[float, str]]
    text: str
    detail: str = ""
    foot: str = ""  # a line below it
    span: tuple[float, float] | None = None  # of an interval
    estimated: bool = False

    @property
    def total(self) -> float:
        """Sum of its parts."""
        return sum(value for value, _ in self.parts)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars from top to bottom; the longest takes all the width, unless `most` says otherwise."""

    title: str = ""
    detail: str = ""
    note: str = ""
    bars: Sequence[Bar]
    keys: Keys = ()
    log: bool = False  # lengths by their logarithm; such bars have one part
    most: float | None = None
    foot: str = ""
    kind = "bars"

    def drawn(self) -> list[tuple[Bar, list[Part], Part | None]]:
        """Each bar with its parts, and its interval."""
        totals = [bar.total for bar in self.bars if bar.total > 0]
        most = self.most or max(totals, default=1.0)
        least = min(totals, default=1.0)
        found = []
        for bar in self.bars:
            parts, left = [], 0.0
            for value, colour in bar.parts:
                width = _log_place(value, least, most) if self.log else 100 * value / most
                parts.append(Part(colour=colour, left=round(left, 2), width=round(width, 2)))
                left += width
            span = None
            if bar.span:
                low, high = (min(100 * end / most, 100.0) for end in bar.span)
                span = Part(colour="", left=round(low, 2), width=round(high - low, 2))
            found.append((bar, parts, span))
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


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as a data URI; `width` and `height` in CSS pixels, 0 for its own size."""

    uri: str
    alt: str
    width: int = 0
    height: int = 0
    small: bool = False  # whether its pixels are shown as squares


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A sheet of pictures: each entry has pictures and lines of text, (text, class)."""

    entries: Sequence[tuple[Sequence[Picture], Sequence[tuple[str, str]]]]
    css: str = "sheet"
    kind = "pictures"


@dataclass(frozen=True, kw_only=True)
class PictureRows:
    """Pictures in rows with a name each; below each picture a text and its class."""

    title: str
    detail: str
    rows: Sequence[tuple[str, Sequence[tuple[Picture, str, str]]]]
    kind = "picture_rows"


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A flame plot: blocks (part, row from the top, name, depth of colour)."""

    blocks: Sequence[tuple[Part, int, str, float]]
    keys: Keys = ()
    kind = "flame"


@dataclass(frozen=True, kw_only=True)
class Text:
    """Paragraphs, and links (text, address) below them."""

    lines: Sequence[str] = ()
    links: Keys = ()
    css: str = ""
    kind = "text"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Blocks behind a line that opens them."""

    summary: str
    blocks: Sequence[Any]
    open: bool = False
    kind = "fold"


@dataclass(frozen=True, kw_only=True)
class Card:
    """Blocks in one frame."""

    blocks: Sequence[Any]
    css: str = ""
    title: str = ""
    keys: Keys = ()
    inner: str = ""  # classes that lay its blocks out
    kind = "card"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page: blocks side by side (`grid`), below each other (`stack`)."""

    title: str = ""
    blocks: Sequence[Any] = ()
    lead: str = ""
    keys: Keys = ()  # below the lead
    id: str = ""
    css: str = "stack"
    mark: str = ""  # a warning after the title
    frame: bool = True  # whether each block has a card around it


@dataclass(kw_only=True)
class Page:
    """A page; sections without blocks are left out."""

    title: str
    eyebrow: str
    heading: str
    subtitle: str = ""
    state: str = ""  # after the heading, such as "finished"
    good: bool = True  # whether the state is
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    sections: Sequence[Section] = field(default_factory=list)
    navigation: bool = False
    files: str = ""  # what lies next to the page

    def html(self) -> str:
        """The page as text."""
        shown = [s for s in self.sections if s.blocks]
        return render_page(page=self, sections=shown)

    def charts(self) -> list[Chart]:
        """Its charts, in order."""
        return [c for s in self.sections for b in s.blocks for c in _charts(b)]


def _charts(block: Any) -> Iterator[Chart]:
    if isinstance(block, Chart):
        yield block
    for inner in getattr(block, "blocks", ()):
        yield from _charts(inner)


def pairs(rows: Sequence[tuple[str, str]], title: str = "") -> Table:
    """Names and what they stand for."""
    return Table(title=title, rows=rows, texts=(0, 1), css="")


def configuration(
    config: Mapping[str, Mapping[str, Any]],
    tree: type[Any],
    versions: Sequence[tuple[str, str]],
    *more: Table,
) -> Section:
    """The settings by section, those that differ from their default marked, and versions."""
    cards = [
        Table(
            title=section,
            rows=[
                [
                    Cell(text=one.name, title=one.doc, css="code"),
                    Cell(text=one.value, title=f"default: {one.default}" if one.changed else ""),
                ]
                for one in settings
            ],
            row_css=["changed" if one.changed else "" for one in settings],
            texts=(0, 1),
            css="",
        )
        for section, settings in setting_sections(config, tree)
    ]
    tables = [table for table in (pairs(versions, "Versions"), *more) if table.rows]
    return Section(
        id="settings",
        title="Configuration",
        lead="Highlighted settings differ from their default." if cards else "",
        blocks=[*cards, *tables],
        css="settings",
    )
