"""The distortions once more, slow and obvious: one output pixel at a time, in float64.

Legend: H rows, W columns of one channel of one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sixfold.prediction.robustness.warps import BLUR_REACH, SMOOTH

Image = NDArray[np.float64]


def downsample(image: Image, factor: float) -> Image:
    """Means over cells, then bilinear interpolation between their middles; (H, W)."""
    small = _lines(image, lambda line: _means(line, factor))
    rows, columns = image.shape
    tall = np.stack([_interpolated(column, rows) for column in small.T], axis=1)
    return np.stack([_interpolated(row, columns) for row in tall])


def blur(image: Image, sigma: float) -> Image:
    """A Gaussian along columns, then along rows; (H, W)."""
    return _lines(image, lambda line: _blurred(line, sigma))


def rotate(image: Image, degrees: float) -> Image:
    """Turned counterclockwise as seen; (H, W)."""
    angle = math.radians(degrees)

    def place(y: float, x: float) -> tuple[float, float]:
        # As a complex number with the imaginary axis up, the source is the output turned back.
        source = complex(x, -y) * complex(math.cos(-angle), math.sin(-angle))
        return -source.imag, source.real

    return _warped(image, place)


def barrel(image: Image, strength: float) -> Image:
    """The middle magnified; (H, W)."""
    rows, columns = image.shape
    corner = math.hypot((rows - 1) / 2, (columns - 1) / 2)

    def place(y: float, x: float) -> tuple[float, float]:
        radius = math.hypot(y, x) / corner if corner else 0.0
        scale = (1 + strength * radius**2) / (1 + strength)
        return y * scale, x * scale

    return _warped(image, place)


def elastic(image: Image, draws: Image, strength: float) -> Image:
    """Displaced by the smoothed draws, (2, H, W); (H, W)."""
    rows, columns = image.shape
    sigma = SMOOTH * min(rows, columns)
    moves = np.stack([_lines(field, lambda line: _blurred(line, sigma)) for field in draws])
    out = np.empty_like(image)
    for row in range(rows):
        for column in range(columns):
            unit = np.zeros((rows, columns))
            total = 0.0
            # The weight of each draw in this pixel's sum is what it sees of a single one.
            down = [_blurred(_unit(rows, k), sigma)[row] for k in range(rows)]
            across = [_blurred(_unit(columns, k), sigma)[column] for k in range(columns)]
            for a in range(rows):
                for b in range(columns):
                    unit[a, b] = down[a] * across[b]
                    total += unit[a, b] ** 2
            scale = strength / math.sqrt(total)
            out[row, column] = _seen(
                image, row + scale * moves[0, row, column], column + scale * moves[1, row, column]
            )
    return out


def _unit(size: int, place: int) -> Image:
    line = np.zeros(size)
    line[place] = 1.0
    return line


def _lines(image: Image, change: Callable[[Image], Image]) -> Image:
    """Every column changed, then every row."""
    columns = np.stack([change(column) for column in image.T], axis=1)
    return np.stack([change(row) for row in columns])


def _means(line: Image, factor: float) -> Image:
    """Means of a step function over cells, integrated piece by piece."""
    cells = max(math.ceil(len(line) / factor - 1e-9), 1)
    length = len(line) / cells
    found = []
    for cell in range(cells):
        total = 0.0
        for place, value in enumerate(line):
            overlap = min(place + 1, (cell + 1) * length) - max(place, cell * length)
            total += value * max(overlap, 0.0)
        found.append(total / length)
    return np.array(found)


def _interpolated(cells: Image, size: int) -> Image:
    middles = (np.arange(len(cells)) + 0.5) * size / len(cells) - 0.5
    return np.interp(np.arange(size), middles, cells)


def _blurred(line: Image, sigma: float) -> Image:
    reach = int(BLUR_REACH * sigma + 0.5)
    long = np.concatenate([line, line[::-1]])
    found = []
    for place in range(len(line)):
        total = norm = 0.0
        for offset in range(-reach, reach + 1):
            weight = math.exp(-0.5 * (offset / sigma) ** 2)
            total += weight * long[(place + offset) % len(long)]
            norm += weight
        found.append(total / norm)
    return np.array(found)


def _warped(image: Image, place: Callable[[float, float], tuple[float, float]]) -> Image:
    rows, columns = image.shape
    out = np.empty_like(image)
    for row in range(rows):
        for column in range(columns):
            y, x = place(row - (rows - 1) / 2, column - (columns - 1) / 2)
            out[row, column] = _seen(image, y + (rows - 1) / 2, x + (columns - 1) / 2)
    return out


def _seen(image: Image, y: float, x: float) -> float:
    """Bilinear interpolation at (y, x), the edge going on for ever."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            inside = image[
                min(max(row, 0), image.shape[0] - 1), min(max(column, 0), image.shape[1] - 1)
            ]
            total += weight * inside
    return float(total)
