"""From indices to what a network is fed: read, augment, normalise.

Everything here is element by element in one thread of NumPy, so the bits do not depend on who
makes the batch, in how many pieces, or on what machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from sixfold.data.augmentation.pipeline import Augment
from sixfold.data.dataset import Part
from sixfold.data.pixel_sums import full_scale

if TYPE_CHECKING:
    from torch import Tensor


class Statistics(Protocol):
    """Mean and standard deviation of pixels over their full scale, (C,); a `DataSet` has them."""

    @property
    def mean(self) -> ArrayLike: ...

    @property
    def std(self) -> ArrayLike: ...

    @property
    def dtype(self) -> DTypeLike: ...


class BatchMaker:
    """Makes batches, normalised by the mean and deviation of a data set's training part.

    `box` is the interval of channels, rows and columns that is made of every image; augmentation
    sees all of it.
    """

    def __init__(
        self,
        dataset: Statistics,
        precision: str = "float32",
        box: tuple[tuple[int, int], ...] | None = None,
    ) -> None:
        # A channel that never varies is only centred: it would be divided by zero.
        mean, std = np.asarray(dataset.mean), np.asarray(dataset.std)
        std = np.where(std > 0, std, 1.0)
        self.pixels: np.dtype[Any] = np.dtype(dataset.dtype)
        scale = full_scale(self.pixels)
        mean_pixel = scale * mean if scale == 1 else np.rint(scale * mean).clip(0, scale)
        self.mean_pixel: NDArray[Any] = mean_pixel.astype(self.pixels)
        dtype = np.dtype("float64" if precision == "float64" else "float32")
        self._scale = (1 / (scale * std)).astype(dtype)[:, None, None]
        self._shift = (-mean / std).astype(dtype)[:, None, None]
        self.dtype = dtype
        self._part = None if box is None else tuple(slice(start, stop) for start, stop in box)
        if self._part is not None:
            self._scale, self._shift = self._scale[self._part[0]], self._shift[self._part[0]]

    def __call__(
        self,
        part: Part,
        indices: NDArray[np.int64],
        *,
        augment: Augment | None = None,
        key: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W), augmented by the randomness of `key`, and their `truth`."""
        import torch

        images = part.images(indices)
        if augment is not None:
            images = augment.apply(images, key, self.mean_pixel)
        return (
            torch.from_numpy(self.normalise(images)),
            torch.from_numpy(self.truth(part, indices)),
        )

    def truth(self, part: Part, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Classes (n,), int64; or targets (n, K), where images have several labels or numbers."""
        if part.targets is None:
            return part.labels[indices]
        return part.targets[indices].astype(self.dtype)

    @property
    def factors(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """What pixels are multiplied by, and what is added then: (C, 1, 1) each."""
        return self._scale, self._shift

    def normalise(self, images: NDArray[Any]) -> NDArray[np.float32] | NDArray[np.float64]:
        """(p / full scale - mean) / std of each channel, (n, C, H, W), of the part that is made."""
        if self._part is not None:
            images = images[(slice(None), *self._part)]
        out = images.astype(self.dtype, order="C")
        out *= self._scale
        out += self._shift
        return out
