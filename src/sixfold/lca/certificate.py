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
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sixfold.lca.lane import Lane
from sixfold.lca.sums import HEADROOM_BITS, fixed_sum, fraction_bits
from sixfold.lca.thresholds import Threshold

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
    """Takes readings of a lane; `terms` are the most in any sum, over all parts of an element.

    With `tiles` readings of parts of the same elements are added up.
    """

    def __init__(self, threshold: Threshold, terms: int, tiles: Tiles | None = None) -> None:
        self._threshold, self._tiles = threshold, tiles
        self._terms, self._scale = terms, 2.0 ** fraction_bits(terms)

    def read(self, lane: Lane, gradient: Tensor, unit: Tensor) -> Reading:
        """A reading; to be taken right after `lane.gradient()` gave `gradient`.

        Args:
            lane: the lane.
            gradient: g, (W, K, P, Q).
            unit: (W,) float64, a power of two no smaller than the largest pixel of each element.
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
