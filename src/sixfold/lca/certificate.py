"""How good a code is, and the proof that it is nearly the best.

For g = D^T r, r = x - D a, and the soft threshold, the objective

    P(a) = 1/2 |x - D a|^2 + lambda |a|_1

is convex. Two certificates bound how far a is from the best code:

* duality gap: with s = min(1, lambda / max |g|) the residual s r is feasible for the dual, whose
  value 1/2 |x|^2 - 1/2 |x - s r|^2 = s <x, r> - s^2/2 |r|^2 no code can fall below. The gap
  P(a) - dual bounds P(a) - min P rigorously. It is told relative to P(a).
* optimality: the largest violation of |g| <= lambda off the support and g = lambda sign(a) on it,
  told relative to lambda.

Here <x, r> = <a, g> + |r|^2, so everything follows from sums of r^2, |a| and a g and from max |g|.
The hard threshold's objective is not convex: there optimality proves a local minimum only.
Massias et al., "Dual extrapolation for sparse generalized linear models", 2020, section 2.

The sums decide when an element stops and how its time step changes, so they are made in fixed
point: the same bits in whatever order, or in however many tiles, they are made. Every term is cut
to a multiple of a power of two that follows from the number of terms, then added exactly.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sixfold.lca.dynamics import Threshold
from sixfold.lca.lane import Lane

if TYPE_CHECKING:
    from sixfold.lca.tiles import Tiles


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is known of every element in a lane at one step; tensors (W,), float64."""

    energy: Tensor  # in the units of the input squared; infinite if it has diverged
    squares: Tensor  # |x - D a|^2
    active: Tensor  # entries of the code that are not zero, int64
    gap: Tensor  # relative to the energy; NaN for the hard threshold
    violation: Tensor  # the largest, relative to lambda


class Meter:
    """Takes readings of a lane, whose sums have at most so many terms; adds up those of tiles."""

    def __init__(self, threshold: Threshold, terms: int, tiles: Tiles | None = None) -> None:
        self._threshold, self._tiles = threshold, tiles
        self._terms, self._scale = terms, 2.0 ** fraction_bits(terms)

    def read(self, lane: Lane, gradient: Tensor, unit: Tensor) -> Reading:
        """A reading; to be taken right after `lane.gradient()` gave `gradient`, g (W, K, P, Q).

        `unit` (W,) holds powers of two no smaller than the largest pixel of each element.
        """
        code, threshold = lane.code, self._threshold
        linear, quadratic = self._scale / unit, self._scale / unit.square()
        counts = (code != 0).flatten(1).sum(1)
        l1 = fixed_sum(code.abs(), linear, self._terms)
        squares = fixed_sum(lane.squares(), quadratic, self._terms)
        product = fixed_sum(code * gradient, quadratic, self._terms)
        sums = torch.stack([squares, l1, product, counts])
        pull = gradient if threshold.nonnegative else gradient.abs()
        maxima = (pull, threshold.violation(code, gradient), code.abs())
        tops = torch.stack([values.flatten(1).amax(1).double() for values in maxima])
        if self._tiles is not None:
            sums, tops = self._tiles.combine(sums, tops)
        reading = self._reading(
            sums[0] / quadratic, sums[1] / linear, sums[2] / quadratic, sums[3], tops
        )
        sane = tops.isfinite().all(0) & (tops[2] < unit * 2.0 ** (HEADROOM_BITS // 2))
        known = {
            name: torch.where(sane, getattr(reading, name), torch.inf)
            for name in ("energy", "gap", "violation")
        }
        return dataclasses.replace(reading, **known)

    def _reading(
        self, squares: Tensor, l1_norm: Tensor, product: Tensor, counts: Tensor, tops: Tensor
    ) -> Reading:
        level = self._threshold.level
        violation = tops[1] / (level if level > 0 else 1.0)
        if self._threshold.kind == "hard":
            energy = squares / 2 + level**2 / 2 * counts
            gap = torch.full_like(energy, torch.nan)
        else:
            energy = squares / 2 + level * l1_norm
            # A gradient that is nowhere positive needs no scaling down (non-negative codes).
            scale = torch.where(tops[0] > level, level / tops[0].clamp(min=1e-300), 1.0)
            dual = scale * (product + squares) - scale.square() / 2 * squares
            gap = (energy - dual) / energy.clamp(min=1e-300)
        return Reading(energy=energy, squares=squares, active=counts, gap=gap, violation=violation)


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

    Terms are multiplied by powers of two (`scale`) before they are cut to integers; none may count
    for more than `terms`, the most over all parts of the sum, allows. NaN makes it meaningless.

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
