"""Linear maps of images, a few taps for each output: blurring, shrinking, growing.

An output is a sum over its taps in a fixed order, element by element, so its bits depend neither on
how many images are mapped at once nor on a matrix library.

Legend: N images, C channels, H rows, W columns; K taps of each output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLUR_REACH = 4.0
"""Standard deviations at which a Gaussian is cut off: what lies beyond is 6e-5 of it, a quarter of
the smallest step of a pixel being 1e-3."""


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Where each output looks, and with which weight."""

    places: NDArray[np.int64]  # (outputs, K) inputs
    weights: NDArray[np.float64]  # (outputs, K), each row adding up to 1

    def along(self, images: Floats, dim: int) -> Floats:
        """Map every line of (N, C, H, W), or any other number of dims, along a negative dim."""
        shape = [1] * images.ndim
        shape[dim] = -1
        weights = self.weights.astype(np.float32)
        out: Floats = images.take(self.places[:, 0], dim) * weights[:, 0].reshape(shape)
        for tap in range(1, self.places.shape[1]):
            out += images.take(self.places[:, tap], dim) * weights[:, tap].reshape(shape)
        return out

    def matrix(self, inputs: int) -> NDArray[np.float64]:
        """The same as a matrix, (outputs, inputs)."""
        found = np.zeros((len(self.places), inputs))
        for tap in range(self.places.shape[1]):
            np.add.at(found, (np.arange(len(found)), self.places[:, tap]), self.weights[:, tap])
        return found


def gaussian(size: int, sigma: float) -> Taps:
    """A Gaussian of `sigma` elements; beyond the edge the line goes on mirrored.

    Its last element is repeated.

    >>> gaussian(4, 0.01).weights.tolist()
    [[1.0], [1.0], [1.0], [1.0]]
    """
    reach = int(BLUR_REACH * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    places = mirrored(np.arange(size)[:, None] + offsets, size)
    return Taps(places=places, weights=np.tile(weights / weights.sum(), (size, 1)))


def blurred(images: Floats, sigma: float) -> Floats:
    """The Gaussian along rows and columns of (..., H, W), by scipy's faster loops."""
    from scipy import ndimage  # late: settings are checked without scipy

    found: Floats = ndimage.gaussian_filter(
        images, sigma, mode="reflect", truncate=BLUR_REACH, axes=(-2, -1)
    )
    return found


def mirrored(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Places beyond the ends of a line folded back into it: d c b a | a b c d | d c b a.

    >>> mirrored(np.array([-2, -1, 0, 3, 4, 9]), 4).tolist()
    [1, 0, 0, 3, 3, 1]
    """
    folded = places % (2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)


def shrink(size: int, factor: float) -> Taps:
    """Means over cells of equal length, size / ceil(size / factor) elements; factor at least 1.

    >>> shrink(4, 2).matrix(4).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    cells = max(math.ceil(size / factor - 1e-9), 1)
    length = size / cells
    begin = np.arange(cells) * length
    first = np.floor(begin + 1e-9).astype(np.int64)
    taps = int(np.ceil(length - 1e-9)) + 1
    places = first[:, None] + np.arange(taps)
    # How much of each element lies in the cell.
    overlap = np.minimum(places + 1, (begin + length)[:, None]) - np.maximum(places, begin[:, None])
    weights = np.where(places < size, np.maximum(overlap, 0.0), 0.0)
    weights[weights < 1e-9] = 0.0
    weights /= weights.sum(1, keepdims=True)
    return Taps(places=np.minimum(places, size - 1), weights=weights)


def grow(cells: int, size: int) -> Taps:
    """Linear interpolation between the middles of cells, constant beyond the outer ones.

    >>> grow(2, 4).matrix(2).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    at = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    low = np.floor(at).astype(np.int64)
    part = at - low
    return Taps(
        places=np.stack([low, np.minimum(low + 1, cells - 1)], axis=1),
        weights=np.stack([1 - part, part], axis=1),
    )
