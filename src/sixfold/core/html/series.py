"""Long series made short enough to be drawn, without hiding what happened in them."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def smooth(values: Floats, window: int) -> Floats:
    """Centred moving mean (n,) of (n,) values that leaves out NaN; shorter at the ends.

    `window` is made odd; where it holds no number the mean is NaN.

    >>> smooth(np.array([0.0, 3.0, 6.0, np.nan]), 3).tolist()
    [1.5, 3.0, 4.5, 6.0]
    """
    half = window // 2
    good = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    n = counts[high] - counts[low]
    return np.where(n > 0, (sums[high] - sums[low]) / np.maximum(n, 1), np.nan)


def window_for(n: int) -> int:
    """Values to average over for a curve of `n`: a fiftieth, odd, 1 where there are few."""
    return (n // 50) | 1


def spread(n: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` evenly spread indices of `n`, the first and the last among them.

    >>> spread(5, 3).tolist()
    [0, 2, 4]
    """
    return np.unique(np.linspace(0, n - 1, min(n, limit)).round().astype(np.int64))


def extremes(values: Floats, limit: int) -> NDArray[np.int64]:
    """Indices (m,), m <= limit + 2, to keep of `values` (n,) so that every peak and dip stays.

    Each bucket keeps the ends of its range; NaN stands for a gap and is kept as one.

    >>> extremes(np.array([0.0, 1, 9, 1, 0, 1, -9, 1]), 4).tolist()
    [0, 2, 5, 6, 7]
    """
    n = len(values)
    if n <= limit:
        return np.arange(n)
    keep = {0, n - 1}
    edges = np.linspace(0, n, max(1, limit // 2) + 1).astype(int)
    for low, high in pairwise(edges):
        bucket = values[low:high]
        if np.isnan(bucket).all():
            keep.add(int(low))
            continue
        keep.update((low + int(np.nanargmin(bucket)), low + int(np.nanargmax(bucket))))
    return np.array(sorted(keep), dtype=np.int64)


def bins(n: int, limit: int) -> NDArray[np.int64]:
    """Borders that cut `n` values into at most `limit` bins of nearly equal length.

    >>> bins(10, 3).tolist()
    [0, 3, 6, 10]
    """
    return np.linspace(0, n, min(n, limit) + 1).astype(np.int64)


def without_pauses(time: Floats) -> tuple[Floats, Floats]:
    """Seconds of running, with the pauses between a stop and its resumption cut out.

    From clock times (n,): (n,) seconds since the first, and the (p,) seconds at which there was a
    pause: a gap of more than a minute and of twenty times the usual one.

    >>> run, pauses = without_pauses(np.array([0.0, 1, 2, 1000, 1001]))
    >>> run.tolist(), pauses.tolist()
    ([0.0, 1.0, 2.0, 3.0, 4.0], [2.0])
    """
    if len(time) < 2:
        return np.zeros(len(time)), np.zeros(0)
    steps = np.maximum(np.nan_to_num(np.diff(time), posinf=0.0, neginf=0.0), 0.0)
    usual = float(np.median(steps))
    pause = steps > max(60.0, 20 * usual)
    run = np.concatenate([[0.0], np.cumsum(np.where(pause, usual, steps))])
    return run, run[:-1][pause]
