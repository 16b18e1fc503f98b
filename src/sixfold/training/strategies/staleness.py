"""What staleness does to the learning rate: the largest one at which stale updates still converge.

On a quadratic of curvature c, gradients that are s updates old and momentum m make

    w(t+1) = (1 + m) w(t) - m w(t-1) - a w(t-s),      a = lr c

which converges if all roots z of  z^(s+1) - (1 + m) z^s + m z^(s-1) + a  (for s = 0:
z^2 - (1 + m - a) z + m) lie in the unit circle. Without staleness that holds up to a = 2 (1 + m):
momentum allows more. With it the limit falls steeply, and momentum then costs what it had given:

    largest a      s = 0    s = 1    s = 2    s = 3    s = 7
    m = 0          2        1        0.618    0.445    0.209
    m = 0.5        3        0.5      0.281    0.199    0.096
    m = 0.9        3.8      0.1      0.051    0.035    0.016

Without momentum the limit is 2 sin(pi / (2 (2 s + 1))). Mitliagkas et al., "Asynchrony begets
momentum, with an application to deep learning", 2016, look at the same recursion.
"""

import math

import numpy as np

from sixfold.core.errors import RunError
from sixfold.training.config import OptimizerConfig
from sixfold.training.strategies.sync.strategy import diverged

_LONGEST = 64  # beyond this staleness the limit is taken to fall as 1 / s, which by then it does


def largest_stable(staleness: int, momentum: float) -> float:
    """The largest stable lr x curvature, with gradients s updates old and momentum m in [0, 1).

    >>> [round(largest_stable(staleness, 0.9), 3) for staleness in (0, 1, 7)]
    [3.8, 0.1, 0.016]
    """
    if staleness > _LONGEST:
        return largest_stable(_LONGEST, momentum) * _LONGEST / staleness
    low, high = 0.0, 2 * (1 + momentum)
    for _ in range(40):
        middle = (low + high) / 2
        if _radius(middle, staleness, momentum) <= 1 + 1e-9:
            low = middle
        else:
            high = middle
    return low


def slowdown(staleness: int, momentum: float) -> float:
    """By what factor the largest stable learning rate is below that of serial training."""
    return largest_stable(0, momentum) / largest_stable(staleness, momentum)


def advice(staleness: int, momentum: float) -> str:
    """What to know about the learning rate, in words.

    >>> print(advice(1, 0.9))
    gradients are about 1 update old: with --momentum 0.9 the largest stable --lr is 38 times \
smaller than in serial training (2 times with --momentum 0)
    """
    updates = "1 update" if staleness == 1 else f"{staleness} updates"
    text = (
        f"gradients are about {updates} old: with --momentum {momentum:g} the largest stable "
        f"--lr is {slowdown(staleness, momentum):.2g} times smaller than in serial training"
    )
    return text + (f" ({slowdown(staleness, 0):.2g} times with --momentum 0)" if momentum else "")


def diverged_by_delay(
    number: int, loss: float, staleness: int, config: OptimizerConfig
) -> RunError:
    """The error of a step (from 0) whose loss is not finite, where gradients were stale."""
    error = diverged(number, loss)
    if staleness < 1 or config.optimizer != "sgd":
        return error
    return type(error)(f"{error}; {advice(staleness, config.momentum)}")


def _radius(a: float, staleness: int, momentum: float) -> float:
    """The largest root's size."""
    degree = max(staleness, 1) + 1
    polynomial = np.zeros(degree + 1)
    polynomial[:3] = 1.0, -(1 + momentum), momentum
    polynomial[staleness + 1] += a
    found: float = np.abs(np.roots(polynomial)).max()
    return found if math.isfinite(found) else math.inf
