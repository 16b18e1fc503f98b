"""Speed-up, efficiency, and the laws of Amdahl, Gustafson and Ernest, from timed trainings.

With r(n) the images/s on n workers, all other settings equal,

    S(n) = r(n) / r(1)        E(n) = S(n) / n.

Ratios are of the same repeat, so that what changes on the machine between repeats cancels. The time
of a step is T = batch / r. Amdahl's law is fitted over the workers at a fixed batch (strong
scaling): T(n) = T1 (s + (1 - s)/n), and bounds S by 1/s. Gustafson's (J. L. Gustafson, 1988) is
fitted where the batch grows with the workers, b images for each (weak scaling), to the scaled
speed-up S(n) = r(n, n b) / r(1, b) = n - s (n - 1). Ernest's over workers and batch sizes together,
or of whole trainings over workers and images, in the source's own sense.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.studies.sweep.fits import (
    AMDAHL,
    ERNEST,
    Estimate,
    FittedLaw,
    ScaledPoint,
    Setting,
    Spread,
    fit,
    resampled,
)

AMOUNTS = ("max_images", "epochs", "steps")  # settings that say how much is trained


@dataclass(frozen=True, kw_only=True)
class Point:
    """A combination that was timed."""

    values: Mapping[str, Any]  # what is varied, by name
    workers: int
    batch_size: int  # images of a step
    rates: tuple[float, ...]  # images/s of each repeat
    images: int = 0  # that the training saw in all
    # Seconds of each repeat from its start to its last step, start-up included.
    whole_s: tuple[float, ...] = ()

    @property
    def step_s(self) -> list[float]:
        """Seconds of a step, of each repeat."""
        return [self.batch_size / rate for rate in self.rates]

    @property
    def place(self) -> dict[str, int]:
        """Which it is, among the points of a law."""
        return {"workers": self.workers, "batch_size": self.batch_size, "images": self.images}

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


def speedups(own: Sequence[Point]) -> list[tuple[Spread, Spread] | None]:
    """S and E of each point of a series; None where there is no run on one worker."""
    alone = next((point for point in own if point.workers == 1), None)
    if alone is None:
        return [None] * len(own)
    found: list[tuple[Spread, Spread] | None] = []
    for point in own:
        ratios = [many / one for many, one in zip(point.rates, alone.rates, strict=False)]
        found.append((Spread.of(ratios), Spread.of([ratio / point.workers for ratio in ratios])))
    return found


def _varies(own: Sequence[Point], *fields: str) -> bool:
    return all(len({getattr(point, field) for point in own}) > 1 for field in fields)


def amdahl(own: Sequence[Point], draws: int) -> FittedLaw | None:
    """Amdahl's law over a series; None with fewer than two numbers of workers.

    With two numbers of workers the law goes through both whatever they are: `exact` says so.
    """
    if not _varies(own, "workers"):
        return None
    settings = [{"n": float(point.workers)} for point in own]
    samples = [point.step_s for point in own]
    found = fit(AMDAHL, settings, samples, draws=draws)
    part = float(found.coefficients[0] / found.coefficients.sum())
    drawn = found.draws[:, 0] / found.draws.sum(1)
    return found.fitted(
        settings,
        samples,
        [point.place for point in own],
        values=dict(own[0].others("workers")),
        serial_part=Estimate.of(part, drawn),
        most_speedup=None if part == 0 else 1 / part,
    )


def ernest(own: Sequence[Point], draws: int) -> FittedLaw | None:
    """Ernest's law over workers and batch sizes; None with fewer than two of either."""
    if not _varies(own, "workers", "batch_size"):
        return None
    sizes, samples = [point.batch_size for point in own], [point.step_s for point in own]
    return _ernest(own, sizes, samples, draws, values=dict(own[0].others("workers", "batch_size")))


def ernest_whole(own: Sequence[Point], draws: int) -> FittedLaw | None:
    """The same of whole trainings over workers and images; None with fewer than two of either."""
    if not _varies(own, "workers", "images"):
        return None
    values = dict(own[0].others("workers", *AMOUNTS))
    sizes, samples = [point.images for point in own], [point.whole_s for point in own]
    return _ernest(own, sizes, samples, draws, law="ernest, whole trainings", values=values)


def _ernest(
    own: Sequence[Point],
    sizes: Sequence[int],
    samples: Sequence[Sequence[float]],
    draws: int,
    **more: Any,
) -> FittedLaw:
    settings: list[Setting] = [
        {"n": float(point.workers), "size": float(size)}
        for point, size in zip(own, sizes, strict=True)
    ]
    found = fit(ERNEST, settings, samples, draws=draws)
    return found.fitted(settings, samples, [point.place for point in own], **more)


def gustafson(own: Sequence[Point], draws: int) -> list[FittedLaw]:
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


def _gustafson(alone: Point, scaled: Sequence[Point], draws: int) -> FittedLaw:
    n = np.array([point.workers for point in scaled], np.float64)

    def part(speedup: Any) -> Any:
        # Least squares of S = n - s (n - 1), one column a draw.
        slope = (n - 1)[:, None]
        return np.clip((slope * (n[:, None] - speedup)).sum(0) / (slope**2).sum(), 0, None)

    middle = np.array([np.median(point.rates) / np.median(alone.rates) for point in scaled])
    serial = float(part(middle[:, None])[0])
    drawn = np.empty(0)
    if draws and len(alone.rates) > 1:
        samples = [alone.rates, *(point.rates for point in scaled)]
        again = resampled(samples, draws, np.random.Generator(np.random.Philox(0)))
        drawn = part((again[:, 1:] / again[:, :1]).T)
    return FittedLaw(
        law="gustafson",
        formula="S = n - s (n - 1)",
        values=dict(alone.others("workers", "batch_size")),
        batch_per_worker=alone.batch_size,
        serial_part=Estimate.of(serial, drawn),
        exact=len(scaled) == 1,
        points=[
            ScaledPoint(
                workers=point.workers,
                batch_size=point.batch_size,
                measured=Spread.of([a / b for a, b in zip(point.rates, alone.rates, strict=False)]),
                predicted=point.workers - serial * (point.workers - 1),
            )
            for point in scaled
        ],
    )
