"""Images made from their index: nothing is stored, and any of them can be made alone.

Class k of ten has a smooth pattern of its own; an image is the mean of its class's pattern and of
uniform noise. A linear classifier learns it, but not from a few images.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.core.random_keys import key
from sixfold.data.dataset import Shape
from sixfold.data.pixel_sums import Sums, sums_of

CLASSES = tuple(f"class {number}" for number in range(10))
MOST_IMAGES = 10**8
MOST_PIXELS = 2**26  # A channel's rows times columns times channels, at most: 64 MiB an image
EXACT_VALUES = 2**24
"""Statistics are exact up to this many pixel values, which takes 30 ms; of larger sets they are
those of evenly spaced training images."""


@dataclass(frozen=True)
class SyntheticStore:
    """A store of made-up images."""

    count: int
    shape: Shape  # C H W
    part: str  # "train" or "test": the same patterns, other noise

    groups = targets = weights = None

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class of each image: its index modulo ten."""
        return np.arange(self.count, dtype=np.int64) % len(CLASSES)

    @cached_property
    def _patterns(self) -> NDArray[np.uint16]:
        """The pattern of each class, (10, C, H, W), 0 to 255."""
        channels, rows, columns = self.shape
        side = 4  # corners of the coarse grid that is interpolated
        coarse = np.random.Philox(key=key("synthetic", "patterns")).random_raw(
            len(CLASSES) * channels * side * side
        )
        grid = (coarse >> np.uint64(56)).astype(np.float64)
        grid = grid.reshape(len(CLASSES), channels, side, side)
        down, across = _interpolation(rows, side), _interpolation(columns, side)
        smooth: NDArray[np.float64] = np.einsum("ra,kcab,sb->kcrs", down, grid, across)
        return np.round(smooth).astype(np.uint16)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(np.uint8)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        channels, rows, columns = self.shape
        size = channels * rows * columns
        words = -(-size // 8)
        start = np.uint64(key("synthetic", self.part))
        first = np.multiply(indices.astype(np.uint64), np.uint64(words), dtype=np.uint64)
        counters = np.add(
            start + first[:, None], np.arange(words, dtype=np.uint64), dtype=np.uint64
        )
        draws = _mix(counters)
        noise = draws.astype("<u8", copy=False).view(np.uint8)[:, :size]
        noise = noise.reshape(-1, channels, rows, columns)
        mean = (self._patterns[indices % len(CLASSES)] + noise) >> 1
        return mean.astype(np.uint8)

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        return [f"synthetic/{self.part}[{index}]" for index in indices]

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        """See `Store.sums`; of at most `EXACT_VALUES` values, evenly spaced in `indices`."""
        channels, rows, columns = self.shape
        # Runs of ten, so that every class counts the same whatever the distance between runs.
        runs = max(EXACT_VALUES // (channels * rows * columns) // len(CLASSES), 1)
        if len(indices) > runs * len(CLASSES):
            starts = np.arange(runs) * (len(indices) // runs)
            indices = indices[(starts[:, None] + np.arange(len(CLASSES))).ravel()]
        first, *more = np.array_split(indices, -(-len(indices) // 256) or 1)
        return sum((sums_of(self.images(chunk)) for chunk in more), sums_of(self.images(first)))


def _interpolation(length: int, side: int) -> NDArray[np.float64]:
    """Linear interpolation from `side` points to `length`, as a matrix (length, side)."""
    place = np.linspace(0, side - 1, length) if length > 1 else np.zeros(1)
    weights: NDArray[np.float64] = np.maximum(1 - np.abs(place[:, None] - np.arange(side)), 0)
    return weights


def _mix(counter: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Random 64 bits for each counter: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    word = counter * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def parse(sizes: str, resize: int | None = None) -> tuple[SyntheticStore, SyntheticStore]:
    """Training and test images from "NxCxHxW"; the test part has max(10, N // 5) images."""
    expected = "expected synthetic:NxCxHxW, such as synthetic:5000x3x32x32"
    match = re.fullmatch(r"(\d{1,15})x(\d{1,9})x(\d{1,9})x(\d{1,9})", sizes)
    if match is None:
        raise UserError(f"--data synthetic:{sizes}: {expected}")
    count, channels, rows, columns = (int(group) for group in match.groups())
    if resize is not None:
        rows = columns = resize
    pixels = channels * rows * columns
    if not (0 < count <= MOST_IMAGES and 0 < pixels <= MOST_PIXELS):
        raise UserError(
            f"--data synthetic:{sizes}: {count} images of {channels}x{rows}x{columns} = {pixels} "
            f"values; every size must be at least 1, with at most {MOST_IMAGES} images of "
            f"{MOST_PIXELS} values; {expected}"
        )
    shape = (channels, rows, columns)
    return SyntheticStore(count, shape, "train"), SyntheticStore(max(10, count // 5), shape, "test")
