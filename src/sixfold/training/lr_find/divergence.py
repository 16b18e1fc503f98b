"""The curve of a range test: smoothed, ended where the loss rises, and what it suggests."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.training.callbacks import Moment, Stop

SMOOTHING = 0.9  # weight of what was before in the smoothed loss; a test has about 100 steps
RISE = 4.0  # times the least smoothed loss at which a test ends, as in fast.ai's finder
LEAST_STEPS = 10


@dataclass
class Smoothed:
    """An exponential mean that does not begin at 0."""

    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float) -> float:
        """The mean after one value more."""
        self.total = SMOOTHING * self.total + (1 - SMOOTHING) * value
        self.weight = SMOOTHING * self.weight + (1 - SMOOTHING)
        return self.total / self.weight


class StopAtDivergence:
    """A callback that ends a range test when the smoothed loss has risen."""

    def __init__(self) -> None:
        self._mean, self._least = Smoothed(), float("inf")

    def on_step(self, moment: Moment) -> Any:
        """Look at the loss of a step."""
        found = self._mean.add(moment.loss)
        self._least = min(self._least, found)
        risen = moment.step >= LEAST_STEPS and found > RISE * self._least
        return Stop("the loss has risen") if risen else None


def smoothed(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smoothed loss after every step, (T,) from (T,)."""
    mean = Smoothed()
    return np.array([mean.add(float(value)) for value in losses])


def suggested(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> float | None:
    """The rate at which the smoothed loss falls fastest over the rate's logarithm; None if never.

    L. Smith, "Cyclical learning rates for training neural networks", WACV 2017, introduces the
    test; that the steepest place is taken is fast.ai's rule.
    """
    curve = smoothed(losses)
    least = int(np.argmin(curve)) if len(curve) else 0
    if least < 2:
        return None
    slope = np.gradient(curve[: least + 1], np.log(rates[: least + 1]))
    steepest = int(np.argmin(slope))
    return float(rates[steepest]) if slope[steepest] < 0 else None
