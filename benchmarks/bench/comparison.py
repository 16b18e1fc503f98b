"""Sixfold beside its peers and beside the limit, one row a case: samples, medians and ratios.

Contenders take turns, and a ratio is taken between samples of the same turn: what else the machine
did then fell on both.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Sample = float | None
"""A measurement; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    least: float
    most: float


def spread(samples: Sequence[float]) -> Spread:
    """Median, least and most.

    >>> spread([3.0, 1.0, 2.0, 10.0])
    Spread(median=2.5, least=1.0, most=10.0)
    """
    return Spread(median=statistics.median(samples), least=min(samples), most=max(samples))


@dataclass(kw_only=True)
class Comparison:
    """What was measured."""

    title: str
    unit: str  # of the samples
    form: str  # how a sample is written, such as ``,.0f``
    less_is_better: bool  # times are; rates are not
    what: Mapping[str, str]  # contender -> what exactly runs; the first is Sixfold
    limit_name: str = ""
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)  # one a repeat
    limits: dict[str, float] = field(default_factory=dict)  # row -> the machine's, in the same unit
    failures: dict[str, list[str]] = field(default_factory=dict)  # contender -> why, each time
    notes: list[str] = field(default_factory=list)
    rivals: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Contender -> peers of which the fastest is what it is held against."""

    @property
    def contenders(self) -> tuple[str, ...]:
        """Their names, Sixfold first."""
        return tuple(self.what)

    @property
    def rows(self) -> list[str]:
        """The cases, in the order in which they were first measured."""
        return list(dict.fromkeys(row for _, row in self.samples))

    def add(self, contender: str, row: str, sample: Sample) -> None:
        """Note a measurement, or that there is none."""
        self.samples.setdefault((contender, row), []).append(sample)

    def extend(self, contender: str, row: str, samples: Iterable[Sample]) -> None:
        """Note several."""
        for sample in samples:
            self.add(contender, row, sample)

    def fail(self, contender: str, row: str, reason: str) -> None:
        """Note that a measurement failed."""
        self.failures.setdefault(contender, []).append(reason)
        self.add(contender, row, None)

    def is_out(self, contender: str) -> bool:
        """Whether to try no more: it failed the first time, or twice."""
        failed = len(self.failures.get(contender, []))
        return failed >= 2 or (failed == 1 and not self._succeeded(contender))

    def troubles(self) -> list[str]:
        """A line for each contender that failed: absent, or how often."""
        lines = []
        for name, reasons in self.failures.items():
            good = self._succeeded(name)
            often = f"failed {len(reasons)} of {len(reasons) + good} times" if good else "absent"
            lines.append(f"{name} {often}: {reasons[-1]}")
        return lines

    def _succeeded(self, contender: str) -> int:
        found = [samples for (name, _), samples in self.samples.items() if name == contender]
        return sum(sample is not None for samples in found for sample in samples)

    def forget(self, row: str) -> None:
        """Drop what was measured in a case."""
        for name in self.contenders:
            self.samples.pop((name, row), None)

    def spread(self, contender: str, row: str) -> Spread | None:
        """Median, least and most of a contender in a case."""
        good = [sample for sample in self.samples.get((contender, row), []) if sample is not None]
        return spread(good) if good else None

    def fastest(self, contender: str, row: str) -> str | None:
        """Of a contender's rivals the one whose median is best."""
        found = {name: self.spread(name, row) for name in self.rivals.get(contender, ())}
        medians = {name: value.median for name, value in found.items() if value is not None}
        best = min if self.less_is_better else max
        return best(medians, key=lambda name: medians[name]) if medians else None

    def ratio(self, peer: str, row: str, contender: str | None = None) -> Spread | None:
        """How many times better a contender (Sixfold if absent) is than a peer, each repeat."""
        own = self.samples.get((contender or self.contenders[0], row), [])
        pairs = [
            theirs / mine if self.less_is_better else mine / theirs
            for mine, theirs in zip(own, self.samples.get((peer, row), []), strict=False)
            if mine and theirs
        ]
        return spread(pairs) if pairs else None

    def share(self, row: str) -> float | None:
        """Which part of the limit Sixfold reaches."""
        own, limit = self.spread(self.contenders[0], row), self.limits.get(row)
        if own is None or not limit or not own.median:
            return None
        return limit / own.median if self.less_is_better else own.median / limit


def table(found: Comparison) -> list[str]:
    """The comparison as lines of text; a ratio above 1 means that Sixfold is better.

    >>> found = Comparison(title="copies", unit="us", form=".0f", less_is_better=True,
    ...                    what={"sixfold": "", "peer": ""})
    >>> found.extend("sixfold", "4 KB", [1.0, 2.0]); found.extend("peer", "4 KB", [4.0, 4.0])
    >>> for line in table(found): print(line)
    copies, us: median (least - most)
           sixfold     peer          vs peer
    4 KB  2 (1 - 2)  4 (4 - 4)  3.00 (2.00 - 4.00)
    """
    own, *peers = found.contenders
    has_limits = bool(found.limits)
    head = ["", own, *peers, *(f"vs {peer}" for peer in peers)]
    head += [f"{name} vs the fastest" for name in found.rivals]
    head += [found.limit_name or "limit", "share of it"] if has_limits else []
    lines = [head]
    for row in found.rows:
        cells = [row] + [_write(found.spread(name, row), found.form) for name in found.contenders]
        cells += [_write(found.ratio(peer, row), ".2f") for peer in peers]
        for name in found.rivals:
            fastest = found.fastest(name, row)
            ratio = None if fastest is None else found.ratio(fastest, row, name)
            cells.append(_write(ratio, ".2f") + (f" {fastest}" if ratio else ""))
        if has_limits:
            share, limit = found.share(row), found.limits.get(row)
            cells.append("" if limit is None else f"{limit:{found.form}}")
            cells.append("" if share is None else f"{share:.0%}")
        lines.append(cells)
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    written = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [f"{cell:^{width}}" for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    ]
    return [
        f"{found.title}, {found.unit}: median (least - most)",
        *written,
        *found.notes,
        *found.troubles(),
    ]


def _write(value: Spread | None, form: str) -> str:
    if value is None:
        return "absent"
    return f"{value.median:{form}} ({value.least:{form}} - {value.most:{form}})"


def as_json(found: Comparison) -> dict[str, object]:
    """The comparison as plain data: every sample, and what follows from them."""
    own, *peers = found.contenders
    return {
        "title": found.title,
        "unit": found.unit,
        "less_is_better": found.less_is_better,
        "what": dict(found.what),
        "limit": found.limit_name,
        "notes": list(found.notes),
        "failures": dict(found.failures),
        "rows": [
            {
                "case": row,
                "measured": {
                    name: {
                        "samples": found.samples.get((name, row), []),
                        **plain(found.spread(name, row)),
                    }
                    for name in (own, *peers)
                },
                "ratios": {peer: plain(found.ratio(peer, row)) for peer in peers},
                "fastest": {name: found.fastest(name, row) for name in found.rivals},
                "limit": found.limits.get(row),
                "share_of_limit": found.share(row),
            }
            for row in found.rows
        ],
    }


def plain(value: Spread | None) -> dict[str, float]:
    """A spread as plain data; empty if there is none."""
    if value is None:
        return {}
    return {"median": value.median, "least": value.least, "most": value.most}
