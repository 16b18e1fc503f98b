"""Thresholds: from membrane potential to activation, and the penalty that each one minimises.

    soft:  a = u - clamp(u, -lambda, lambda)        penalty lambda |a|
    hard:  a = u where |u| > lambda, else 0         penalty lambda^2 / 2 where a != 0

Non-negative variants let only u > lambda through. Rozell et al., "Sparse coding via thresholding
and local competition in neural circuits", 2008, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold.

    >>> u = torch.tensor([-2.0, -0.5, 0.5, 2.0])
    >>> Threshold(level=1.0)(u).tolist() == [-1, 0, 0, 1]
    True
    >>> Threshold(level=1.0, kind="hard", nonnegative=True)(u).tolist()
    [0.0, 0.0, 0.0, 2.0]
    """

    level: float  # lambda
    kind: str = "soft"  # `soft` or `hard`
    nonnegative: bool = False  # whether activations below zero are cut off too

    def __call__(self, potential: Tensor, out: Tensor | None = None) -> Tensor:
        """Activations of potentials of any shape, in `out` if that is given."""
        out = torch.empty_like(potential) if out is None else out
        level = self.level
        if self.kind == "hard":
            quiet = potential <= level if self.nonnegative else potential.abs() <= level
            out.copy_(potential).masked_fill_(quiet, 0)
        elif self.nonnegative:
            torch.sub(potential, level, out=out)
            out.clamp_(min=0)
        else:
            torch.ops.aten.softshrink.out(potential, level, out=out)
        return out

    @property
    def convex(self) -> bool:
        """Whether there is a penalty, and the objective with it convex."""
        return self.kind == "soft" and self.level > 0

    def potential(self, code: Tensor) -> Tensor:
        """A potential whose activation is `code`: what a warm start begins with."""
        if self.kind == "hard":
            return code.clone()
        return code + self.level * code.sign()

    def violation(self, code: Tensor, gradient: Tensor) -> Tensor:
        """How far each entry is from optimal, (same shape), with g = D^T (x - D a).

        Off the support |g| may not exceed lambda; on it g = lambda sign(a) (soft) or g = 0 (hard;
        then the code is only a local minimum). Without negative codes g may be as small as it
        likes off the support.
        """
        on = code != 0
        pull = gradient if self.nonnegative else gradient.abs()
        off_support = (pull - self.level).clamp_(min=0)
        goal = 0.0 if self.kind == "hard" else self.level * code.sign()
        return torch.where(on, (gradient - goal).abs(), off_support)
