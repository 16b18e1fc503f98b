"""Membrane potentials over time.

    tau du/dt = b - u - G a,   a = T(u),   b = D^T x,   G = D^T D - I
              = D^T (x - D a) + a - u

Every element of a batch has its own potentials and its own time step; only the dictionary is
shared. With g = D^T (x - D a) both integrators are the same update with another rate:

    u += eta (g + a - u)      Euler: eta = dt / tau;   exponential: eta = 1 - exp(-dt / tau)

the second being exact while g + a stays what it is. With momentum m the update is
v = m v + eta (g + a - u), u += v.

Rozell, Johnson, Baraniuk, Olshausen, "Sparse coding via thresholding and local competition in
neural circuits", Neural Computation 20, 2008, equations 3 to 5. Departures: the sums are taken in
whichever form needs less work; the adaptive time step, which is not in the paper, is
`AdaptiveRate`.

Thresholds T, from potential to activation, and the penalty that each one minimises (section 3):

    soft:  a = u - clamp(u, -lambda, lambda)        penalty lambda |a|
    hard:  a = u where |u| > lambda, else 0         penalty lambda^2 / 2 where a != 0

Non-negative variants let only u > lambda through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sixfold.lca.lane import Lane


def rate(dt: float, tau: float, integrator: str) -> float:
    """eta, the share of the way that potentials move in one step.

    >>> rate(1.0, 100.0, "euler"), round(rate(1.0, 100.0, "exponential"), 6)
    (0.01, 0.00995)
    """
    return dt / tau if integrator == "euler" else -math.expm1(-dt / tau)


class Membrane:
    """Potentials u (W, K, P, Q) of the elements in a lane, and eta (W, 1, 1, 1) of every slot."""

    def __init__(self, lane: Lane, threshold: Threshold, momentum: float) -> None:
        self._lane, self._threshold, self._momentum = lane, threshold, momentum
        self.potential = torch.zeros_like(lane.code, memory_format=torch.contiguous_format)
        width = len(self.potential)
        self.rate = self.potential.new_zeros(width, 1, 1, 1)
        self._velocity = torch.zeros_like(self.potential) if momentum else None

    def set(self, slot: int, code: Tensor | None, rate: float) -> None:
        """Begin with an element: from rest, or from the code (K, P, Q) of a warm start."""
        self.rate[slot] = rate
        if code is None:
            self.potential[slot].zero_()
        else:
            self.potential[slot].copy_(self._threshold.potential(code))
        if self._velocity is not None:
            self._velocity[slot].zero_()
        self._threshold(self.potential[slot], out=self._lane.code[slot])

    def settle(self, slot: int, gradient: Tensor) -> None:
        """Give potentials below the threshold, of which a warm start knows nothing, their value.

        At rest u = g off the support. Left at zero they would overshoot on the way there.
        `gradient` is g (W, K, P, Q) of the present code.
        """
        level, quiet = self._threshold.level, self._lane.code[slot] == 0
        rest = gradient[slot].clamp(-level, level)
        self.potential[slot] = torch.where(quiet, rest, self.potential[slot])

    def restore(self, slots: Tensor, potential: Tensor) -> None:
        """Put some slots (W,) back to their potentials in `potential` (W, K, P, Q), at rest."""
        for slot in slots.nonzero().flatten().tolist():
            self.potential[slot].copy_(potential[slot])
            self._threshold(self.potential[slot], out=self._lane.code[slot])
            if self._velocity is not None:
                self._velocity[slot].zero_()

    def rest(self, slot: int) -> None:
        """Take the momentum from a slot whose code and potential were set from outside."""
        if self._velocity is not None:
            self._velocity[slot].zero_()

    def advance(self, gradient: Tensor) -> None:
        """One time step of all slots. `gradient` (W, K, P, Q) is overwritten."""
        gradient.add_(self._lane.code).sub_(self.potential)
        if self._velocity is None:
            self.potential.addcmul_(gradient, self.rate)
        else:
            self._velocity.mul_(self._momentum).addcmul_(gradient, self.rate)
            self.potential.add_(self._velocity)
        self._threshold(self.potential, out=self._lane.code)


@dataclass(frozen=True, kw_only=True)
class AdaptiveRate:
    """The time step of each element by itself, from its energy at successive checks.

    While the energy falls the step grows; where it has risen, the potentials go back to where
    they were at the last check, the step is halved, and is held there: the bound recovers by a
    twentieth at each check. Within `slack` of the best energy a step that is too large is not seen
    before the potentials have left for good. Hence the energy at checks never rises.
    """

    grow: float = 1.25  # factor of the step after a check at which the energy had fallen
    shrink: float = 0.5  # after one at which it had risen
    slack: float = 1e-6  # relative rise that still counts as rounding
    recover: float = 1.05  # factor of the bound that a rise has left, after each later check


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
