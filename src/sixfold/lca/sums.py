"""Sums in fixed point: the same bits in whatever order, or in however many parts, they are made.

Energy and certificate decide when an element stops and how its time step changes. Where an image
is divided over processes these sums are made of parts, and a sum of floats would come out
otherwise in the last digit. Integers do not: every term is cut to a multiple of a power of
two that follows from the number of terms, then added exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

HEADROOM_BITS = 20
"""Terms may be this many bits above 1; larger ones, of a code that has diverged, are cut."""


def fraction_bits(terms: int) -> int:
    """Bits after the point with which so many terms can be added in 64 bits.

    >>> fraction_bits(16384)
    28
    """
    return 62 - HEADROOM_BITS - max(terms - 1, 1).bit_length()


def fixed_sum(values: Tensor, scale: Tensor, terms: int) -> Tensor:
    """The sum over all but the first dim, in integers, (W,) int64.

    Args:
        values: (W, ...), float32 or float64; NaN makes the sum meaningless.
        scale: (W,), powers of two by which terms are multiplied before they are cut to integers.
        terms: most terms over all parts of the sum; none may count for more than this number
            allows, so that nothing overflows.

    >>> fixed_sum(torch.tensor([[0.5, 0.25], [1.0, -1.0]]), torch.tensor([4.0, 4.0]), 2).tolist()
    [3, 0]
    """
    # Scaling by a power of two is exact in any precision; what is then cut off is below the unit.
    scaled = values * scale.to(values.dtype).view(-1, *[1] * (values.dim() - 1))
    bound = 2.0 ** (62 - max(terms - 1, 1).bit_length())
    return scaled.clamp_(-bound, bound).to(torch.int64).flatten(1).sum(1)


def power_of_two_above(values: Tensor) -> Tensor:
    """The smallest power of two above each value, float64; 1 for values that are zero.

    >>> power_of_two_above(torch.tensor([0.0, 0.3, 1.0, 255.0])).tolist()
    [1.0, 0.5, 2.0, 256.0]
    """
    _, exponent = torch.frexp(values.double())
    powers = torch.ldexp(torch.ones_like(values, dtype=torch.float64), exponent)
    return torch.where(values > 0, powers, 1.0)
