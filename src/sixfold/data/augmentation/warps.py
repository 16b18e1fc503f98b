"""Rotations, shears and translations: every pixel of the result looks up one pixel of the image.

With (x, y) measured from the middle of the image, pixel (x, y) of the result is the pixel of the
image nearest to

    x' = a x + b y + c,    y' = d x + e y + f

and black where that lies outside. As torchvision's affine transforms on tensors, nearest neighbour.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data.augmentation.draws import Floats, between
from sixfold.data.augmentation.spec import Images


def warp(images: Images, matrices: Floats) -> Images:
    """Look up the pixels of each image by its matrix (n, 2, 3)."""
    count, channels, rows, columns = images.shape
    x = np.arange(columns) - (columns - 1) / 2
    y = np.arange(rows) - (rows - 1) / 2
    (a, b, c), (d, e, f) = (matrices[:, row].T[:, :, None] for row in range(2))  # (n, 1) each
    across = (a * x)[:, None, :] + (b * y + (c + (columns - 1) / 2))[:, :, None]  # (n, H, W)
    down = (d * x)[:, None, :] + (e * y + (f + (rows - 1) / 2))[:, :, None]
    np.rint(across, out=across)
    np.rint(down, out=down)
    outside = (across < 0) | (across > columns - 1) | (down < 0) | (down > rows - 1)
    down *= columns
    down += across
    # One black pixel behind each channel is what lies outside.
    size = rows * columns + 1
    down[outside] = size - 1
    padded = np.zeros((count, channels, size), images.dtype)
    padded[:, :, :-1] = images.reshape(count, channels, -1)
    places = down.astype(np.intp).reshape(count, -1)
    places += np.arange(count)[:, None] * (channels * size)
    out = np.empty_like(images)
    for channel in range(channels):
        out[:, channel] = padded.reshape(-1).take(places).reshape(count, rows, columns)
        places += size
    return out


def rotation(degrees: Floats) -> Floats:
    """Matrices (n, 2, 3) that turn images counter-clockwise about their middle."""
    turn = np.deg2rad(degrees)
    out = np.zeros((len(turn), 2, 3))
    out[:, 0, 0] = out[:, 1, 1] = np.cos(turn)
    out[:, 1, 0] = np.sin(turn)
    out[:, 0, 1] = -out[:, 1, 0]
    return out


def rotate(images: Images, draws: Floats, settings: tuple[float, ...], _: NDArray[Any]) -> Images:
    """Turn each image by up to so many degrees, either way."""
    return warp(images, rotation(between(draws[:, 0], -settings[0], settings[0])))
