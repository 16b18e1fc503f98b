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
from sixfold.core.html.page import Bar, Bars, Card, Page, Section, pairs
from sixfold.core.version import versions
from sixfold.training.report import optional_page

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


def render(found: Sequence[Comparison], record: dict[str, Any]) -> str:
    """The page as text.

    Args:
        found: what was measured.
        record: facts of the run, as in the JSON.
    """
    sections = [
        Section(
            title=one.title,
            lead=f"{one.unit}; {'less' if one.less_is_better else 'more'} is better. Median, and "
            "from least to most. Ratios are of the same repeat. "
            + " ".join([*one.notes, *one.troubles()]),
            css="grid",
            blocks=[
                *(_case(one, row) for row in one.rows),
                Card(css="wide", blocks=[pairs(list(one.what.items()))]),
            ],
        )
        for one in found
    ]
    load = record["load_average"]["before"][0]
    return Page(
        title=f"python -m benchmarks.bench {record['benchmark']}",
        eyebrow="Sixfold benchmark",
        heading=f"python -m benchmarks.bench {record['benchmark']}",
        subtitle=f"{record['cores']} cores · {record['settings']['repeats']} repeats in turns · "
        f"{record['seconds']:.0f} s · load average before {load:.1f}",
        sections=[*sections, Section(title="Machine", blocks=[pairs(_machine(record))])],
        files=f"{record['benchmark']}.json next to it holds every sample.",
    ).html()


def _machine(record: dict[str, Any]) -> list[tuple[str, str]]:
    names = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return [("Machine", str(record["machine"])), ("Versions", names)]


def _case(found: Comparison, row: str) -> Bars:
    spreads = [found.spread(name, row) for name in found.contenders]
    limit, share = found.limits.get(row), found.share(row)
    details = _fastest(found, row) + ([] if share is None else [f"{share:.0%} of the limit"])
    bars = [_bar(found, name, row) for name in found.contenders]
    if limit is not None:
        text = f"{limit:{found.form}}"
        bars.append(Bar(name=found.limit_name, parts=((limit, "validation"),), text=text))
    return Bars(
        title=row,
        detail=", ".join(details),
        bars=bars,
        most=max([s.most for s in spreads if s] + [limit or 0.0]) or 1.0,
    )


def _fastest(found: Comparison, row: str) -> list[str]:
    """What each contender with rivals is compared with the fastest of them."""
    lines = []
    for name in found.rivals:
        peer = found.fastest(name, row)
        ratio = None if peer is None else found.ratio(peer, row, name)
        if ratio is not None:
            lines.append(f"{name} {ratio.median:.2f}x the fastest ({peer})")
    return lines


def _bar(found: Comparison, name: str, row: str) -> Bar:
    value, own = found.spread(name, row), name == found.contenders[0]
    if value is None:
        return Bar(name=name, parts=(), text="absent")
    ratio = None if own else found.ratio(name, row)
    words = "" if ratio is None else f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"
    return Bar(
        name=name,
        parts=((value.median, "length" if own else "peer"),),
        text=f"{value.median:{found.form}}",
        span=(value.least, value.most),
        foot=f"sixfold is {words} times better" if words else "",
    )
