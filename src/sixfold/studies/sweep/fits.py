"""Laws of run time, fitted with non-negative coefficients, and how far to trust them.

A law is a sum of features with non-negative coefficients, T = sum_k c_k f_k(n, size, ...). They are
found by non-negative least squares (C. L. Lawson, R. J. Hanson, 1974; scipy.optimize.nnls) on the
relative errors: each measurement's row is divided by its time, so that a configuration of a
millisecond counts as much as one of a second.

Ernest: S. Venkataraman et al., "Ernest: efficient performance prediction for large-scale advanced
analytics", NSDI 2016, T = a + b size/n + c log n + d n; it departs from the source in the relative
weights. Amdahl: T = T1 (s + (1 - s)/n). Intervals are those of a bootstrap over the repeats of each
configuration: what is drawn anew is the noise, not which configurations were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Floats = NDArray[np.float64]
Setting = Mapping[str, float]  # numbers that features are made of: `n` workers, `size`,
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What repeats of one measurement have given."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(
            median=float(np.median(values)), least=float(min(values)), most=float(max(values))
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95% interval, where repeats make one known."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float, draws: Floats, **more: str) -> Self:
        """From the value of each draw of the bootstrap, (draws,)."""
        low, high = percentiles(draws) if len(draws) else (None, None)
        return cls(value=float(value), low=low, high=high, **more)

    def __str__(self) -> str:
        ends = "" if self.low is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{self.value:.3g}{ends}"


@dataclass(frozen=True, kw_only=True)
class Coefficient(Estimate):
    """A coefficient of a law."""

    name: str


@dataclass(frozen=True, kw_only=True)
class LawPoint:
    """A measurement, and what the law says of it."""

    workers: int
    measured_s: Spread
    predicted_s: float
    low_s: float | None  # 95% interval of the prediction
    high_s: float | None
    held_out_s: float | None  # predicted from all other measurements
    batch_size: int | None = None  # of a training
    images: int | None = None  # that it saw in all
    kind: str = ""  # of a job's payload
    tasks: int | None = None
    moved_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ScaledPoint:
    """A speed-up that was measured, and what Gustafson's law says of it."""

    workers: int
    batch_size: int
    measured: Spread
    predicted: float


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """A law with its coefficients and, point by point, what it predicts."""

    law: str
    formula: str
    exact: bool  # whether there are no more measurements than coefficients
    coefficients: list[Coefficient] = field(default_factory=list)
    held_out_error: float | None = None
    held_out_configurations: int = 0
    points: list[LawPoint | ScaledPoint]
    values: dict[str, Any] = field(default_factory=dict)  # settings that all trainings share
    serial_part: Estimate | None = None
    most_speedup: float | None = None  # that the serial part allows
    batch_per_worker: int | None = None
    kind: str = ""  # of Spark's jobs: that of their payload
    outcome: str = ""  # "job": what the driver waits; "delay": of a task

    def value(self, name: str) -> float:
        """A coefficient."""
        return next(one.value for one in self.coefficients if one.name == name)


@dataclass(frozen=True, kw_only=True)
class Law:
    """A sum of features."""

    name: str
    formula: str
    features: Mapping[str, Callable[[Setting], float]]  # name of each coefficient to its feature

    def matrix(self, settings: Sequence[Setting]) -> Floats:
        """Features of each setting, (m, k)."""
        return np.array(
            [[feature(setting) for feature in self.features.values()] for setting in settings],
            np.float64,
        ).reshape(len(settings), len(self.features))


AMDAHL = Law(
    name="amdahl",
    formula="T = serial + parallel/n",
    features={"serial_s": lambda _: 1.0, "parallel_s": lambda at: 1 / at["n"]},
)

ERNEST = Law(
    name="ernest",
    formula="T = a + b size/n + c log n + d n",
    features={
        "fixed_s": lambda _: 1.0,
        "per_size_s": lambda at: at["size"] / at["n"],
        "log_s": lambda at: float(np.log(at["n"])),
        "per_worker_s": lambda at: at["n"],
    },
)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law fitted to measurements."""

    law: Law
    coefficients: Floats
    draws: Floats  # coefficients of each draw of the bootstrap, (draws, k); empty without repeats
    # relative error of the prediction of each configuration from all others, (m,); empty if there
    # are too few configurations
    held_out: Floats

    def predict(self, setting: Setting) -> float:
        """Time at a setting, in seconds."""
        return float(self.law.matrix([setting])[0] @ self.coefficients)

    def interval(self, setting: Setting) -> tuple[float, float] | None:
        """Where 95% of the draws see the time; None without repeats."""
        if not len(self.draws):
            return None
        low, high = percentiles(self.draws @ self.law.matrix([setting])[0])
        return low, high

    def error(self) -> float | None:
        """Mean absolute percentage error on held-out configurations, as a part of 1."""
        return float(np.abs(self.held_out).mean()) if len(self.held_out) else None

    def fitted(
        self,
        settings: Sequence[Setting],
        samples: Sequence[Sequence[float]],
        places: Sequence[Mapping[str, Any]],
        **more: Any,
    ) -> FittedLaw:
        """The law beside the measurements; `places` of each `LawPoint` say which it is."""
        draws = self.draws.reshape(len(self.draws), len(self.coefficients)).T
        points: list[LawPoint | ScaledPoint] = []
        for number, (setting, own, at) in enumerate(zip(settings, samples, places, strict=True)):
            low, high = self.interval(setting) or (None, None)
            measured, held_out = Spread.of(own), None
            if len(self.held_out):
                held_out = (1 + float(self.held_out[number])) * measured.median
            points.append(
                LawPoint(
                    **at,
                    measured_s=measured,
                    predicted_s=self.predict(setting),
                    low_s=low,
                    high_s=high,
                    held_out_s=held_out,
                )
            )
        fields: dict[str, Any] = {"law": self.law.name, "formula": self.law.formula} | more
        return FittedLaw(
            **fields,
            exact=len(settings) <= len(self.coefficients),
            coefficients=[
                Coefficient.of(value, own, name=name)
                for name, value, own in zip(
                    self.law.features, self.coefficients, draws, strict=True
                )
            ],
            held_out_error=self.error(),
            held_out_configurations=len(self.held_out),
            points=points,
        )


def fit(
    law: Law,
    settings: Sequence[Setting],
    samples: Sequence[Sequence[float]],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit a law to the medians of repeated times (seconds, above 0) of each configuration."""
    matrix = law.matrix(settings)
    middles = np.array([np.median(own) for own in samples])
    found = non_negative(matrix, middles)
    drawn = np.empty((0, len(found)))
    if draws and any(len(own) > 1 for own in samples):
        generator = np.random.Generator(np.random.Philox(seed))
        again = resampled(samples, draws, generator)
        drawn = np.array([non_negative(matrix, row) for row in again])
    return Fit(law=law, coefficients=found, draws=drawn, held_out=_held_out(matrix, middles))


def resampled(
    samples: Sequence[Sequence[float]], draws: int, generator: np.random.Generator
) -> Floats:
    """Medians of samples drawn with replacement from each configuration's own, (draws, m)."""
    columns = []
    for own in samples:
        picked = generator.integers(0, len(own), (draws, len(own)))
        columns.append(np.median(np.asarray(own, np.float64)[picked], axis=1))
    return np.stack(columns, axis=1)


def non_negative(matrix: Floats, times: Floats) -> Floats:
    """Coefficients of at least 0 with the least sum of squared relative errors, of (m, k) features.

    >>> non_negative(np.array([[1.0, 1.0], [1.0, 0.5]]), np.array([3.0, 2.0])).round(6).tolist()
    [1.0, 2.0]
    """
    rows = matrix / times[:, None]
    # Columns of one size: coefficients may differ by many powers of ten.
    scale = np.abs(rows).max(0)
    scale[scale == 0] = 1.0
    found, _ = nnls(rows / scale, np.ones(len(times)))
    return np.asarray(found / scale, np.float64)


def _held_out(matrix: Floats, times: Floats) -> Floats:
    """Relative error of each time, predicted from the others; empty if these are too few."""
    if len(times) <= matrix.shape[1]:
        return np.empty(0)
    errors = []
    for left_out in range(len(times)):
        others = np.arange(len(times)) != left_out
        found = non_negative(matrix[others], times[others])
        errors.append(float(matrix[left_out] @ found) / times[left_out] - 1)
    return np.array(errors)


def percentiles(values: Floats) -> tuple[float, float]:
    """The ends between which 95% of the values lie."""
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
