"""What every benchmark leaves behind: a table on the terminal, JSON, and a page with bars."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.comparison import Comparison, as_json, table
from benchmarks.bench.contenders import cores
from sixfold.core.errors import UserError
from sixfold.core.files import write_atomically, write_json
from sixfold.core.version import versions
from sixfold.training.report import optional_page, render_page

Show = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a benchmark's files go, and when it began."""

    name: str
    folder: Path
    started: float  # Unix seconds
    load_before: tuple[float, float, float]


def begin(name: str, out: str | None) -> Place:
    """Make the folder, before anything is measured.

    Raises:
        UserError: if it cannot be made.
    """
    folder = Path(out or f"runs/bench-{name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be made ({error.strerror})") from error
    return Place(name=name, folder=folder, started=time.time(), load_before=os.getloadavg())


def publish(place: Place, settings: Any, found: Sequence[Comparison], show: Show) -> None:
    """Show the tables, and write NAME.json and NAME.html.

    Args:
        place: from `begin`.
        settings: the benchmark's options, a dataclass.
        found: what was measured.
        show: is given lines for a person to read.
    """
    for comparison in found:
        for line in table(comparison):
            show(line)
    record = {
        "benchmark": place.name,
        "started": place.started,
        "seconds": round(time.time() - place.started, 1),
        "settings": dataclasses.asdict(settings),
        "machine": platform.platform(),
        "cores": cores(),
        "load_average": {"before": place.load_before, "after": os.getloadavg()},
        "versions": versions(),
        "tables": [as_json(comparison) for comparison in found],
    }
    data, page = place.folder / f"{place.name}.json", place.folder / f"{place.name}.html"
    write_json(data, record)
    show(f"written: {data}")
    with optional_page(page):
        write_atomically(page, render(found, record).encode())
        show(f"written: {page}")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One contender in one case; lengths in percent of the longest of the case."""

    name: str
    own: bool  # whether it is Sixfold
    text: str  # the median, or why there is none
    width: float
    low: float  # where the range begins
    span: float  # how long the range is
    ratio: str  # how much better Sixfold is, or empty


def render(found: Sequence[Comparison], record: dict[str, Any]) -> str:
    """The page as text.

    Args:
        found: what was measured.
        record: facts of the run, as in the JSON.
    """
    sections = [
        {
            "title": comparison.title,
            "unit": comparison.unit,
            "better": "less" if comparison.less_is_better else "more",
            "notes": [*comparison.notes, *comparison.troubles()],
            "what": comparison.what,
            "limit_name": comparison.limit_name,
            "cases": [_case(comparison, row) for row in comparison.rows],
        }
        for comparison in found
    ]
    return render_page(__package__, "comparison.html", sections=sections, record=record)


def _case(found: Comparison, row: str) -> dict[str, Any]:
    spreads = [found.spread(name, row) for name in found.contenders]
    limit, share = found.limits.get(row), found.share(row)
    longest = max([s.most for s in spreads if s] + [limit or 0.0]) or 1.0
    return {
        "name": row,
        "bars": [_bar(found, name, row, longest) for name in found.contenders],
        "limit": None if limit is None else round(100 * limit / longest, 2),
        "limit_text": "" if limit is None else f"{limit:{found.form}}",
        "share": "" if share is None else f"{share:.0%} of the limit",
    }


def _bar(found: Comparison, name: str, row: str, longest: float) -> Bar:
    value, own = found.spread(name, row), name == found.contenders[0]
    if value is None:
        return Bar(name=name, own=own, text="absent", width=0, low=0, span=0, ratio="")
    ratio = None if own else found.ratio(name, row)
    words = "" if ratio is None else f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"
    return Bar(
        name=name,
        own=own,
        text=f"{value.median:{found.form}}",
        width=round(100 * value.median / longest, 2),
        low=round(100 * value.least / longest, 2),
        span=round(100 * (value.most - value.least) / longest, 2),
        ratio=f"sixfold is {words} times better" if words else "",
    )
