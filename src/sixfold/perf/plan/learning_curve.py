"""How many epochs a training needs to reach a target, from evaluations of a short one.

Where the short training has reached it, that is measured. Otherwise its curve is compared with one
that got further (the same network trained by another strategy), as a stretched copy of it; or, for
want of such a curve, carried on by a power law, which is much less sure.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit, minimize_scalar

from sixfold.training.selection import Target, quality

Floats = NDArray[np.float64]

DRAWS = 200
"""Resamplings of a curve's residuals, from which intervals are read."""
FEWEST = 5
"""Evaluations from which a curve can be carried on."""
STRETCH = 32.0
"""Most by which one curve can be slower or quicker than another."""
TOO_FEW = "too few evaluations"
MEASURED, COMPARED, CARRIED_ON, UNKNOWN = (
    "measured",
    "from the course of another way",
    "carried on by a power law",
    "not reached",
)


@dataclass(frozen=True)
class Curve:
    """Evaluations of a training on the validation part, in order."""

    epochs: tuple[float, ...]
    values: tuple[float, ...]  # of the target's metric


@dataclass(frozen=True)
class Need:
    """Epochs to a target, and between what nine in ten are expected; infinite if never."""

    epochs: float
    low: float
    high: float
    how: str

    @property
    def is_known(self) -> bool:
        """Whether the target is expected to be reached."""
        return math.isfinite(self.epochs)


NEVER = Need(math.inf, math.inf, math.inf, UNKNOWN)


def epochs_needed(curve: Curve, target: Target, reference: Curve | None = None) -> Need:
    """Epochs until the target; `reference` is a curve of the same network that got further."""
    measured = _crossing(curve, target)
    if measured is not None:
        return measured
    if len(curve.epochs) < FEWEST:
        return dataclasses.replace(NEVER, how=TOO_FEW)
    if reference is not None:
        known = epochs_needed(reference, target)
        if known.is_known:
            compared = _compared(curve, reference, target, known)
            if compared is not None:
                return compared
    return _carried_on(curve, target)


def _qualities(curve: Curve, metric: str) -> Floats:
    return np.asarray([quality(metric, value) for value in curve.values], float)


def _crossing(curve: Curve, target: Target) -> Need | None:
    """Where the target was first reached, between two evaluations."""
    wanted = quality(target.metric, target.value)
    found, before, at = _qualities(curve, target.metric), -math.inf, 0.0
    for epoch, value in zip(curve.epochs, found, strict=True):
        if value >= wanted:
            part = (wanted - before) / (value - before) if math.isfinite(before) else 1.0
            return Need(at + part * (epoch - at), at, epoch, MEASURED)
        before, at = float(value), epoch
    return None


def _compared(curve: Curve, reference: Curve, target: Target, known: Need) -> Need | None:
    """The reference's need, stretched by as much as this curve is slower."""
    steady = _rising(reference, target.metric)
    epochs, values = np.asarray(curve.epochs), _qualities(curve, target.metric)
    ends = np.asarray(reference.epochs)
    # What lies before the reference's first evaluation, or beyond its best, cannot be compared.
    usable = (values > steady[0]) & (values < steady[-1])
    if usable.sum() < FEWEST:
        return None
    epochs, values = epochs[usable], values[usable]

    def stretch_of(found: Floats) -> float:
        def misfit(log_stretch: float) -> float:
            there = np.interp(epochs / math.exp(log_stretch), ends, steady)
            return float(((there - found) ** 2).sum())

        limit = math.log(STRETCH)
        grid = np.linspace(-limit, limit, 65)
        near = grid[int(np.argmin([misfit(value) for value in grid]))]
        step = grid[1] - grid[0]
        return math.exp(
            minimize_scalar(misfit, bounds=(near - step, near + step), method="bounded").x
        )

    stretch = stretch_of(values)
    fitted = np.interp(epochs / stretch, ends, steady)
    random = np.random.default_rng(0)
    drawn = [
        stretch_of(fitted + random.choice(values - fitted, len(values))) for _ in range(DRAWS // 4)
    ]
    low, high = np.quantile(drawn, [0.05, 0.95])
    return Need(stretch * known.epochs, low * known.low, high * known.high, COMPARED)


def _rising(curve: Curve, metric: str) -> Floats:
    """The curve's qualities without noise: the nearest course that never falls."""
    from sklearn.isotonic import IsotonicRegression

    rising = IsotonicRegression().fit_transform(curve.epochs, _qualities(curve, metric))
    return np.asarray(rising, float)


def _power_law(epochs: Floats, best: float, drop: float, power: float) -> Floats:
    course: Floats = best - drop * epochs**-power
    return course


def _carried_on(curve: Curve, target: Target) -> Need:
    """Where a power law through the evaluations reaches the target."""
    epochs, found = np.asarray(curve.epochs), _qualities(curve, target.metric)
    wanted, top = quality(target.metric, target.value), _top(target.metric)
    # The ascent matters; a plateau on the way in would bend the law.
    fitted = _fit(epochs, found, top)
    if fitted is None:
        return NEVER
    around = _power_law(epochs, *fitted)
    random = np.random.default_rng(0)
    reached = [_inverse(fitted, wanted)]
    for _ in range(DRAWS):
        drawn = _fit(epochs, around + random.choice(found - around, len(found)), top)
        reached.append(math.inf if drawn is None else _inverse(drawn, wanted))
    last = curve.epochs[-1]  # it has not been reached by then
    epochs_to, low, high = (
        max(value, last) for value in (reached[0], *_quantiles(reached[1:], (0.05, 0.95)))
    )
    how = CARRIED_ON if math.isfinite(epochs_to) else UNKNOWN
    return Need(epochs_to, low, high, how)


def _quantiles(values: Sequence[float], chances: Sequence[float]) -> list[float]:
    """Quantiles of numbers of which some may be infinite."""
    ordered = sorted(values)
    return [ordered[round(chance * (len(ordered) - 1))] for chance in chances]


def _top(metric: str) -> float:
    """What no training gets beyond, as a quality."""
    return quality(metric, 0.0) if quality(metric, 1.0) < 0 else 1.0


def _fit(epochs: Floats, found: Floats, top: float) -> tuple[float, float, float] | None:
    spread = max(float(np.ptp(found)), 1e-9)
    begin = (min(float(found.max()) + 0.1 * spread, top - 1e-9), spread, 0.5)
    bounds = ([float(found.max()) - spread, 0.0, 0.05], [top, 1e3 * spread, 4.0])
    try:
        fitted, _ = curve_fit(_power_law, epochs, found, p0=begin, bounds=bounds, maxfev=2000)
    except (RuntimeError, ValueError):
        return None
    best, drop, power = (float(value) for value in fitted)
    return best, drop, power


def _inverse(law: tuple[float, float, float], wanted: float) -> float:
    best, drop, power = law
    if best <= wanted or drop <= 0:
        return math.inf
    return float((drop / (best - wanted)) ** (1.0 / power))
