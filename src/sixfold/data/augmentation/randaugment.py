"""RandAugment: N operations an image, each drawn from fourteen, all of one magnitude.

Operations, ranges and formulas are those of torchvision's ``RandAugment``: magnitude M of 0 to 30
picks a place of each operation's range, and half of the signed ones go the other way.

E. D. Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search
space", 2019.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sixfold.data.augmentation import colors, levels
from sixfold.data.augmentation.draws import Floats, below
from sixfold.data.augmentation.spec import Images
from sixfold.data.augmentation.warps import rotation, warp

LARGEST = 30


def _shear_x(images: Images, values: Floats) -> Images:
    return warp(images, _shears(values, images.shape[2], 0))


def _shear_y(images: Images, values: Floats) -> Images:
    return warp(images, _shears(values, images.shape[3], 1))


def _shears(values: Floats, size: int, row: int) -> Floats:
    """Matrices that leave the first row (column) of the image where it is."""
    out = rotation(np.zeros(len(values)))
    out[:, row, 1 - row] = values
    out[:, row, 2] = values * (size / 2)
    return out


def _translate(images: Images, values: Floats, row: int) -> Images:
    out = rotation(np.zeros(len(values)))
    out[:, row, 2] = -np.trunc(values)
    return warp(images, out)


Operation = Callable[[Images, Floats], Images]

OPERATIONS: dict[str, tuple[Operation, Callable[[float, tuple[int, int]], float], bool]] = {
    # name: (what it does, its value of a part of the range from 0 to 1 and (H, W), signed?)
    "identity": (lambda images, _: images, lambda _, _size: 0.0, False),
    "shear-x": (_shear_x, lambda part, _: 0.3 * part, True),
    "shear-y": (_shear_y, lambda part, _: 0.3 * part, True),
    "translate-x": (
        lambda images, values: _translate(images, values, 0),
        lambda part, size: 150 / 331 * size[1] * part,
        True,
    ),
    "translate-y": (
        lambda images, values: _translate(images, values, 1),
        lambda part, size: 150 / 331 * size[0] * part,
        True,
    ),
    "rotate": (
        lambda images, values: warp(images, rotation(values)),
        lambda part, _: 30 * part,
        True,
    ),
    "brightness": (colors.brightness, lambda part, _: 0.9 * part, True),
    "color": (colors.saturation, lambda part, _: 0.9 * part, True),
    "contrast": (colors.contrast, lambda part, _: 0.9 * part, True),
    "sharpness": (levels.sharpness, lambda part, _: 0.9 * part, True),
    "posterize": (levels.posterize, lambda part, _: 8 - round(4 * part), False),
    "solarize": (levels.solarize, lambda part, _: 255 * (1 - part), False),
    "autocontrast": (levels.autocontrast, lambda _, _size: 0.0, False),
    "equalize": (levels.equalize, lambda _, _size: 0.0, False),
}

FACTORS = {"brightness", "color", "contrast", "sharpness"}
"""Operations whose value is a factor: 1 and what was drawn."""


def randaugment(
    images: Images, draws: Floats, settings: tuple[float, ...], _: NDArray[np.uint8]
) -> Images:
    """Settings are the number of operations and their magnitude."""
    operations, magnitude = int(settings[0]), settings[1]
    size = images.shape[2], images.shape[3]
    for number in range(operations):
        which = below(draws[:, 2 * number], len(OPERATIONS))
        negative = draws[:, 2 * number + 1] < 0.5
        for place, (name, (change, value_of, signed)) in enumerate(OPERATIONS.items()):
            chosen = np.flatnonzero(which == place)
            if name == "identity" or not len(chosen):
                continue
            value = value_of(magnitude / LARGEST, size)
            values = np.where(negative[chosen] & signed, -value, value)
            values = values + 1 if name in FACTORS else values
            images[chosen] = change(images[chosen], values)
    return images
