"""The sizes of a convolution: seven extents, and how an output position maps to an input position.

Legend: N batch, C input channels, H W input rows and columns, K output channels, P Q output rows
and columns, R S kernel rows and columns, G groups.

    y[n, k, p, q] = sum over c, r, s of
        w[k, c, r, s] * x[n, k // (K/G) * C/G + c, p*stride - padding + r*dilation, ...]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of float32 or float64; results have the type that its operands promote to."""

Pair = tuple[int, int]  # a size for rows and a size for columns


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes of a 2-D convolution of a batch, as `torch.nn.functional.conv2d` means them."""

    batch: int  # N
    channels: int  # C
    size: Pair  # H and W
    maps: int  # K
    kernel: Pair  # R and S
    stride: Pair = (1, 1)  # input pixels between neighbouring outputs
    padding: Pair = (0, 0)  # zeros around the image
    dilation: Pair = (1, 1)  # input pixels between neighbouring taps of the kernel
    groups: int = 1  # G; each K/G maps see only their own C/G channels

    def __post_init__(self) -> None:
        extents = (self.batch, self.channels, *self.size, self.maps, *self.kernel)
        if min(*extents, *self.stride, *self.dilation, self.groups) < 1 or min(self.padding) < 0:
            raise ValueError(f"sizes must be positive: {self}")
        if self.channels % self.groups or self.maps % self.groups:
            raise ValueError(
                f"{self.groups} groups must divide {self.channels} channels and {self.maps} maps"
            )
        if min(self.out) < 1:
            reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
            raise ValueError(
                f"a kernel that reaches over {reach[0]}x{reach[1]} pixels does not fit an image "
                f"of {self.size[0]}x{self.size[1]} padded to {self.padded[0]}x{self.padded[1]}"
            )

    @classmethod
    def of(
        cls,
        image_shape: Sequence[int],
        weight_shape: Sequence[int],
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
    ) -> Geometry:
        """The geometry of images (N, C, H, W) under weights (K, C/G, R, S); a ValueError if none.

        >>> Geometry.of((100, 3, 32, 32), (32, 3, 5, 5), padding=2).out
        (32, 32)
        """
        batch, channels, rows, columns = image_shape
        maps, group_channels, kernel_rows, kernel_columns = weight_shape
        if group_channels * groups != channels:
            raise ValueError(
                f"weights for {group_channels} channels in each of {groups} groups do not fit "
                f"images of {channels} channels"
            )
        return cls(
            batch=batch,
            channels=channels,
            size=(rows, columns),
            maps=maps,
            kernel=(kernel_rows, kernel_columns),
            stride=_pair(stride),
            padding=_pair(padding),
            dilation=_pair(dilation),
            groups=groups,
        )

    @property
    def padded(self) -> Pair:
        """Rows and columns of the padded image."""
        return (self.size[0] + 2 * self.padding[0], self.size[1] + 2 * self.padding[1])

    @property
    def out(self) -> Pair:
        """P and Q."""
        rows, columns = (
            (padded - dilation * (kernel - 1) - 1) // stride + 1
            for padded, dilation, kernel, stride in zip(
                self.padded, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return rows, columns

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (self.batch, self.channels, *self.size)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(K, C/G, R, S)."""
        return (self.maps, self.channels // self.groups, *self.kernel)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, K, P, Q)."""
        return (self.batch, self.maps, *self.out)

    def pad(self, images: Array) -> Array:
        """Images (N, C, H, W) with their zeros around."""
        rows, columns = self.padding
        return np.pad(images, ((0, 0), (0, 0), (rows, rows), (columns, columns)))

    def crop(self, padded: Array) -> Array:
        """What `pad` would have made `padded` from: the adjoint of padding."""
        (rows, columns), (height, width) = self.padding, self.size
        return padded[:, :, rows : rows + height, columns : columns + width]

    def taps(self) -> Iterator[tuple[Pair, tuple[slice, slice]]]:
        """Each tap (r, s) of the kernel, with the padded pixels that it meets at all outputs."""
        for tap in product(*map(range, self.kernel)):
            rows, columns = (
                slice(first, first + stride * (out - 1) + 1, stride)
                for first, stride, out in zip(
                    (k * d for k, d in zip(tap, self.dilation, strict=True)),
                    self.stride,
                    self.out,
                    strict=True,
                )
            )
            yield (tap[0], tap[1]), (rows, columns)

    def expect(self, **arrays: Array) -> None:
        """A ValueError if `images`, `weights` or `outputs` (or gradients) have other shapes."""
        shapes = {
            "images": self.image_shape,
            "weights": self.weight_shape,
            "outputs": self.output_shape,
        }
        for name, array in arrays.items():
            if array.shape != shapes[name]:
                raise ValueError(f"{name} are {array.shape}, expected {shapes[name]} for {self}")


def _pair(size: int | Pair) -> Pair:
    return (size, size) if isinstance(size, int) else size
