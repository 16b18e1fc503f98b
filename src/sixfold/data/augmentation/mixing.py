"""MixUp and CutMix: images of a logical shard mixed with each other's, and their labels alike.

Image i is mixed with image i - 1 of its shard (the first with the last), which is a random other
one, since the order of the samples is random. One share s, from Beta(a, a), is drawn for a shard:

    MixUp    x = s x_i + (1 - s) x_j     of normalised images
    CutMix   a box of about 1 - s of the area comes from x_j; s is then what is left, exactly
    loss     s l(f(x), y_i) + (1 - s) l(f(x), y_j)

H. Zhang et al., "mixup: Beyond empirical risk minimization", 2017; S. Yun et al., "CutMix", 2019;
the box as torchvision's ``CutMix`` has it.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data.augmentation.draws import uniform
from sixfold.data.augmentation.spec import Images, Mix


def draw_share(key: int, alpha: float) -> float:
    """From Beta(alpha, alpha)."""
    return float(np.random.Generator(np.random.Philox(key=key)).beta(alpha, alpha))


def draw_mixup(key: int, _: tuple[int, int], settings: tuple[float, ...]) -> Mix:
    """The setting is alpha."""
    return Mix(draw_share(key, settings[0]), None)


def draw_cutmix(key: int, size: tuple[int, int], settings: tuple[float, ...]) -> Mix:
    """The setting is alpha; (H, W) the size of the images."""
    share = draw_share(key, settings[0])
    rows, columns = size
    down, across = uniform(key ^ 1, 1, 2)[0].tolist()
    side = 0.5 * math.sqrt(1 - share)  # half of it, as part of the image's
    y, x = int(down * rows), int(across * columns)
    half_y, half_x = int(side * rows), int(side * columns)
    top, bottom = max(y - half_y, 0), min(y + half_y, rows)
    left, right = max(x - half_x, 0), min(x + half_x, columns)
    pasted = (bottom - top) * (right - left) / (rows * columns)
    return Mix(1 - pasted, (top, bottom, left, right))


def paste(images: Images, mix: Mix) -> None:
    """Paste the box of each image's partner, in place; nothing if the mix is a blend."""
    if mix.box is None:
        return
    top, bottom, left, right = mix.box
    box = images[:, :, top:bottom, left:right]
    box[:] = np.roll(box, 1, axis=0)


def combine(images: NDArray[Any], mix: Mix) -> None:
    """Blend each normalised image with its partner, in place; nothing if the mix is a box."""
    if mix.box is not None:
        return
    others = np.roll(images, 1, axis=0)
    others *= images.dtype.type(1 - mix.share)
    images *= images.dtype.type(mix.share)
    images += others
