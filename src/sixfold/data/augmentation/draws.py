"""Random numbers of augmentations, from one integer for the images of a logical shard.

They are drawn for all images of a shard at once, so a rank that computes only some of them, or
recomputes them, sees what any other would have seen.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def uniform(key: int, count: int, each: int) -> Floats:
    """Numbers in [0, 1), (count, each): 53 bits of a counter-based generator each."""
    raw = np.random.Philox(key=key).random_raw(count * each)
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(count, each)


def between(draws: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """Uniform numbers moved to [low, high)."""
    return low + draws * (high - low)


def below(draws: Floats, count: Integers | int) -> Integers:
    """Uniform numbers as integers from 0 to count - 1."""
    return np.floor(draws * count).astype(np.int64)


def boxes(
    draws: Floats, size: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """The first of several tries at a box that is not larger than the image.

    Args:
        draws: (n, 2 T) for T tries: area and aspect ratio of each.
        size: (H, W) of the images.
        area: least and largest part of the image.
        ratio: least and largest width over height; its logarithm is uniform.

    Returns:
        Heights and widths, (n,), and whether any try gave a box of at most (H, W).
    """
    rows, columns = size
    areas = between(draws[:, 0::2], *area) * (rows * columns)
    ratios = np.exp(between(draws[:, 1::2], *np.log(ratio).tolist()))
    widths = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
    heights = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
    fits = (widths > 0) & (widths <= columns) & (heights > 0) & (heights <= rows)
    first, image = fits.argmax(1), np.arange(len(draws))
    found: NDArray[np.bool_] = fits[image, first]
    return heights[image, first], widths[image, first], found
