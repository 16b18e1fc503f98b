"""Brightness, contrast, saturation and hue, with torchvision's formulas for uint8 images.

    blend(p, q, r) = floor( clamp( r p + (1 - r) q, 0, 255 ) )
    brightness: q = 0        contrast: q = mean of the grey image        saturation: q = grey image
    grey = floor( 0.2989 red + 0.587 green + 0.114 blue )

Images of other than three channels have no colours: grey is the mean of the channels, and
saturation and hue leave them as they are.
"""

import numpy as np
from numpy.typing import NDArray

from sixfold.data.augmentation.draws import Floats, between
from sixfold.data.augmentation.spec import Images

Single = NDArray[np.float32]
LEVELS = np.arange(256, dtype=np.float32)


def grey(images: Images) -> Images:
    """(n, H, W)."""
    if images.shape[1] != 3:
        mean: Single = images.mean(1, dtype=np.float32)
        return mean.astype(np.uint8)
    out: Single = images[:, 0] * np.float32(0.2989)
    out += images[:, 1] * np.float32(0.587)
    out += images[:, 2] * np.float32(0.114)
    return out.astype(np.uint8)


def blend(images: Images, others: Images | Single, ratios: Floats) -> Images:
    """`blend` of images and others, which may be broadcast, by each image's ratio (n,)."""
    ratio = ratios.astype(np.float32)[:, None, None, None]
    out: Single = images * ratio
    out += others * (1 - ratio)
    np.clip(out, 0, 255, out=out)
    return out.astype(np.uint8)


def look_up(images: Images, tables: Images) -> Images:
    """Every pixel p of image i and channel c becomes tables[i, c, p].

    Args:
        images: (n, C, H, W).
        tables: (n, C, 256), or (n, 1, 256) for all channels of an image.
    """
    channels, rows, columns = images.shape[1:]
    each = rows * columns * (channels if tables.shape[1] == 1 else 1)
    tables = tables.reshape(-1, 256)
    places = images.reshape(-1, each) + (np.arange(len(tables), dtype=np.int32) * 256)[:, None]
    found: Images = tables.reshape(-1).take(places)
    return found.reshape(images.shape)


def brightness(images: Images, factors: Floats) -> Images:
    """By a factor (n,); 1 leaves an image as it is."""
    return look_up(images, blended_levels(np.zeros(len(images)), factors))


def contrast(images: Images, factors: Floats) -> Images:
    """By a factor (n,)."""
    means = grey(images).mean((1, 2), dtype=np.float64)
    return look_up(images, blended_levels(means, factors))


def blended_levels(others: Floats, ratios: Floats) -> Images:
    """Tables (n, 1, 256) of a blend with one level (n,) of each image."""
    levels = np.broadcast_to(LEVELS.astype(np.uint8), (len(others), 1, 1, 256))
    return blend(levels, others.astype(np.float32)[:, None, None, None], ratios)[:, 0]


def saturation(images: Images, factors: Floats) -> Images:
    """By a factor (n,); 0 is grey."""
    if images.shape[1] != 3:
        return images
    return blend(images, grey(images)[:, None], factors)


def hue(images: Images, turns: Floats) -> Images:
    """Turn each image's hues by a part (n,) of the circle, in HSV."""
    if images.shape[1] != 3:
        return images
    colors = images.astype(np.float32)
    colors /= 255
    value = colors.max(1)
    spread = value - colors.min(1)
    divisor = np.where(spread == 0, np.float32(1), spread)
    red, green, blue = (((value - colors[:, c]) / divisor) for c in range(3))
    sixths = np.where(
        colors[:, 0] == value,
        blue - green,
        np.where(colors[:, 1] == value, 2 + red - blue, 4 + green - red),
    )
    sixths += (6 * turns).astype(np.float32)[:, None, None]
    # Of the three channels, each is value - spread * (0 ... 1) by its distance from the hue.
    out = np.empty_like(images)
    for channel, offset in enumerate((5, 3, 1)):
        k = sixths + np.float32(offset)
        k -= 6 * np.floor(k / 6)
        np.minimum(k, 4 - k, out=k)
        np.clip(k, 0, 1, out=k)
        k *= spread
        np.subtract(value, k, out=k)
        k *= np.float32(255.999)
        out[:, channel] = k
    return out


CHANGES = (brightness, contrast, saturation, hue)


def color_jitter(
    images: Images, draws: Floats, settings: tuple[float, ...], _: NDArray[np.uint8]
) -> Images:
    """All four changes, each image in an order of its own; settings say how far each may go."""
    strengths = np.array(settings)
    factors = between(draws[:, :3], np.maximum(1 - strengths[:3], 0), 1 + strengths[:3])
    turns = between(draws[:, 3:4], -strengths[3], strengths[3])
    factors = np.concatenate([factors, turns], 1)
    order = draws[:, 4:8].argsort(1, kind="stable")
    for place in range(4):
        for number, change in enumerate(CHANGES):
            chosen = np.flatnonzero(order[:, place] == number)
            if settings[number] and len(chosen):
                images[chosen] = change(images[chosen], factors[chosen, number])
    return images
