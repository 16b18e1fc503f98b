"""Random crops and flips of training images, drawn from one integer for a whole batch.

The draws are made for all images of a logical shard at once, so a rank that computes only some of
them, or recomputes them, sees what any other would have seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from sixfold.core.errors import UserError

DEFAULT_PAD = 4
"""Pixels, as usual for CIFAR-10 (He et al., "Deep residual learning", 2015, section 4.2)."""


class Draws(NamedTuple):
    """What was drawn for n images."""

    down: NDArray[np.int64]  # rows by which each image's window is moved, (n,) int64
    right: NDArray[np.int64]  # columns by which it is moved, (n,) int64
    mirrored: NDArray[np.bool_]  # whether it is mirrored left to right then, (n,) bool


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to training images."""

    # pixels by which a crop may be moved to each side, the rest being black; 0: no crop
    pad: int = 0
    flip: bool = False  # whether half of the images are mirrored left to right

    def apply(self, images: NDArray[np.uint8], key: int) -> NDArray[np.uint8]:
        """Crop and flip (n, C, H, W), which may be overwritten; the same key, the same bits."""
        if not self.pad and not self.flip:
            return images
        draws = self.draws(len(images), key)
        if self.pad:
            images = shift(images, draws.down, draws.right)
        if self.flip:
            images[draws.mirrored] = images[draws.mirrored][..., ::-1]
        return images

    def draws(self, count: int, key: int) -> Draws:
        """What `apply` does to so many images; nothing where it is not asked for."""
        # The same three draws an image whatever is asked for, so that flips do not depend on crops.
        raw = np.random.Philox(key=key).random_raw(3 * count).reshape(3, -1)
        moves = (raw[:2] % np.uint64(2 * self.pad + 1)).astype(np.int64) - self.pad
        mirrored = (raw[2] >> np.uint64(63)).astype(np.bool_)
        return Draws(moves[0], moves[1], mirrored if self.flip else np.zeros_like(mirrored))


def shift(
    images: NDArray[np.uint8], down: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """What a window sees that is moved over each image by its own offset; black outside.

    ``out[i, c, y, x] = images[i, c, y + down[i], x + right[i]]``.
    """
    count, channels, rows, columns = images.shape
    # Further than its own size a window sees nothing but black.
    down, right = np.clip(down, -rows, rows), np.clip(right, -columns, columns)
    pad_y, pad_x = (int(np.abs(moves).max(initial=0)) for moves in (down, right))
    padded = np.zeros((count, channels, rows + 2 * pad_y, columns + 2 * pad_x), np.uint8)
    padded[:, :, pad_y : pad_y + rows, pad_x : pad_x + columns] = images
    # Every window of every image, as a view: one copy then takes one of each.
    image, channel, row, column = padded.strides
    windows = as_strided(
        padded,
        (count, 2 * pad_y + 1, 2 * pad_x + 1, channels, rows, columns),
        (image, row, column, channel, row, column),
        writeable=False,
    )
    chosen: NDArray[np.uint8] = windows[np.arange(count), down + pad_y, right + pad_x]
    return chosen


def parse_augment(text: str) -> Augment:
    """Read `--augment`: ``none``, or a list of ``crop`` or ``crop:PAD`` and ``flip``.

    >>> parse_augment("crop:2,flip")
    Augment(pad=2, flip=True)
    """
    if text == "none":
        return Augment()
    pad, flip, seen = 0, False, set()
    for word in text.split(","):
        match = re.fullmatch(r"(crop)(?::(\d{1,4}))?|(flip)", word.strip())
        name = match and (match[1] or match[3])
        if match is None or name in seen or (match[2] is not None and int(match[2]) == 0):
            raise UserError(
                f"--augment {text!r}: expected none, or crop, crop:PAD (PAD pixels, at least 1) "
                "and flip, each at most once, separated by commas, such as crop:4,flip"
            )
        seen.add(name)
        if match[1]:
            pad = int(match[2] or DEFAULT_PAD)
        else:
            flip = True
    return Augment(pad=pad, flip=flip)
