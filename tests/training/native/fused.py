"""Multiplication and addition with one rounding, as processors do it, written with NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def fused(a: Array, b: Array, c: Array) -> Array:
    """a b + c of float32, rounded once: exact in double but for the sum, which is rounded to odd.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008.
    """
    product, c = a.astype(np.float64) * b, c.astype(np.float64)
    total = np.asarray(product + c)
    part = total - product
    error = (product - (total - part)) + (c - part)
    is_even = (total.view(np.int64) & 1) == 0
    other = np.nextafter(total, np.copysign(np.inf, error))
    return np.where((error != 0) & is_even, other, total).astype(np.float32)
