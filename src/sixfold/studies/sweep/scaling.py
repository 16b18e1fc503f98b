"""Speed-up, efficiency, and the laws of Amdahl, Gustafson and Ernest, from timed trainings.

With r(n) the images/s on n workers, all other settings equal,

    S(n) = r(n) / r(1)        E(n) = S(n) / n.

Ratios are of the same repeat, so that what changes on the machine between repeats cancels. The time
of a step is T = batch / r. Amdahl's law is fitted over the workers at a fixed batch (strong
scaling): T(n) = T1 (s + (1 - s)/n), and bounds S by 1/s. Gustafson's (J. L. Gustafson, 1988) is
fitted where the batch grows with the workers, b images for each (weak scaling), to the scaled
speed-up S(n) = r(n, n b) / r(1, b) = n - s (n - 1). Ernest's over workers and batch sizes together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.studies.sweep.fits import AMDAHL, ERNEST, Fit, fit, percentiles, resampled

AMOUNTS = ("max_images", "epochs", "steps")
"""Settings that say how much is trained."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A combination that was timed."""

    values: Mapping[str, Any]  # what is varied, by name
    workers: int
    batch_size: int  # images of a step
    rates: tuple[float, ...]  # images/s of each repeat
    images: int = 0  # that the training saw in all
    # seconds of each repeat from its start to its last step, start-up included
    whole_s: tuple[float, ...] = ()

    @property
    def step_s(self) -> list[float]:
        """Seconds of a step, of each repeat."""
        return [self.batch_size / rate for rate in self.rates]

    def others(self, *names: str) -> tuple[tuple[str, Any], ...]:
        """Values but for those of these names."""
        return tuple((name, value) for name, value in self.values.items() if name not in names)


def series(points: Sequence[Point], *names: str) -> list[list[Point]]:
    """Points that differ in nothing but these settings, by rising workers and batch."""
    found: dict[tuple[tuple[str, Any], ...], list[Point]] = {}
    for point in points:
        found.setdefault(point.others(*names), []).append(point)
    return [
        sorted(own, key=lambda point: (point.workers, point.batch_size)) for own in found.values()
    ]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": float(np.median(values)),
        "least": float(min(values)),
        "most": float(max(values)),
    }


def speedups(own: Sequence[Point]) -> list[dict[str, Any] | None]:
    """S and E of each point of a series; None where there is no run on one worker."""
    alone = next((point for point in own if point.workers == 1), None)
    if alone is None:
        return [None] * len(own)
    found: list[dict[str, Any] | None] = []
    for point in own:
        ratios = [many / one for many, one in zip(point.rates, alone.rates, strict=False)]
        found.append(
            {
                "speedup": spread(ratios),
                "efficiency": spread([ratio / point.workers for ratio in ratios]),
            }
        )
    return found


def amdahl(own: Sequence[Point], draws: int) -> dict[str, Any] | None:
    """Amdahl's law over a series; None with fewer than two numbers of workers.

    Returns:
        `serial_part` (s) with its interval, the bound on S that it sets, coefficients, and the
        prediction for each point. With two numbers of workers the law goes through both whatever
        they are: `exact` says so.
    """
    if len({point.workers for point in own}) < 2:
        return None
    settings = [{"n": float(point.workers)} for point in own]
    found = fit(AMDAHL, settings, [point.step_s for point in own], draws=draws)
    serial, parallel = found.coefficients
    part = float(serial / (serial + parallel))
    ends = None
    if len(found.draws):
        ends = percentiles(found.draws[:, 0] / found.draws.sum(1))
    return {
        **found.plain(),
        "values": dict(own[0].others("workers")),
        "serial_part": {
            "value": part,
            "low": None if ends is None else ends[0],
            "high": None if ends is None else ends[1],
        },
        "most_speedup": None if part == 0 else 1 / part,
        "exact": len(own) <= 2,
        "points": _predictions(found, own, settings),
    }


def ernest(own: Sequence[Point], draws: int) -> dict[str, Any] | None:
    """Ernest's law over workers and batch sizes; None with fewer than two of either."""
    if len({point.workers for point in own}) < 2 or len({point.batch_size for point in own}) < 2:
        return None
    settings = [{"n": float(point.workers), "size": float(point.batch_size)} for point in own]
    found = fit(ERNEST, settings, [point.step_s for point in own], draws=draws)
    return {
        **found.plain(),
        "values": dict(own[0].others("workers", "batch_size")),
        "exact": len(own) <= len(found.coefficients),
        "points": _predictions(found, own, settings),
    }


def ernest_whole(own: Sequence[Point], draws: int) -> dict[str, Any] | None:
    """Ernest's law of whole trainings over workers and images, in the source's own sense.

    Returns:
        None with fewer than two numbers of workers or of images.
    """
    if len({point.workers for point in own}) < 2 or len({point.images for point in own}) < 2:
        return None
    settings = [{"n": float(point.workers), "size": float(point.images)} for point in own]
    found = fit(ERNEST, settings, [point.whole_s for point in own], draws=draws)
    return {
        **found.plain(),
        "law": "ernest, whole trainings",
        "values": dict(own[0].others("workers", *AMOUNTS)),
        "exact": len(own) <= len(found.coefficients),
        "points": _predictions(found, own, settings, whole=True),
    }


def _predictions(
    found: Fit,
    own: Sequence[Point],
    settings: Sequence[Mapping[str, float]],
    *,
    whole: bool = False,
) -> list[dict[str, Any]]:
    rows = []
    for number, (point, setting) in enumerate(zip(own, settings, strict=True)):
        ends = found.interval(setting)
        held_out = None
        measured = spread(point.whole_s if whole else point.step_s)
        if len(found.held_out):
            held_out = (1 + float(found.held_out[number])) * measured["median"]
        rows.append(
            {
                "workers": point.workers,
                "batch_size": point.batch_size,
                "images": point.images,
                "measured_s": measured,
                "predicted_s": found.predict(setting),
                "low_s": None if ends is None else ends[0],
                "high_s": None if ends is None else ends[1],
                "held_out_s": held_out,
            }
        )
    return rows


def gustafson(own: Sequence[Point], draws: int) -> list[dict[str, Any]]:
    """Gustafson's law for each batch per worker that was run on one worker and on more."""
    found = []
    for alone in (point for point in own if point.workers == 1):
        scaled = [
            point
            for point in own
            if point.workers > 1 and point.batch_size == point.workers * alone.batch_size
        ]
        if scaled:
            found.append(_gustafson(alone, scaled, draws))
    return found


def _gustafson(alone: Point, scaled: Sequence[Point], draws: int) -> dict[str, Any]:
    n = np.array([point.workers for point in scaled], np.float64)

    def part(speedup: Any) -> Any:
        # Least squares of S = n - s (n - 1), one column a draw.
        slope = (n - 1)[:, None]
        return np.clip((slope * (n[:, None] - speedup)).sum(0) / (slope**2).sum(), 0, None)

    middle = np.array([np.median(point.rates) / np.median(alone.rates) for point in scaled])
    serial = float(part(middle[:, None])[0])
    ends = None
    if draws and len(alone.rates) > 1:
        again = resampled(
            [alone.rates, *(point.rates for point in scaled)],
            draws,
            np.random.Generator(np.random.Philox(0)),
        )
        ends = percentiles(part((again[:, 1:] / again[:, :1]).T))
    return {
        "law": "gustafson",
        "formula": "S = n - s (n - 1)",
        "values": dict(alone.others("workers", "batch_size")),
        "batch_per_worker": alone.batch_size,
        "serial_part": {
            "value": serial,
            "low": None if ends is None else ends[0],
            "high": None if ends is None else ends[1],
        },
        "exact": len(scaled) == 1,
        "points": [
            {
                "workers": point.workers,
                "batch_size": point.batch_size,
                "measured": spread([a / b for a, b in zip(point.rates, alone.rates, strict=False)]),
                "predicted": point.workers - serial * (point.workers - 1),
            }
            for point in scaled
        ],
    }
