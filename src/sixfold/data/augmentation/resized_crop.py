"""Random-resized-crop: a box of random area and aspect ratio, brought back to the image's size.

The image has its final size already, so a box is only ever enlarged, and bilinear interpolation
needs no anti-aliasing. With h of H rows kept, row y of the result lies at

    s = max( (y + 1/2) h / H - 1/2, 0 ),    value = (1 - frac s) p[floor s] + frac s p[floor s + 1]

and columns likewise. C. Szegedy et al., "Going deeper with convolutions", 2015; tries, fallback
and rounding as in torchvision's ``RandomResizedCrop``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data.augmentation.draws import Floats, Integers, below, boxes
from sixfold.data.augmentation.spec import Images

TRIES = 10
RATIO = (3 / 4, 4 / 3)


def resized_crop(
    images: Images, draws: Floats, settings: tuple[float, ...], _: NDArray[Any]
) -> Images:
    """Crop and enlarge; settings are the least and the largest part of the area."""
    rows, columns = images.shape[2:]
    area = min(settings), max(settings)
    heights, widths, found = boxes(draws[:, : 2 * TRIES], (rows, columns), area, RATIO)
    tops = below(draws[:, -2], rows - heights + 1)
    lefts = below(draws[:, -1], columns - widths + 1)
    if not found.all():
        height, width = fallback(rows, columns)
        heights, widths = np.where(found, heights, height), np.where(found, widths, width)
        tops = np.where(found, tops, (rows - height) // 2)
        lefts = np.where(found, lefts, (columns - width) // 2)
    return enlarge(images, tops, lefts, heights, widths)


def fallback(rows: int, columns: int) -> tuple[int, int]:
    """The largest box in the middle whose aspect ratio is allowed."""
    ratio = columns / rows
    if ratio < RATIO[0]:
        return round(columns / RATIO[0]), columns
    return (rows, round(rows * RATIO[1])) if ratio > RATIO[1] else (rows, columns)


def enlarge(
    images: Images, tops: Integers, lefts: Integers, heights: Integers, widths: Integers
) -> Images:
    """Each image's box (n,) of rows and columns, at the size of the image."""
    rows, columns = images.shape[2:]
    image = np.arange(len(images))[:, None]
    first, second, factor = _taps(rows, tops, heights)
    # Advanced indices around a slice put its axis behind them: (n, H, C, W).
    high = _between(images[image, :, first], images[image, :, second], factor)
    wide = np.ascontiguousarray(high.transpose(0, 3, 2, 1))  # (n, W, C, H): columns as rows
    first, second, factor = _taps(columns, lefts, widths)
    out = _between(wide[image, first], wide[image, second], factor)
    if images.dtype == np.uint8:
        np.rint(out, out=out)
    return np.ascontiguousarray(out.astype(images.dtype, copy=False).transpose(0, 2, 3, 1))


def _taps(
    size: int, starts: Integers, lengths: Integers
) -> tuple[Integers, Integers, NDArray[np.float32]]:
    """For each place of the result two places of the image, and how much the second counts."""
    places = (np.arange(size) + 0.5) * (lengths / size)[:, None] - 0.5
    places = np.maximum(places, 0)
    first = places.astype(np.int64)
    second = np.minimum(first + 1, lengths[:, None] - 1)
    factor = (places - first).astype(np.float32)
    return first + starts[:, None], second + starts[:, None], factor


def _between(
    first: NDArray[np.generic], second: NDArray[np.generic], factor: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`first` and `second` (n, H, C, W), mixed by a factor (n, H)."""
    out = first.astype(np.float32)
    step = second.astype(np.float32)
    step -= out
    step *= factor[:, :, None, None]
    out += step
    return out
