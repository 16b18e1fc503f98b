"""How good predictions are: errors, the order of the ways, and what a wrong choice costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Relative errors of predictions, as parts of what was measured."""

    count: int  # how many
    mean: float  # of their sizes, the mean absolute percentage error
    median: float  # of their sizes
    p90: float  # nine in ten are smaller
    bias: float  # mean with sign; positive where too long a time was predicted


def errors(predicted: Sequence[float], measured: Sequence[float]) -> Errors:
    """The errors of some predictions.

    >>> errors([1.1, 0.9], [1.0, 1.0]).mean, errors([1.1, 0.9], [1.0, 1.0]).bias
    (0.1, 0.0)
    """
    ratio = np.asarray(predicted, float) / np.asarray(measured, float) - 1.0
    sizes = np.abs(ratio)
    return Errors(
        count=len(ratio),
        mean=round(float(sizes.mean()), 6),
        median=round(float(np.median(sizes)), 6),
        p90=round(float(np.quantile(sizes, 0.9)), 6),
        bias=round(float(ratio.mean()), 6),
    )


def kendall_tau(predicted: Sequence[float], measured: Sequence[float], tie: float = 0.0) -> float:
    """How far two orders agree: 1 if entirely, -1 if one is the other backwards.

    Args:
        predicted: times.
        measured: times.
        tie: pairs that were measured to differ by no more than this part are left out; the noise
            floor, below which an order means nothing.

    >>> kendall_tau([1, 2, 3], [10, 20, 15])
    0.3333333333333333
    """
    right = wrong = 0
    for one in range(len(measured)):
        for other in range(one):
            least = min(measured[one], measured[other])
            if abs(measured[one] - measured[other]) <= tie * least:
                continue
            agrees = (predicted[one] - predicted[other]) * (measured[one] - measured[other])
            right, wrong = right + (agrees > 0), wrong + (agrees < 0)
    return (right - wrong) / (right + wrong) if right + wrong else 1.0


def regret(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """How much longer the way that was predicted to be best takes than the best.

    >>> regret([1.0, 2.0], [3.0, 2.0])
    0.5
    """
    return measured[int(np.argmin(predicted))] / min(measured) - 1.0
