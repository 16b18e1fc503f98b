"""What is done to images before they are coded.

    none       pixels in [0, 1]
    centre     less the mean of each channel over the training images
    contrast   each image by itself to mean 0 and standard deviation 1 (over all channels)
    whiten     contrast, then a zero-phase whitening filter (ZCA) learned from the images

Without whitening, natural images have most of their power in low frequencies, atoms become
alike, and codes take long to settle; whitened, atoms become oriented edges and colour blobs.

The filter is the central rows of C^(-1/2), with C the covariance of patches: Bell and Sejnowski,
"The 'independent components' of natural scenes are edge filters", 1997. Departures: it is applied
as a convolution (with the image mirrored at its edges) and small eigenvalues, which hold noise,
are damped by `RIDGE` times the largest.

Every image is prepared alone, so the result does not depend on the batch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sixfold.data.pixel_sums import full_scale

KINDS = ("none", "centre", "contrast", "whiten")
WHITENING_SIDE = 7
"""Rows and columns of the whitening filter: as far as neighbouring pixels tell of each other."""

RIDGE = 1e-2  # share of the largest eigenvalue that is added to all: noise above it is not blown up
SAMPLE = 2000  # images from which the filter is learned, the first of the training part
FLAT = 1e-3
"""An image that varies less (in [0, 1]) is left at zero rather than divided by next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How images are prepared."""

    kind: str  # one of `KINDS`
    mean: tuple[float, ...] = ()  # (C,), in [0, 1], for `centre`
    whitening: Tensor | None = None  # (C, C, side, side), for `whiten`

    def __call__(self, pixels: NDArray[Any], dtype: torch.dtype) -> Tensor:
        """Prepared images (n, C, H, W) from pixels (n, C, H, W)."""
        images = torch.from_numpy(pixels).to(dtype) / full_scale(pixels.dtype)
        if self.kind == "centre":
            images -= torch.tensor(self.mean, dtype=dtype).view(1, -1, 1, 1)
        if self.kind in ("contrast", "whiten"):
            images = torch.stack([contrast(image) for image in images])
        if self.whitening is not None:
            kernel = self.whitening.to(dtype)
            # One at a time: the library may compute batches of another size otherwise.
            images = torch.cat([_filter(image[None], kernel) for image in images])
        return images


def contrast(image: Tensor) -> Tensor:
    """An image with mean 0 and standard deviation 1, (C, H, W)."""
    centred = image - image.mean()
    deviation = centred.square().mean().sqrt()
    return centred / deviation if float(deviation) > FLAT else torch.zeros_like(image)


def _filter(image: Tensor, kernel: Tensor) -> Tensor:
    rows, columns = kernel.shape[2] // 2, kernel.shape[3] // 2
    mirrored = functional.pad(image, (columns, columns, rows, rows), mode="reflect")
    return functional.conv2d(mirrored, kernel)


def learn_preprocess(kind: str, mean: NDArray[np.float64], sample: NDArray[Any]) -> Preprocess:
    """The preparation of a kind, with the filter that it learns from a sample (n, C, H, W)."""
    kernel = None
    if kind == "whiten":
        images = Preprocess(kind="contrast")(sample, torch.float64)
        kernel = whitening_filter(images)
        whitened = torch.cat([_filter(image[None], kernel) for image in images])
        kernel /= whitened.square().mean().sqrt()
    return Preprocess(kind=kind, mean=tuple(map(float, mean)), whitening=kernel)


def whitening_filter(images: Tensor) -> Tensor:
    """The filter (C, C, side, side) that makes neighbouring pixels of such images uncorrelated.

    Images are (n, C, H, W), float64, each of mean 0; the side is odd, and no larger than they are.
    """
    c, h, w = images.shape[1:]
    rows, columns = (min(WHITENING_SIDE, size - 1 + size % 2) for size in (h, w))
    covariance = torch.zeros(c * rows * columns, c * rows * columns, dtype=torch.float64)
    patches = 0
    for image in images:
        found = functional.unfold(image[None], (rows, columns))[0]  # (C rows columns, places)
        covariance += found @ found.t()
        patches += found.shape[1]
    values, vectors = torch.linalg.eigh(covariance / max(patches, 1))
    values = values.clamp(min=0)
    gains = (values + RIDGE * values[-1].clamp(min=1e-12)).rsqrt()
    whole = (vectors * gains) @ vectors.t()
    centre = (rows // 2) * columns + columns // 2
    central = whole.view(c, rows * columns, -1)[:, centre]
    kernel: Tensor = central.reshape(c, c, rows, columns).contiguous()
    return kernel
