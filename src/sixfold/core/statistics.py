"""Means with their confidence intervals, and whether one lies below another.

Over K seeds a mean has the interval of Student's t; two means are compared by Welch's test. With a
single seed nothing is known of the spread between trainings: there the interval is that of the
finite number of images alone (normal approximation of the binomial), and says so little as it can.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
TOLERANCE = 2.5
"""How far the lower end of a matching ticket's interval may lie below 0, in `margin`s. With one
seed, where half an interval is 1.4 of them, it never decides."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean, and where it may lie."""

    mean: float
    low: float
    high: float
    seeds: int  # number of values

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def interval(values: Sequence[float], images: int) -> Interval:
    """Mean accuracy over seeds, with its 95% interval; of one seed that of so many images.

    >>> found = interval([0.90, 0.92, 0.94], 1000)
    >>> round(found.mean, 3), round(found.high - found.mean, 4)
    (0.92, 0.0497)
    """
    mean, variance, freedom = _moments(values, images)
    half = _quantile(freedom) * math.sqrt(variance)
    return Interval(mean=mean, low=mean - half, high=mean + half, seeds=len(values))


def difference(values: Sequence[float], reference: Sequence[float], images: int) -> Interval:
    """Mean of `values` less that of `reference`, with its 95% interval (Welch).

    >>> found = difference([0.5, 0.52], [0.9, 0.92], 1000)
    >>> round(found.mean, 3), found.high < 0
    (-0.4, True)
    """
    mean, variance, freedom = _moments(values, images)
    other, other_variance, other_freedom = _moments(reference, images)
    total = variance + other_variance
    inverse = variance**2 / freedom + other_variance**2 / other_freedom
    joint = total**2 / inverse if inverse else math.inf
    half = _quantile(joint) * math.sqrt(total)
    gap = mean - other
    # Accuracies differ by 100 points at most, whatever two seeds are thought to leave open.
    low, high = max(gap - half, -1.0), min(gap + half, 1.0)
    return Interval(mean=gap, low=low, high=high, seeds=len(values))


def margin(accuracy: float, images: int) -> float:
    """The least difference that so many images can show: half the 95% interval of an accuracy.

    >>> round(margin(0.98, 6000), 4)
    0.0035
    """
    return _quantile(math.inf) * math.sqrt(max(accuracy * (1 - accuracy), 0.0) / max(images, 1))


def verdict(gap: Interval, least: float) -> str:
    """What a difference to the dense network amounts to: better, below, matching or unclear.

    "better" if the whole interval lies above 0, "below" if it lies below 0. Where it holds 0:
    "matching" if the middle is not lower by more than `least` (a `margin`) and the lower end not by
    more than `TOLERANCE` of it; else "unclear", as with few seeds, which make wide intervals.

    >>> verdict(Interval(mean=-0.4, low=-1.1, high=0.3, seeds=2), 0.0035)
    'unclear'
    """
    if gap.low > 0:
        return "better"
    if gap.high < 0:
        return "below"
    is_close = gap.mean >= -least and gap.low >= -TOLERANCE * least
    return "matching" if is_close else "unclear"


def _moments(values: Sequence[float], images: int) -> tuple[float, float, float]:
    """Mean, variance of the mean, and degrees of freedom."""
    array = np.asarray(values, np.float64)
    mean = float(array.mean())
    if len(array) > 1:
        return mean, float(array.var(ddof=1)) / len(array), len(array) - 1.0
    return mean, max(mean * (1 - mean), 0.0) / max(images, 1), math.inf


def _quantile(freedom: float) -> float:
    """The value that Student's t exceeds in either direction with probability 5%."""
    from scipy.special import ndtri, stdtrit

    upper = (1 + LEVEL) / 2
    return float(ndtri(upper) if math.isinf(freedom) else stdtrit(freedom, upper))


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95% interval of a proportion (Wilson 1927), which is right near 0 and 1 too.

    >>> [round(end, 3) for end in wilson(95, 100)]
    [0.888, 0.978]
    """
    if not n:
        return 0.0, 1.0
    z = 1.959964
    p, zz = correct / n, z * z / n
    middle, half = p + zz / 2, z * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return max(0.0, (middle - half) / (1 + zz)), min(1.0, (middle + half) / (1 + zz))
