"""Geometric distortions: every output pixel looks at a place of the image between its pixels.

A warp says for each output pixel where it looks; what it sees there is interpolated bilinearly, and
places beyond the edge see the edge. Coordinates are those of the middles of pixels, in pixels.

The elastic distortion is that of P. Y. Simard, D. Steinkraus, J. C. Platt, "Best practices for
convolutional neural networks applied to visual document analysis", ICDAR 2003: independent random
displacements, smoothed by a Gaussian. It departs from them in that the displacements are normal,
and scaled so that their standard deviation is the strength at every pixel, at the edges too.

Legend: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sixfold.prediction.robustness.taps import Floats, blurred, gaussian

SMOOTH = 1 / 8
"""Standard deviation of the smoothing of elastic displacements, in shorter sides of the image: 4
pixels of 32, as in the source (4 of 28)."""

Places = tuple[Floats, Floats]
"""Rows and columns looked at, (N or 1, H, W) each."""


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
    down, across = gaussian(rows, sigma), gaussian(columns, sigma)
    smooth = blurred(draws, sigma)
    # Standard deviation of a weighted sum of normals; at the edges weights meet and it is larger.
    spread = np.outer(
        np.sqrt((down.matrix(rows) ** 2).sum(1)), np.sqrt((across.matrix(columns) ** 2).sum(1))
    )
    moved = smooth * (strength / spread).astype(np.float32)
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
    return (
        (y + (rows - 1) / 2).astype(np.float32),
        (x + (columns - 1) / 2).astype(np.float32),
    )
