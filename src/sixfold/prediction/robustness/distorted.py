"""A part of a data set whose images are distorted as they are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sixfold.data.dataset import Part, Shape, Sums, sums_of
from sixfold.prediction.robustness.distortions import Distortion


@dataclass(frozen=True, kw_only=True)
class DistortedStore:
    """A `sixfold.data.dataset.Store` over a part."""

    part: Part  # where the images come from
    # class of each of its images in the network, (N,); -1 where it has none
    labels: NDArray[np.int64]
    distortion: Distortion | None  # what is done to them; nothing if None

    @property
    def shape(self) -> Shape:
        """C H W of every image."""
        return self.part.shape

    @property
    def groups(self) -> None:
        """Every image stands for itself."""
        return

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Distorted pixels, (n, C, H, W)."""
        images = self.part.images(indices)
        return images if self.distortion is None else self.distortion(images, indices)

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """Names of the images."""
        return list(self.part.names(indices))

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        """Sums over the distorted pixels."""
        return sums_of(self.images(indices))


def known_labels(part: Part, classes: tuple[int, ...]) -> NDArray[np.int64]:
    """The network's class of each image, (N,), by that of each class of the data, or -1."""
    table = np.array([*classes, -1], np.int64)
    labels = np.where((part.labels >= 0) & (part.labels < len(classes)), part.labels, -1)
    found: NDArray[np.int64] = table[labels]
    return found


def chosen_images(labels: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """Places of the images whose class is known; of many, so many evenly spaced ones.

    >>> chosen_images(np.array([0, -1, 1, 1, 0]), 2).tolist()
    [0, 4]
    """
    known = np.flatnonzero(labels >= 0)
    if most is None or most >= len(known):
        return known
    return known[np.linspace(0, len(known) - 1, most).round().astype(np.int64)]


def one_of_each(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """All places, the first of every class before the second of any.

    >>> one_of_each(np.array([1, 1, 0, 1, 0])).tolist()
    [2, 0, 4, 1, 3]
    """
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        turn[own] = np.arange(len(own))
    return np.lexsort((labels, turn))
