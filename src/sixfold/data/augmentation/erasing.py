"""Random erasing and cutout: a box of an image becomes the mean colour of the training images.

Z. Zhong et al., "Random erasing data augmentation", 2017 (tries and ranges as torchvision's
``RandomErasing``, whose fill after normalisation, 0, is the mean colour); T. DeVries, G. W. Taylor,
"Improved regularization of convolutional neural networks with cutout", 2017.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data.augmentation.draws import Floats, Integers, below, boxes
from sixfold.data.augmentation.spec import Images

TRIES = 10
AREA, RATIO = (0.02, 0.33), (0.3, 3.3)


def erase(images: Images, draws: Floats, settings: tuple[float, ...], mean: NDArray[Any]) -> Images:
    """With the probability of the setting, erase a box of random area and aspect ratio."""
    rows, columns = images.shape[2:]
    heights, widths, found = boxes(draws[:, 1:-2], (rows, columns), AREA, RATIO)
    found &= draws[:, 0] < settings[0]
    heights, widths = heights * found, widths * found
    tops = below(draws[:, -2], rows - heights + 1)
    lefts = below(draws[:, -1], columns - widths + 1)
    return fill(images, tops, lefts, heights, widths, mean)


def cutout(
    images: Images, draws: Floats, settings: tuple[float, ...], mean: NDArray[Any]
) -> Images:
    """Erase a square of so many pixels a side around a random pixel, as far as it is inside."""
    side = int(settings[0])
    rows, columns = images.shape[2:]
    tops = below(draws[:, 0], rows) - side // 2
    lefts = below(draws[:, 1], columns) - side // 2
    sides = np.full(len(images), side)
    return fill(images, tops, lefts, sides, sides, mean)


def fill(
    images: Images,
    tops: Integers,
    lefts: Integers,
    heights: Integers,
    widths: Integers,
    color: NDArray[Any],
) -> Images:
    """Fill each image's box (n,), as far as it is inside, with a colour (C,), in place."""
    y, x = (np.arange(length) for length in images.shape[2:])
    down = (y >= tops[:, None]) & (y < (tops + heights)[:, None])
    across = (x >= lefts[:, None]) & (x < (lefts + widths)[:, None])
    box = (down[:, :, None] & across[:, None, :])[:, None]
    np.copyto(images, color[None, :, None, None], where=box)
    return images
