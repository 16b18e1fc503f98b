"""Resampling of images: blurring, shrinking and growing, and looking between their pixels.

An output of a linear map is a sum over a few taps in a fixed order, element by element, so its bits
depend neither on how many images are mapped at once nor on a matrix library.

A warp says for each output pixel where it looks; what it sees there is interpolated bilinearly, and
places beyond the edge see the edge. Coordinates are those of the middles of pixels, in pixels.

The elastic distortion is that of P. Y. Simard, D. Steinkraus, J. C. Platt, "Best practices for
convolutional neural networks applied to visual document analysis", ICDAR 2003: independent random
displacements, smoothed by a Gaussian. It departs from them in that the displacements are normal,
and scaled so that their standard deviation is the strength at every pixel, at the edges too.

Legend: N images, C channels, H rows, W columns; K taps of each output.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Places = tuple[Floats, Floats]  # Rows and columns looked at, (N or 1, H, W) each
BLUR_REACH = 4.0
"""Standard deviations at which a Gaussian is cut off: what lies beyond is 6e-5 of it, a quarter of
the smallest step of a pixel being 1e-3."""

SMOOTH = 1 / 8
"""Standard deviation of the smoothing of elastic displacements, in shorter sides of the image: 4
pixels of 32, as in the source (4 of 28)."""


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


def blurred(images: NDArray[Any], sigma: float) -> NDArray[Any]:
    """The Gaussian along rows and columns of (..., H, W), by scipy's fast loops."""
    from scipy import ndimage  # late: settings are checked without scipy

    found: NDArray[Any] = ndimage.gaussian_filter(
        images, sigma, mode="reflect", truncate=BLUR_REACH, axes=(-2, -1)
    )
    return found


def shrink(size: int, factor: float) -> Taps:
    """Means over cells of equal length, size / ceil(size / factor) elements; factor at least 1.

    >>> shrink(4, 2).along(np.array([1.0, 3.0, 5.0, 9.0]), -1).tolist()
    [2.0, 7.0]
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

    >>> grow(2, 4).along(np.array([0.0, 4.0]), -1).tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    at = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    low = np.floor(at).astype(np.int64)
    part = at - low
    return Taps(
        places=np.stack([low, np.minimum(low + 1, cells - 1)], axis=1),
        weights=np.stack([1 - part, part], axis=1),
    )


def rotation(rows: int, columns: int, degrees: NDArray[np.float64]) -> Places:
    """Turn about the middle of the image, counterclockwise as seen, by (N,) degrees."""
    y, x = _from_middle(rows, columns)
    angle = np.radians(degrees)[:, None, None]
    cos, sin = np.cos(angle), np.sin(angle)
    # The output is turned by the angle, so the place looked at by its negative; y points down.
    return _to_pixels(y * cos + x * sin, x * cos - y * sin, rows, columns)


def barrel(rows: int, columns: int, strength: float) -> Places:
    """Magnify the middle by 1 + strength; the corners stay where they are.

    A pixel at r, in half diagonals from the middle, looks at r (1 + k r^2) / (1 + k): the radial
    distortion of a lens (D. C. Brown, 1966) with one coefficient k, the strength.
    """
    y, x = _from_middle(rows, columns)
    half = math.hypot((rows - 1) / 2, (columns - 1) / 2) or 1.0
    scale = (1 + strength * (y * y + x * x) / half**2) / (1 + strength)
    return _to_pixels(y * scale, x * scale, rows, columns)


def elastic(draws: Floats, strength: float) -> Places:
    """Move every pixel by smooth random displacements.

    `draws` are independent standard normals, (N, 2, H, W), for rows and for columns; `strength` is
    the standard deviation of the displacement along either dim, in pixels.
    """
    rows, columns = draws.shape[2:]
    sigma = SMOOTH * min(rows, columns)
    # Standard deviation of a weighted sum of normals; at the edges weights meet and it is larger.
    spreads = [
        np.sqrt((blurred(np.eye(n)[:, :, None], sigma) ** 2).sum(0)) for n in (rows, columns)
    ]
    moved = blurred(draws, sigma) * (strength / (spreads[0] @ spreads[1].T)).astype(np.float32)
    y, x = np.arange(rows, dtype=np.float32), np.arange(columns, dtype=np.float32)
    return moved[:, 0] + y[:, None], moved[:, 1] + x


def look(images: Floats, places: Places) -> Floats:
    """What is seen of images (N, C, H, W) at places between pixels."""
    count, channels, rows, columns = images.shape
    y = np.clip(places[0], 0, rows - 1)
    x = np.clip(places[1], 0, columns - 1)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, right = (y - top)[:, None], (x - left)[:, None]
    below, beside = np.minimum(top + 1, rows - 1), np.minimum(left + 1, columns - 1)
    flat = images.reshape(count, channels, rows * columns)

    def at(row: NDArray[np.int64], column: NDArray[np.int64]) -> Floats:
        place = (row * columns + column).reshape(len(row), 1, rows * columns)
        seen: Floats = np.take_along_axis(
            flat, np.broadcast_to(place, (count, 1, rows * columns)), axis=2
        )
        return seen.reshape(images.shape)

    upper = at(top, left) * (1 - right) + at(top, beside) * right
    lower = at(below, left) * (1 - right) + at(below, beside) * right
    out: Floats = (upper * (1 - down) + lower * down).astype(np.float32)
    return out


def _from_middle(rows: int, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of the output's pixels from the middle of the image, (1, H, W)."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    return y[None] - (rows - 1) / 2, x[None] - (columns - 1) / 2


def _to_pixels(y: NDArray[np.float64], x: NDArray[np.float64], rows: int, columns: int) -> Places:
    return ((y + (rows - 1) / 2).astype(np.float32), (x + (columns - 1) / 2).astype(np.float32))
