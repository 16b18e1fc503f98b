"""Repeated timings of one thing: their middle, their spread, and the slowest of many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

FEWEST = 8
"""Timings in a row from which can be told whether slow ones come together."""
LEVELS = 33
"""Quantiles that are kept of a spread: enough for the slowest of a few dozen."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How timings of the same thing differ, relative to their median."""

    # at evenly spaced levels from 0 to 1, as ratios to the median
    quantiles: tuple[float, ...] = (1.0, 1.0)
    # Means of k steps differ by k^-evening of what steps do: 1/2 if steps have nothing to do with
    # each other, less where slow moments last.
    evening: float = 0.5

    def slowest(self, ranks: ArrayLike, chance: float = 0.5) -> Floats:
        """The ratio below which, with this chance, the slowest of so many ranks stays.

        The slowest of n independent ranks stays below q if all n do, so that its quantile is the
        single rank's at chance**(1/n). Above the last kept level an exponential tail goes on,
        whose scale is that of the upper tenth.

        >>> Spread(quantiles=(0.9, 1.0, 1.1)).slowest(1).item()
        1.0
        """
        levels = np.linspace(0.0, 1.0, len(self.quantiles))
        values = np.asarray(self.quantiles, float)
        wanted = np.power(chance, 1.0 / np.asarray(ranks, float))
        inside = np.interp(wanted, levels, values)
        last = 1.0 - 1.0 / max(2 * (len(values) - 1), 2)
        edge = np.interp(last, levels, values)
        scale = max(float(edge - np.interp(0.9, levels, values)), 0.0) / np.log(
            max(0.1 / (1.0 - last), 1.5)
        )
        beyond = edge + scale * np.log((1.0 - last) / np.maximum(1.0 - wanted, 1e-300))
        found: Floats = np.where(wanted <= last, inside, np.maximum(inside, beyond))
        return found


EVEN = Spread()
"""Timings that do not differ."""


def spread_of(groups: Sequence[Sequence[float]]) -> Spread:
    """The spread of timings of several things, each relative to its own median.

    >>> spread_of([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]).quantiles[::16]
    (0.5, 1.0, 1.5)
    """
    ratios = [
        np.asarray(values, float) / float(np.median(values)) for values in groups if len(values)
    ]
    if not ratios:
        return EVEN
    found = np.quantile(np.concatenate(ratios), np.linspace(0, 1, LEVELS))
    quantiles = tuple(float(round(value, 5)) for value in found)
    return Spread(quantiles=quantiles, evening=_evening(ratios))


def _evening(groups: Sequence[Floats]) -> float:
    """From how much less pairs of neighbours differ than single timings, over all groups."""
    single = pairs = 0.0
    for values in groups:
        if len(values) >= FEWEST:
            neighbours = (values[:-1] + values[1:]) / 2
            single += float(np.var(values))
            pairs += float(np.var(neighbours))
    if not single > 0 or not pairs > 0:
        return 0.5
    return round(min(max(0.5 * math.log2(single / pairs), 0.0), 0.5), 4)


def interpolate(x: float, known: Sequence[tuple[float, float]]) -> float:
    """A value between known ones, in rising order: straight lines between logarithms.

    Outside, the line through the two nearest goes on, its slope kept between 0 and 1: time grows
    with work, and never faster.

    >>> round(interpolate(4, [(1, 2.0), (16, 8.0)]), 6)
    4.0
    """
    if len(known) == 1:
        return known[0][1] * x / known[0][0]
    place = int(np.searchsorted([at for at, _ in known], x))
    place = min(max(place, 1), len(known) - 1)
    (x0, y0), (x1, y1) = known[place - 1], known[place]
    slope = float(np.log(y1 / y0) / np.log(x1 / x0))
    if x < x0 or x > x1:
        slope = min(max(slope, 0.0), 1.0)
        x0, y0 = (x0, y0) if x < x0 else (x1, y1)
    return float(y0 * (x / x0) ** slope)
