"""Crops of the padded image, and reflections."""

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from sixfold.core.random_keys import key as key_of
from sixfold.data.augmentation.draws import Floats, Integers
from sixfold.data.augmentation.spec import Images


class Draws(NamedTuple):
    """What was drawn for n images."""

    down: Integers  # rows by which each image's window is moved, (n,)
    right: Integers  # columns by which it is moved, (n,)
    mirrored: NDArray[np.bool_]  # whether it is mirrored left to right then, (n,)


def draw_moves(count: int, key: int, *, pad: int, flip: bool) -> Draws:
    """What happens to so many images.

    Args:
        count: of images.
        key: of the draws.
        pad: pixels by which a window may be moved to each side.
        flip: whether half of the images are mirrored.
    """
    # The same three draws an image whatever is asked for, so that flips do not depend on crops.
    raw = np.random.Philox(key=key).random_raw(3 * count).reshape(3, -1)
    moves = (raw[:2] % np.uint64(2 * pad + 1)).astype(np.int64) - pad
    mirrored = (raw[2] >> np.uint64(63)).astype(np.bool_)
    return Draws(moves[0], moves[1], mirrored if flip else np.zeros_like(mirrored))


def mirrored_at_first(seed: int, images: int) -> NDArray[np.bool_]:
    """Which of a set's images the first epoch mirrors, (N,), where epochs take turns.

    Each later epoch mirrors those that the one before did not (K. Jordan, "94% on CIFAR-10 in 3.29
    seconds", 2024): two that follow each other show both sides of every image.
    """
    raw = np.random.Philox(key=key_of(seed, "flip-alternate")).random_raw(images)
    return (raw >> np.uint64(63)).astype(np.bool_)


def shift(images: Images, down: Integers, right: Integers) -> Images:
    """What a window sees that is moved over each image by its own offset; black outside.

    ``out[i, c, y, x] = images[i, c, y + down[i], x + right[i]]``.
    """
    count, channels, rows, columns = images.shape
    # Further than its own size a window sees nothing but black.
    down, right = np.clip(down, -rows, rows), np.clip(right, -columns, columns)
    pad_y, pad_x = (int(np.abs(moves).max(initial=0)) for moves in (down, right))
    padded = np.zeros((count, channels, rows + 2 * pad_y, columns + 2 * pad_x), images.dtype)
    padded[:, :, pad_y : pad_y + rows, pad_x : pad_x + columns] = images
    # Every window of every image, as a view: one copy then takes one of each.
    image, channel, row, column = padded.strides
    windows = as_strided(
        padded,
        (count, 2 * pad_y + 1, 2 * pad_x + 1, channels, rows, columns),
        (image, row, column, channel, row, column),
        writeable=False,
    )
    chosen: Images = windows[np.arange(count), down + pad_y, right + pad_x]
    return chosen


def mirror(images: Images, chosen: NDArray[np.bool_]) -> Images:
    """Chosen images mirrored left to right, in place."""
    images[chosen] = images[chosen][..., ::-1]
    return images


def flip_rows(images: Images, draws: Floats, _: tuple[float, ...], _mean: NDArray[Any]) -> Images:
    """Half of the images upside down."""
    chosen = draws[:, 0] < 0.5
    images[chosen] = images[chosen][..., ::-1, :]
    return images
