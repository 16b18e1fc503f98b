"""The arithmetic of a comparison: medians with their range, and ratios repeat by repeat."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: the middle one.
        least: the smallest.
        most: the largest.
    """

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
class Results:
    """What was measured: images/s of each contender at each batch size.

    Attributes:
        contenders: their names; the first is Sixfold.
        batches: batch sizes.
        steps: batch size -> steps of each measurement.
        samples: (contender, batch size) -> images/s, one per repeat; None where there is none.
        failures: contender -> why it could not be measured, each time.
        limit: images/s that the machine's measured matrix products would allow; 0 if not measured.
    """

    contenders: tuple[str, ...]
    batches: tuple[int, ...]
    steps: dict[int, int] = field(default_factory=dict)
    samples: dict[tuple[str, int], list[float | None]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)
    limit: float = 0.0

    def add(self, contender: str, batch: int, rate: float) -> None:
        """Note a measurement."""
        self._append(contender, batch, rate)

    def skip(self, contender: str, batch: int) -> None:
        """Note that a repeat went without this contender."""
        self._append(contender, batch, None)

    def _append(self, contender: str, batch: int, rate: float | None) -> None:
        self.samples.setdefault((contender, batch), []).append(rate)

    def fail(self, contender: str, batch: int, reason: str) -> None:
        """Note that a measurement failed."""
        self.failures.setdefault(contender, []).append(reason)
        self._append(contender, batch, None)

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
        return sum(
            rate is not None
            for (name, _), found in self.samples.items()
            if name == contender
            for rate in found
        )

    def fastest(self, batch: int) -> float:
        """The highest images/s of anyone at a batch size."""
        found = [self.rates(name, batch) for name in self.contenders]
        return max(rate.most for rate in found if rate)

    def forget(self, batch: int) -> None:
        """Drop what was measured at a batch size."""
        for name in self.contenders:
            self.samples.pop((name, batch), None)

    def rates(self, contender: str, batch: int) -> Spread | None:
        """Images/s of a contender, or None if it was never measured."""
        good = [rate for rate in self.samples.get((contender, batch), []) if rate is not None]
        return spread(good) if good else None

    def share(self, batch: int) -> float | None:
        """Which part of the limit Sixfold reaches."""
        own = self.rates(self.contenders[0], batch)
        return own.median / self.limit if own and self.limit else None

    def ratios(self, peer: str, batch: int) -> Spread | None:
        """Sixfold's images/s over the peer's, of the same repeat: the machine's mood cancels."""
        own = self.samples.get((self.contenders[0], batch), [])
        others = self.samples.get((peer, batch), [])
        pairs = [
            mine / theirs
            for mine, theirs in zip(own, others, strict=False)
            if mine is not None and theirs
        ]
        return spread(pairs) if pairs else None


def steps_for(seconds: float, rate: float, batch: int, first_timed_step: int) -> int:
    """Steps that take about so long at so many images/s, and at least five timed ones.

    >>> steps_for(5.0, 2000.0, 100, 3), steps_for(5.0, 2000.0, 2000, 3)
    (103, 8)
    """
    return first_timed_step + max(5, round(seconds * rate / batch))


def table(results: Results) -> list[str]:
    """The results as lines of text; a ratio above 1 means that Sixfold is faster."""
    peers = results.contenders[1:]
    head = ["batch", *results.contenders, *(f"vs {peer}" for peer in peers)]
    head += ["of the limit"] if results.limit else []
    rows = [head]
    for batch in results.batches:
        rates = [_write(results.rates(name, batch), ",.0f") for name in results.contenders]
        ratios = [_write(results.ratios(peer, batch), ".2f") for peer in peers]
        share = results.share(batch)
        limit = [] if not results.limit else ["" if share is None else f"{share:.0%}"]
        rows.append([str(batch), *rates, *ratios, *limit])
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = ["images/s and ratios: median (least - most)"]
    lines += [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if results.limit:
        lines.append(f"limit: {results.limit:,.0f} images/s by the matrix products of these cores")
    return lines + results.troubles()


def _write(value: Spread | None, form: str) -> str:
    if value is None:
        return "absent"
    return f"{value.median:{form}} ({value.least:{form}} - {value.most:{form}})"


def as_json(results: Results) -> dict[str, object]:
    """The results as plain data: every sample, and what follows from them."""
    return {
        "contenders": list(results.contenders),
        "failures": dict(results.failures),
        "limit_images_per_s": results.limit,
        "rows": [
            {
                "batch": batch,
                "steps": results.steps.get(batch),
                "share_of_limit": results.share(batch),
                "images_per_s": {
                    name: {
                        "samples": results.samples.get((name, batch), []),
                        **_plain(results.rates(name, batch)),
                    }
                    for name in results.contenders
                },
                "ratios": {
                    peer: _plain(results.ratios(peer, batch)) for peer in results.contenders[1:]
                },
            }
            for batch in results.batches
        ],
    }


def _plain(value: Spread | None) -> Mapping[str, float]:
    if value is None:
        return {}
    return {"median": value.median, "least": value.least, "most": value.most}
