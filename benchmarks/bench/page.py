"""The benchmark's results as one HTML file: bars with their range, per batch size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.bench.figures import Results, Spread
from sixfold.training.report import render_page


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One contender at one batch size.

    Attributes:
        name: the contender.
        own: whether it is Sixfold.
        text: images/s, or why there is none.
        width: of the bar, in percent of the fastest.
        low: where its range begins, in percent.
        span: how long its range is, in percent.
        ratio: Sixfold's speed over this one's, or empty.
    """

    name: str
    own: bool
    text: str
    width: float
    low: float
    span: float
    ratio: str


def render(results: Results, record: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        results: what was measured.
        record: facts of the run, as in `train.json`.
    """
    known = [results.rates(name, b) for name in results.contenders for b in results.batches]
    most = max((rate.most for rate in known if rate), default=1.0)
    groups = [
        (
            batch,
            results.steps.get(batch, 0),
            _share(results.share(batch)),
            [_bar(results, n, batch, most) for n in results.contenders],
        )
        for batch in results.batches
    ]
    return render_page(
        __package__, "page.html", groups=groups, record=record, troubles=results.troubles()
    )


def _share(share: float | None) -> str:
    return "" if share is None else f", {share:.0%} of the matrix products' limit"


def _bar(results: Results, name: str, batch: int, most: float) -> Bar:
    rate = results.rates(name, batch)
    own = name == results.contenders[0]
    if rate is None:
        return Bar(name=name, own=own, text="absent", width=0, low=0, span=0, ratio="")
    ratio = None if own else results.ratios(name, batch)
    return Bar(
        name=name,
        own=own,
        text=f"{rate.median:,.0f}",
        width=round(100 * rate.median / most, 2),
        low=round(100 * rate.least / most, 2),
        span=round(100 * (rate.most - rate.least) / most, 2),
        ratio=_ratio(ratio),
    )


def _ratio(ratio: Spread | None) -> str:
    if ratio is None:
        return ""
    return f"sixfold is {ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f}) times as fast"
