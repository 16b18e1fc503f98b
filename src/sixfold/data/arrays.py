"""Records held in memory: for sets that are small anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sixfold.data.dataset import Shape, Sums, sums_of


@dataclass(frozen=True)
class ArrayStore:
    """A store over arrays."""

    pixels: NDArray[np.uint8]  # (N, C, H, W)
    labels: NDArray[np.int64]
    record_names: Sequence[str]
    groups: NDArray[np.int64] | None = None

    @property
    def shape(self) -> Shape:
        """C H W."""
        channels, rows, columns = self.pixels.shape[1:]
        return channels, rows, columns

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `Store.images`."""
        return self.pixels[indices]

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """See `Store.names`."""
        return [self.record_names[index] for index in indices]

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        """See `Store.sums`."""
        return sums_of(self.pixels[indices])
