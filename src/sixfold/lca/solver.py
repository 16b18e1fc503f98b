"""From images to codes: elements pass through the slots of one lane until each is done.

A lane of fixed width runs from reading to reading. At a reading, elements that are done (their
certificate holds, or their steps are used up) leave, and the next ones take their slots; when
none is left to come, the lane goes on with empty slots. An element's numbers depend neither on
when it came nor on its neighbours (`sixfold.lca.lane`), so this is the same as computing each
element alone, but the kernels are busy for as long as there is work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sixfold.errors import RunError
from sixfold.lca.certificate import Meter, Reading
from sixfold.lca.dynamics import AdaptiveRate, Membrane, rate
from sixfold.lca.interaction import Interaction
from sixfold.lca.lane import ResidualLane
from sixfold.lca.lane_local import LocalLane
from sixfold.lca.options import DynamicsConfig
from sixfold.lca.sums import power_of_two_above
from sixfold.lca.thresholds import Threshold

if TYPE_CHECKING:
    from sixfold.lca.tiles import Tiles

SMALLEST_RATE = 1e-7
"""An adaptive step below this has been halved by rounding alone: there is nothing left to gain."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Codes, and what is known of each at its last reading; tensors (n, ...).

    Attributes:
        codes: (n, K, P, Q); with `tiles`, this rank's positions only.
        steps: time steps that were made, int64.
        energy: the objective, float64.
        squares: |x - D a|^2, float64.
        active: entries that are not zero, int64.
        gap: duality gap relative to the energy, float64; NaN for the hard threshold.
        violation: of the optimality conditions, relative to lambda, float64.
        done: whether the certificate held, bool.
        rate: eta at the end, float64.
        trace: one object for each reading: element, step, energy, squares, active, gap, rate.
    """

    codes: Tensor
    steps: Tensor
    energy: Tensor
    squares: Tensor
    active: Tensor
    gap: Tensor
    violation: Tensor
    done: Tensor
    rate: Tensor
    trace: list[dict[str, Any]]

    @property
    def sparsity(self) -> Tensor:
        """Share of the code's entries that are zero, (n,)."""
        return 1 - self.active / self.codes[0].numel()


class Solver:
    """Finds codes.

    Args:
        interaction: the dictionary.
        dynamics: how codes come about.
        width: slots of a lane; by the geometry if absent.
        tiles: the part of the positions that this rank computes; None for all.

    >>> from sixfold.lca.geometry import Geometry
    >>> geometry = Geometry(channels=1, height=1, width=4, atoms=4, kernel=(1, 4))
    >>> solver = Solver(Interaction(torch.eye(4).view(4, 1, 1, 4), geometry),
    ...                 DynamicsConfig(threshold=0.5))
    >>> solver.solve(torch.tensor([[[[2.0, 0.1, -1.0, 0.0]]]])).codes.flatten().round(decimals=2)
    tensor([ 1.5000,  0.0000, -0.5000,  0.0000])
    """

    def __init__(
        self,
        interaction: Interaction,
        dynamics: DynamicsConfig,
        *,
        width: int | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        self.interaction, self.dynamics, self.tiles = interaction, dynamics, tiles
        self.width = width or interaction.geometry.lane_width
        self.threshold = Threshold(
            level=dynamics.threshold, kind=dynamics.shrinkage, nonnegative=dynamics.nonnegative
        )

    def solve(
        self, images: Tensor, *, start: Sequence[Tensor | None] | None = None, trace: bool = False
    ) -> Solution:
        """Code some images.

        Args:
            images: (n, C, H, W).
            start: a code (K, P, Q), or None, for each image to begin with.
            trace: whether to keep all readings.

        Raises:
            RunError: if a code diverges with a fixed time step.
        """
        geometry = self.interaction.geometry
        if tuple(images.shape[1:]) != geometry.image:
            raise ValueError(f"images {tuple(images.shape[1:])}, expected {geometry.image}")
        with torch.no_grad():
            return _Run(self, images, start, trace).finish()


class _Run:
    """One call of `Solver.solve`."""

    def __init__(
        self,
        solver: Solver,
        images: Tensor,
        start: Sequence[Tensor | None] | None,
        trace: bool,
    ) -> None:
        self.solver, self.dynamics, self.start = solver, solver.dynamics, start
        interaction, tiles = solver.interaction, solver.tiles
        self.images = interaction.prepare(images)
        self.units = power_of_two_above(images.abs().flatten(1).amax(1))
        if tiles is not None:
            self.images = tiles.cut(self.images)
        self.lane = interaction.lane(solver.width, None if tiles is None else tiles.tile)
        self.membrane = Membrane(self.lane, solver.threshold, self.dynamics.state_momentum)
        geometry = interaction.geometry
        terms = max(geometry.codes, 2 * geometry.channels * geometry.height * geometry.width) + 1
        self.meter = Meter(solver.threshold, terms, tiles)
        self.rule = AdaptiveRate() if self.dynamics.adaptive else None
        first = rate(self.dynamics.dt, self.dynamics.tau, self.dynamics.integrator)
        self.first_rate = first
        needs_readings = trace or self.dynamics.tolerance > 0 or self.dynamics.adaptive
        self.period = self.dynamics.check_every if needs_readings else self.dynamics.max_steps
        self.trace: list[dict[str, Any]] | None = [] if trace else None
        self._empty_solution(len(images))
        # Slots: which element, and what was true of it at its last reading.
        width = solver.width
        self.element: list[int | None] = [None] * width
        self.step = [0] * width
        self.unit = torch.ones(width, dtype=torch.float64)
        self.energy = torch.full((width,), torch.inf, dtype=torch.float64)
        self.kept = torch.zeros_like(self.membrane.potential) if self.rule else None
        self.pending: Iterator[int] = iter(range(len(images)))

    def _empty_solution(self, n: int) -> None:
        shape = self.lane.code.shape[1:]
        self.codes = self.lane.code.new_zeros(n, *shape)
        doubles = {
            name: torch.full((n,), torch.nan, dtype=torch.float64)
            for name in ("energy", "squares", "gap", "violation", "rate")
        }
        self.found: dict[str, Tensor] = {
            **doubles,
            "active": torch.zeros(n, dtype=torch.int64),
            "steps": torch.zeros(n, dtype=torch.int64),
            "done": torch.zeros(n, dtype=torch.bool),
        }

    def finish(self) -> Solution:
        """Run until every element has left."""
        self._fill()
        while any(element is not None for element in self.element):
            gradient = self._check()
            for _ in range(self.period):
                if gradient is None:
                    break
                self.membrane.advance(gradient)
                gradient = self._gradient()
            self.step = [step + self.period for step in self.step]
        return Solution(codes=self.codes, trace=self.trace or [], **self.found)

    def _gradient(self) -> Tensor:
        if self.solver.tiles is not None:
            assert isinstance(self.lane, ResidualLane)
            self.solver.tiles.fill_halo(self.lane.padded_code)
        return self.lane.gradient()

    def _fill(self) -> list[int]:
        """Load pending elements into empty slots; which slots were filled."""
        filled = []
        for slot, element in enumerate(self.element):
            if element is not None:
                continue
            following = next(self.pending, None)
            if following is None:
                break
            self._load(slot, following)
            filled.append(slot)
        return filled

    def _load(self, slot: int, element: int) -> None:
        self.element[slot], self.step[slot] = element, 0
        self.unit[slot] = self.units[element]
        self.energy[slot] = torch.inf
        self.lane.load(slot, self.images[element])
        interaction = self.solver.interaction
        if isinstance(self.lane, LocalLane) and interaction.sharing == "element":
            self.lane.load_dictionary(slot, interaction.dictionary[element])
        start = None if self.start is None else self.start[element]
        self.membrane.set(slot, start, self.first_rate)

    def _check(self) -> Tensor | None:
        """Take a reading, let elements leave and others come; the gradient to go on with.

        None if no element is left.
        """
        fresh = {slot for slot, step in enumerate(self.step) if step == 0}
        while True:
            gradient = self._gradient()
            if self.period == self.dynamics.max_steps and not self._ripe():
                return gradient
            reading = self.meter.read(self.lane, gradient, self.unit)
            self._note(reading)
            left = self._retire(reading)
            moved = self._adapt(reading, fresh) if self.rule else False
            self.energy = torch.where(reading.energy < self.energy, reading.energy, self.energy)
            came = self._fill()
            if not left and not moved:
                return gradient
            if all(element is None for element in self.element):
                return None
            if not came:
                return self._gradient()
            # Those who stay have had their reading: only the new ones are looked at again.
            gradient = self._look_at_new(came)
            return gradient

    def _look_at_new(self, came: list[int]) -> Tensor:
        raise NotImplementedError

    def _ripe(self) -> bool:
        return any(
            element is not None and step >= self.dynamics.max_steps
            for element, step in zip(self.element, self.step, strict=True)
        )
