"""Exact sums of pixels, from which the statistics of a data set follow.

Those of 8-bit pixels are integers. Of floating-point pixels every image's own sums are rounded
once, and what they add up to is exact. So statistics depend neither on the order of images nor on
how they are divided into files.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS, HALF_BITS = 53, 26  # of a float64, and of the lower half of its mantissa

ROUNDING = 1e-12
"""Part of the squared mean below which a variance is what rounding leaves of equal numbers."""

Rational = int | Fraction


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Exact sums of pixel values, or of what each image's floating-point ones add up to."""

    full_scale: int  # by which pixels are divided: see `full_scale`
    pixels: int  # number of pixels a channel
    total: tuple[Rational, ...]  # sum of the values, a channel
    squares: tuple[Rational, ...]  # sum of their squares, a channel

    @staticmethod
    def none(channels: int, dtype: np.dtype[Any]) -> Sums:
        """Of no images."""
        zeros = (0,) * channels
        return Sums(full_scale=full_scale(dtype), pixels=0, total=zeros, squares=zeros)

    def __add__(self, other: Sums) -> Sums:
        both = (
            zip(self.total, other.total, strict=True),
            zip(self.squares, other.squares, strict=True),
        )
        total, squares = (tuple(a + b for a, b in pairs) for pairs in both)
        return Sums(
            full_scale=self.full_scale,
            pixels=self.pixels + other.pixels,
            total=total,
            squares=squares,
        )

    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel, (C,), of pixels over their full scale; 0 without pixels."""
        scale = max(self.pixels, 1) * self.full_scale
        return np.array([float(Fraction(total) / scale) for total in self.total])

    def std(self) -> NDArray[np.float64]:
        """Standard deviation of each channel (over n, not n - 1), (C,), over the full scale."""
        count = max(self.pixels, 1)
        found = []
        for total, squares in zip(self.total, self.squares, strict=True):
            # Rational numbers: the difference of the two large terms is exact.
            spread = Fraction(count * squares - total * total)
            # Of floating-point pixels every image's own sums are rounded.
            is_rounding = self.full_scale == 1 and spread < ROUNDING * total * total
            found.append(0.0 if is_rounding else sqrt(spread / (count * self.full_scale) ** 2))
        return np.array(found)


def full_scale(dtype: np.dtype[Any]) -> int:
    """What pixels are divided by before they are normalised: 255 if they have 8 bits, else 1."""
    return 255 if dtype == np.uint8 else 1


def sums_of(images: NDArray[Any]) -> Sums:
    """Sums over a whole array of images."""
    every = np.ones(len(images), np.int64)
    return weighted_sums(every, *image_sums(images), images.shape[2] * images.shape[3])


def weighted_sums(
    times: NDArray[np.int64], total: NDArray[Any], squares: NDArray[Any], area: int
) -> Sums:
    """Sums over images that each count so many `times` (n,), from their own sums (n, C).

    They are exact, so they depend neither on the order of images nor on how they are divided.
    """
    is_integer = total.dtype.kind == "i"
    exact = _integer_total if is_integer else _rational_total
    return Sums(
        full_scale=255 if is_integer else 1,
        pixels=int(times.sum()) * area,
        total=exact(times, total),
        squares=exact(times, squares),
    )


def _integer_total(times: NDArray[np.int64], values: NDArray[Any]) -> tuple[int, ...]:
    return tuple((times @ values).tolist())


def _rational_total(times: NDArray[np.int64], values: NDArray[Any]) -> tuple[Fraction, ...]:
    """Sums of floating-point numbers (n, C), without rounding."""
    mantissas, exponents = np.frexp(values)
    whole = np.ldexp(mantissas, MANTISSA_BITS).astype(np.int64)
    # Halves of a mantissa, so that no sum of 2^36 of them overflows.
    high, low = whole >> HALF_BITS, whole & ((1 << HALF_BITS) - 1)
    sums = [Fraction(0)] * values.shape[1]
    for exponent in np.unique(exponents).tolist():
        chosen = exponents == exponent
        parts = [(times[:, None] * np.where(chosen, half, 0)).sum(0) for half in (high, low)]
        unit = Fraction(2) ** (exponent - MANTISSA_BITS)
        for channel, (more, rest) in enumerate(zip(*(p.tolist() for p in parts), strict=True)):
            sums[channel] += ((more << HALF_BITS) + rest) * unit
    return tuple(sums)


def image_sums(images: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sum of pixels, and of squared ones, of each image and channel: (n, C, H, W) to two (n, C)."""
    if images.dtype != np.uint8:
        wide = images.reshape(*images.shape[:2], images.shape[2] * images.shape[3])
        wide = wide.astype(np.float64)
        return wide.sum(2), np.square(wide).sum(2)
    total = images.sum((2, 3), dtype=np.int64)
    squares = np.square(images, dtype=np.uint16).sum((2, 3), dtype=np.int64)
    return total, squares
