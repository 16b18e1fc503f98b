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
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sixfold.lca.lane import Lane
from sixfold.lca.thresholds import Threshold


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
