"""From images to codes: elements pass through the slots of one lane until each is done.

A lane of fixed width runs from reading to reading. At a reading, elements that are done (their
certificate holds, or their steps are used up) leave, and the next ones take their slots; when
none is left to come, the lane goes on with empty slots. An element's numbers depend neither on
when it came nor on its neighbours (`sixfold.lca.lane`), so this is the same as computing each
element alone, but the kernels are busy for as long as there is work. An element whose support is
quiet (`sixfold.lca.quiet`) is polished (`sixfold.lca.polish`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sixfold.core.errors import RunError, UserError
from sixfold.lca.certificate import Meter, Reading, power_of_two_above
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.dynamics import AdaptiveRate, Membrane, Threshold, rate
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.lane import LocalLane, ResidualLane
from sixfold.lca.polish import Polisher
from sixfold.lca.quiet import QuietSupport

if TYPE_CHECKING:
    from sixfold.lca.tiles import Tiles

STUCK_RATE = 1e-7
"""An adaptive step below this was halved because of rounding: there is nothing left to gain."""

ROUNDING = 1e-6
"""Energies of readings are rounded to about this, relatively; those of polished codes are not."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Codes, and what is known of each at its last reading; tensors (n, ...)."""

    codes: Tensor  # (n, K, P, Q); with `tiles`, this rank's positions only
    steps: Tensor  # time steps that were made, int64
    energy: Tensor  # the objective, float64
    squares: Tensor  # |x - D a|^2, float64
    active: Tensor  # entries that are not zero, int64
    gap: Tensor  # duality gap relative to the energy, float64; NaN for the hard threshold
    violation: Tensor  # of the optimality conditions, relative to lambda, float64
    done: Tensor  # whether the certificate held, bool
    rate: Tensor  # eta at the end, float64
    solves: Tensor  # linear systems that were solved for it (`sixfold.lca.polish`), int64
    # one object for each reading: element, step, energy, squares, active, gap, violation, rate
    trace: list[dict[str, Any]]

    @property
    def sparsity(self) -> Tensor:
        """Share of the code's entries that are zero, (n,)."""
        return 1 - self.active / self.codes[0].numel()


class Solver:
    """Finds codes, in lanes of `width` slots (by the geometry if absent).

    With `tiles` this rank computes its part of the positions.

    >>> from sixfold.lca.geometry import Geometry
    >>> geometry = Geometry(channels=1, height=1, width=4, atoms=4, kernel=(1, 4))
    >>> solver = Solver(LateralInhibition(torch.eye(4).view(4, 1, 1, 4), geometry),
    ...                 DynamicsConfig(lambda_=0.5))
    >>> solver.solve(torch.tensor([[[[2.0, 0.1, -1.0, 0.0]]]])).codes.flatten().round(decimals=2)
    tensor([ 1.5000,  0.0000, -0.5000,  0.0000])
    """

    def __init__(
        self,
        interaction: LateralInhibition,
        dynamics: DynamicsConfig,
        *,
        width: int | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        self.interaction, self.dynamics, self.tiles = interaction, dynamics, tiles
        self.width = width or interaction.geometry.lane_width
        self.threshold = Threshold(
            level=dynamics.lambda_, kind=dynamics.threshold_type, nonnegative=dynamics.nonnegative
        )

    def solve(
        self, images: Tensor, *, start: Sequence[Tensor | None] | None = None, trace: bool = False
    ) -> Solution:
        """Code images (n, C, H, W), each from a code (K, P, Q) or none; `trace` keeps all readings.

        A `UserError` for pixels that are NaN or infinite, a `RunError` for a code that diverges.
        """
        odd = torch.nonzero(~torch.isfinite(images).flatten(1).all(1)).flatten()
        if len(odd):
            raise UserError(
                f"{len(odd)} of {len(images)} images have pixels that are NaN or infinite, the "
                f"first is image {int(odd[0])} (counted from 0): repair them or leave them out"
            )
        geometry = self.interaction.geometry
        if tuple(images.shape[1:]) != geometry.image:
            raise ValueError(f"images {tuple(images.shape[1:])}, expected {geometry.image}")
        with torch.no_grad():
            return _Run(self, images, start, trace).finish()


class _Run:
    def __init__(
        self, solver: Solver, images: Tensor, start: Sequence[Tensor | None] | None, trace: bool
    ) -> None:
        dynamics, interaction, tiles = solver.dynamics, solver.interaction, solver.tiles
        self.solver, self.dynamics, self.start = solver, dynamics, start
        self.units = power_of_two_above(images.abs().flatten(1).amax(1))
        self.whole = self.images = interaction.prepare(images)
        if tiles is not None:
            self.images = tiles.tile.cut(self.images)
        self.lane = interaction.lane(solver.width, None if tiles is None else tiles.tile)
        self.membrane = Membrane(self.lane, solver.threshold, dynamics.state_momentum)
        geometry = interaction.geometry
        terms = max(geometry.codes, 2 * geometry.channels * geometry.height * geometry.width) + 1
        self.meter = Meter(solver.threshold, terms, tiles)
        self.rule = AdaptiveRate() if dynamics.adaptive else None
        self.first_rate = rate(dynamics.dt, dynamics.tau, dynamics.integrator)
        needs_readings = trace or dynamics.tolerance > 0 or dynamics.adaptive
        self.period = dynamics.check_every if needs_readings else dynamics.max_steps
        self.trace: list[dict[str, Any]] | None = [] if trace else None
        # What has been found of each image.
        n, width = len(images), solver.width
        self.codes = self.lane.code.new_zeros(n, *self.lane.code.shape[1:])
        self.found: dict[str, Tensor] = {
            **{name: torch.zeros(n, dtype=v.dtype) for name, v in vars(_nothing(1)).items()},
            "steps": torch.zeros(n, dtype=torch.int64),
            "done": torch.zeros(n, dtype=torch.bool),
            "solves": torch.zeros(n, dtype=torch.int64),
            "rate": torch.zeros(n, dtype=torch.float64),
        }
        # Slots: which element, and what was true of it at its last good reading.
        self.element: list[int | None] = [None] * width
        self.step = [0] * width
        self.unit = torch.ones(width, dtype=torch.float64)
        self.kept = torch.zeros_like(self.membrane.potential) if self.rule else None
        self.ceiling = torch.ones(width, dtype=torch.float64)
        polished = dynamics.polish and solver.threshold.convex and dynamics.tolerance > 0
        self.quiet = QuietSupport(self.lane, dynamics.tolerance, tiles) if polished else None
        self.polisher: Polisher | None = None
        self.last = _nothing(width)
        self.pending: Iterator[int] = iter(range(n))

    def finish(self) -> Solution:
        changed = self._fill()
        gradient = self._gradient()
        while any(element is not None for element in self.element):
            if changed:
                gradient = self._gradient()
                self._begin(gradient)
            for _ in range(self.period):
                self.membrane.advance(gradient)
                gradient = self._gradient()
            self.step = [step + self.period for step in self.step]
            reading = self.meter.read(self.lane, gradient, self.unit)
            risen = self._take(reading)
            polished = self._polish(risen)
            left = self._retire()
            changed = self._fill() or polished or left or bool(risen.any())
        return Solution(codes=self.codes, trace=self.trace or [], **self.found)

    def _gradient(self) -> Tensor:
        if self.solver.tiles is not None:
            assert isinstance(self.lane, ResidualLane)
            self.solver.tiles.fill_halo(self.lane.padded_code)
        return self.lane.gradient()

    def _fill(self) -> bool:
        """Load pending elements into empty slots; whether there were any."""
        filled = False
        for slot, element in enumerate(self.element):
            if element is None:
                following = next(self.pending, None)
                if following is None:
                    break
                self._load(slot, following)
                filled = True
        return filled

    def _load(self, slot: int, element: int) -> None:
        self.element[slot], self.step[slot] = element, 0
        self.ceiling[slot] = 1.0
        if self.quiet is not None:
            self.quiet.begin(slot)
        self.unit[slot] = self.units[element]
        self.lane.load(slot, self.images[element])
        interaction = self.solver.interaction
        if isinstance(self.lane, LocalLane) and interaction.sharing == "element":
            self.lane.load_dictionary(slot, interaction.dictionary[element])
        start = None if self.start is None else self.start[element]
        self.membrane.set(slot, start, self.first_rate)
        if self.kept is not None:
            self.kept[slot] = self.membrane.potential[slot]

    def _begin(self, gradient: Tensor) -> None:
        """Complete what is known of those that have just come: potentials, first reading."""
        fresh = [
            slot
            for slot, element in enumerate(self.element)
            if element is not None and not self.step[slot]
        ]
        if self.rule is not None and fresh:
            # The energy may never rise above that of the beginning.
            reading = self.meter.read(self.lane, gradient, self.unit)
            for name, value in vars(reading).items():
                getattr(self.last, name)[fresh] = value[fresh]
        for slot in fresh:
            element = self.element[slot]
            if self.start is None or element is None or self.start[element] is None:
                continue
            self.membrane.settle(slot, gradient)
            if self.kept is not None:
                self.kept[slot] = self.membrane.potential[slot]

    def _take(self, reading: Reading) -> Tensor:
        """Note a reading and adapt the time steps; which slots' potentials were put back, (W,)."""
        occupied = self._occupied()
        diverged = reading.energy.isinf()
        if self.rule is None or self.kept is None:
            if bool((diverged & occupied).any()):
                raise RunError(
                    f"potentials diverge with a time step of {self.first_rate:g} tau: use a "
                    "smaller --dt, or --adaptive"
                )
            self.last = reading
            self._note(occupied)
            return torch.zeros_like(occupied)
        risen = occupied & (diverged | (reading.energy > self.last.energy * (1 + self.rule.slack)))
        for name, value in vars(reading).items():
            before = getattr(self.last, name)
            before.copy_(torch.where(risen, before, value))
        self._note(occupied & ~risen)
        self.membrane.restore(risen, self.kept)
        self.kept.copy_(self.membrane.potential)
        rates = self.membrane.rate.view(-1)
        smaller = rates.double() * self.rule.shrink
        self.ceiling = torch.where(risen, smaller, self.ceiling * self.rule.recover)
        grown = (rates.double() * self.rule.grow).minimum(self.ceiling)
        rates.copy_(torch.where(risen, smaller, grown))
        return risen

    def _polish(self, risen: Tensor) -> bool:
        """Solve for the codes whose support is quiet; whether there were any."""
        if self.quiet is None:
            return False
        certificate, tiles = self._certificate(), self.solver.tiles
        changed = False
        for slot in self.quiet.look(certificate, self._occupied() & ~risen):
            element = self.element[slot]
            assert element is not None
            if self.polisher is None:
                self.polisher = Polisher(self.solver.interaction, self.solver.threshold)
            if not self.polisher.affords(int(self.last.active[slot])):
                continue
            code = self.lane.code[slot : slot + 1]
            whole = code if tiles is None else tiles.join(code)
            found = self.polisher.polish(self.whole[element], whole[0], element, self.step[slot])
            self.found["solves"][element] += 1 if found is None else found.rounds
            if found is None or not found.energy <= float(self.last.energy[slot]) * (1 + ROUNDING):
                self.quiet.failed(slot)
                continue
            parts = (found.code, found.potential)
            own = parts if tiles is None else tuple(tiles.part(part) for part in parts)
            self.lane.code[slot], self.membrane.potential[slot] = own
            self.membrane.rest(slot)
            if self.kept is not None:
                self.kept[slot] = own[1]
            for name in vars(self.last):
                getattr(self.last, name)[slot] = getattr(found, name)
            if float(self._certificate()[slot]) > self.dynamics.tolerance:
                self.quiet.failed(slot)
            self._note(torch.arange(len(risen)) == slot)
            changed = True
        return changed

    def _occupied(self) -> Tensor:
        return torch.tensor([element is not None for element in self.element])

    def _certificate(self) -> Tensor:
        """What the tolerance is for, at the last reading, (W,)."""
        return self.last.gap if self.dynamics.certificate == "gap" else self.last.violation

    def _note(self, slots: Tensor) -> None:
        if self.trace is None:
            return
        for slot in slots.nonzero().flatten().tolist():
            self.trace.append(
                {
                    "element": self.element[slot],
                    "step": self.step[slot],
                    **{name: value[slot].item() for name, value in vars(self.last).items()},
                    "rate": float(self.membrane.rate[slot]),
                }
            )

    def _retire(self) -> bool:
        """Let the elements leave that are done; whether there were any."""
        tolerance, left = self.dynamics.tolerance, False
        certificate = self._certificate()
        for slot, element in enumerate(self.element):
            if element is None:
                continue
            done = tolerance > 0 and float(certificate[slot]) <= tolerance
            rate_now = float(self.membrane.rate[slot])
            if not (done or self.step[slot] >= self.dynamics.max_steps or rate_now < STUCK_RATE):
                continue
            for name, value in vars(self.last).items():
                self.found[name][element] = value[slot]
            self.found["steps"][element] = self.step[slot]
            self.found["done"][element] = done
            self.found["rate"][element] = rate_now
            self.codes[element] = self.lane.code[slot]
            self.element[slot] = None
            self.lane.code[slot].zero_()
            self.membrane.set(slot, None, 0.0)
            left = True
        return left


def _nothing(width: int) -> Reading:
    """A reading of slots of which nothing is known yet."""

    def unknown() -> Tensor:
        return torch.full((width,), torch.inf, dtype=torch.float64)

    return Reading(
        energy=unknown(),
        squares=unknown(),
        active=torch.zeros(width, dtype=torch.int64),
        gap=unknown(),
        violation=unknown(),
    )
