"""Changes of levels and of sharpness that RandAugment uses, with torchvision's formulas."""

import numpy as np

from sixfold.data.augmentation.colors import LEVELS, blend, look_up
from sixfold.data.augmentation.draws import Floats
from sixfold.data.augmentation.spec import Images


def posterize(images: Images, bits: Floats) -> Images:
    """Keep so many of the highest bits (n,) of every level."""
    masks = (-(2 ** (8 - bits.astype(np.int64)))).astype(np.uint8)
    return images & masks[:, None, None, None]


def solarize(images: Images, thresholds: Floats) -> Images:
    """Invert levels from a threshold (n,) on."""
    tables = np.where(thresholds[:, None] <= LEVELS, 255 - LEVELS, LEVELS)
    return look_up(images, tables.astype(np.uint8)[:, None])


def autocontrast(images: Images, _: Floats) -> Images:
    """Stretch every channel from its darkest to its brightest level over 0 to 255."""
    low, high = (value.astype(np.float32) for value in (images.min((2, 3)), images.max((2, 3))))
    flat = low == high
    scale = np.float32(255) / np.where(flat, np.float32(255), high - low)
    low = np.where(flat, np.float32(0), low)
    tables = np.clip((LEVELS - low[:, :, None]) * scale[:, :, None], 0, 255)
    return look_up(images, tables.astype(np.uint8))


def equalize(images: Images, _: Floats) -> Images:
    """Spread every channel's levels so that their histogram is flat."""
    count, channels, rows, columns = images.shape
    rows_of = images.reshape(count * channels, -1)
    places = rows_of + (np.arange(count * channels, dtype=np.int64) * 256)[:, None]
    counts = np.bincount(places.reshape(-1), minlength=count * channels * 256).reshape(-1, 256)
    last = counts[np.arange(len(counts)), rows_of.max(1)]  # of the brightest level there is
    step = ((rows * columns - last) // 255)[:, None]
    before = counts.cumsum(1) - counts
    spread = np.minimum((before + step // 2) // np.maximum(step, 1), 255)
    tables = np.where(step == 0, np.arange(256), spread).astype(np.uint8)
    return look_up(images, tables.reshape(count, channels, 256))


def sharpness(images: Images, factors: Floats) -> Images:
    """By a factor (n,): 0 smooths by a 3x3 kernel of 1 and, in its middle, 5; borders stay."""
    if min(images.shape[2:]) <= 2:
        return images
    wide = images.astype(np.uint16)
    bands = wide[:, :, :-2] + wide[:, :, 1:-1]
    bands += wide[:, :, 2:]
    total = bands[..., :-2] + bands[..., 1:-1]
    total += bands[..., 2:]
    total += 4 * wide[:, :, 1:-1, 1:-1]
    smooth = images.copy()
    smooth[:, :, 1:-1, 1:-1] = (total + 6) // 13
    return blend(images, smooth, factors)
