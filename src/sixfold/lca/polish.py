"""The last digits of a code: once its support is quiet, the best code on it is solved for.

With S the entries that are not zero, s their signs, and g = D^T (x - D a), the best code

    P(a) = 1/2 |x - D a|^2 + lambda |a|_1,     g_S = lambda s_S,     |g_j| <= lambda off S

is a plain linear system once S and s are known: (D_S^T D_S) step = g_S - lambda s_S. Each round

    1. takes S, and every entry off it that violates its condition, with the sign of its g;
    2. solves for the step: Cholesky where atoms are whole images, conjugate gradients elsewhere;
    3. stops entries at zero that would change sign, and goes there if P falls all the way. If
       not, it adds one entry at most and goes to the lowest point along that step, where P falls
       in any case (feature-sign search);

until all conditions hold. So P never rises, and where S was right one round is enough. A ridge of
`RIDGE` makes a singular system (atoms twice, more entries than pixels) solvable; since rounds start
from the gradient that is left, it alters the way, not the end.

Everything is computed in float64, for one element at a time and as a whole, so neither batch nor
grid can alter a bit. Only for the soft threshold: the hard one's objective has no such system.

Lee, Battle, Raina, Ng, "Efficient sparse coding algorithms", 2006, algorithm 1. Departure: all
violations enter at once where that lowers P.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sixfold.lca.dynamics import Threshold
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.lane import Lane, LocalLane

ROUNDS = {"factored": 120, "iterated": 6}
"""Most rounds at a time; where they do not do, time steps go on from where they led."""

EXACT = 1e-9  # a violation of the conditions, relative to lambda, that counts as none
RIDGE = 1e-11  # what is added to the squares of atoms' norms (1) when a system is solved
MOST_ENTRIES = 8192
"""Support up to which a matrix of its products (of 512 MB at most) is made and factored."""

ITERATIONS = 400  # most iterations of conjugate gradients in a round
PROBE = 16  # iterations from whose residual it is judged whether the rest of them is affordable
STEPS_PER_PRODUCT = 4
"""A polish may make one product with D^T D for so many time steps that its element has had: a
product of one element takes as long as 1 to 3 of its steps (CIFAR-10, 64 atoms 9x9, stride 2)."""

SMALL = 256
"""Active entries up to which a product costs next to nothing, however many pixels there are."""

FEWEST_PRODUCTS = 64  # products that a polish may make in any case
ACCURACY = 1e-4  # residual of conjugate gradients, relative to that at their beginning


@dataclass(frozen=True, kw_only=True)
class Polished:
    """A code, and what is known of it as it is written: in the precision of the dictionary."""

    code: Tensor  # (K, P, Q)
    potential: Tensor  # u that belongs to it, (K, P, Q)
    energy: float  # the objective
    squares: float  # |x - D a|^2
    active: int  # entries that are not zero
    gap: float  # duality gap relative to the energy
    violation: float  # largest violation of the optimality conditions relative to lambda
    rounds: int  # systems that were solved


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A code and its g, flat, with |x - D a|^2."""

    code: Tensor
    gradient: Tensor
    squares: float


class _TooCostlyError(Exception):
    """The products that are left will not solve a system."""


class Polisher:
    """Solves for codes of one dictionary, with a soft threshold whose level is above 0."""

    def __init__(self, interaction: LateralInhibition, threshold: Threshold) -> None:
        self._threshold = threshold
        self._dtype = interaction.dictionary.dtype
        self._exact = exact = LateralInhibition(
            interaction.dictionary.double(),
            interaction.geometry,
            sharing=interaction.sharing,
            form="residual",
        )
        self._element: Lane = exact.lane(1)
        self._product: Lane = exact.lane(1)
        whole = exact.geometry.dense and exact.sharing == "batch"
        self._matrix = exact.dictionary.flatten(1) if whole else None
        self._products = 0

    def affords(self, active: int) -> bool:
        """Whether a system of so many active entries is worth an attempt.

        With as many entries as pixels it is nearly singular, and conjugate gradients need hundreds
        of products where the same number of time steps does more.
        """
        pixels = math.prod(self._exact.geometry.image)
        return self._matrix is not None or active < max(pixels, SMALL)

    def polish(self, image: Tensor, code: Tensor, element: int, steps: int) -> Polished | None:
        """The best code, or as near to it as `ROUNDS` lead; None if that is nowhere.

        `image` is whole, as `LateralInhibition.prepare` gives it, `code` (K, P, Q). `element` is
        its place in the batch, whose dictionary is taken if each has its own. The time steps that
        it has had bound what the polish may cost.
        """
        self._products = max(steps // STEPS_PER_PRODUCT, FEWEST_PRODUCTS)
        self._element.load(0, image.double())
        for lane in (self._element, self._product):
            if isinstance(lane, LocalLane) and self._exact.sharing == "element":
                lane.load_dictionary(0, self._exact.dictionary[element])
        point, rounds = self._at(code.double().flatten()), 0
        most = ROUNDS["iterated" if self._matrix is None else "factored"]
        try:
            while rounds < most and self._violation(point) > EXACT:
                following = self._round(point)
                rounds += 1
                if following is None:
                    break
                point = following
        except _TooCostlyError:
            if not rounds:
                return None
        return self._written(point, code, rounds)

    def _at(self, code: Tensor) -> _Point:
        self._element.code[0] = code.view(self._element.code.shape[1:])
        gradient = self._element.gradient().flatten().clone()
        return _Point(code=code, gradient=gradient, squares=float(self._element.squares().sum()))

    def _gram(self, vector: Tensor) -> Tensor:
        """D^T D of a flat vector."""
        self._product.code[0] = vector.view(self._product.code.shape[1:])
        return self._product.gradient().flatten().neg()

    def _violation(self, point: _Point) -> float:
        found = self._threshold.violation(point.code, point.gradient)
        return float(found.max()) / self._threshold.level

    def _round(self, point: _Point) -> _Point | None:
        """A point with a lower objective; None if rounding leaves nothing to gain."""
        level, code, gradient = self._threshold.level, point.code, point.gradient
        pull = gradient if self._threshold.nonnegative else gradient.abs()
        excess = torch.where(code == 0, pull - level, -1.0)
        on, beyond = code != 0, excess > level * EXACT / 2
        step, signs = self._step(point, on | beyond)
        # Entries that would change sign stop at zero.
        moved = code + step
        direction = torch.where(moved * signs > 0, moved, 0.0) - code
        slope, curvature = self._slopes(point, direction, signs)
        if slope > 0 and slope >= curvature:
            return self._at(code + direction)
        off = self._threshold.violation(code, gradient)[on]
        if not len(off) or float(off.max()) <= level * EXACT:
            single = torch.zeros_like(on)
            single[excess.argmax()] = True
            on = on | single
        if not bool(beyond.any()) or bool((on != (on | beyond)).any()):
            step, signs = self._step(point, on)
        return self._lowest(point, step, signs)

    def _lowest(self, point: _Point, step: Tensor, signs: Tensor) -> _Point | None:
        """The lowest point along a step: of a parabola with a kink wherever an entry changes sign.

        None if it does not go down. Non-negative codes end at the first such place.
        """
        slope, curvature = self._slopes(point, step, signs)
        if not slope > 0:
            return None
        code, level = point.code, self._threshold.level
        against = (step * code < 0).nonzero().flatten()
        places, order = (-code[against] / step[against]).sort()
        against = against[order]
        kinks = 2 * level * step[against].abs()
        before = kinks.cumsum(0) - kinks
        # The slope just before and just after each kink; the first kink it is zero at or before.
        falling = slope - curvature * places - before
        ends = (falling - kinks <= 0).nonzero().flatten()
        if self._threshold.nonnegative:
            ends = torch.arange(min(len(places), 1))
        if not len(ends):
            done = slope - float(kinks.sum())
            return self._at(code + (done / curvature) * step) if curvature > 0 else None
        first = int(ends[0])
        if float(falling[first]) <= 0:
            length = (slope - float(before[first])) / curvature
            return self._at(code + length * step)
        following = code + float(places[first]) * step
        following[against[first]] = 0.0
        return self._at(following)

    def _slopes(self, point: _Point, direction: Tensor, signs: Tensor) -> tuple[float, float]:
        """How fast the objective falls at first, and its second derivative, while signs hold."""
        slope = float(direction @ (point.gradient - self._threshold.level * signs))
        return slope, float(direction @ self._gram(direction))

    def _step(self, point: _Point, support: Tensor) -> tuple[Tensor, Tensor]:
        """The step to the best code on a support, and the signs for which it is the best."""
        code, gradient = point.code, point.gradient
        signs = torch.where(code != 0, code.sign(), gradient.sign()) * support
        wanted = (gradient - self._threshold.level * signs) * support
        places = support.nonzero().flatten()
        if self._matrix is not None and len(places) <= MOST_ENTRIES:
            step = torch.zeros_like(code)
            step[places] = self._factored(places, wanted[places])
        else:
            step = self._conjugate_gradients(support, wanted)
        return step, signs

    def _factored(self, places: Tensor, wanted: Tensor) -> Tensor:
        assert self._matrix is not None
        atoms = self._matrix[places]
        products = atoms @ atoms.t()
        ridge = RIDGE
        while True:
            products.diagonal().add_(ridge)
            factor, failed = torch.linalg.cholesky_ex(products)
            if not int(failed):
                return torch.cholesky_solve(wanted[:, None], factor)[:, 0]
            ridge *= 100

    def _conjugate_gradients(self, support: Tensor, wanted: Tensor) -> Tensor:
        step, left, direction = torch.zeros_like(wanted), wanted.clone(), wanted.clone()
        power = float(left @ left)
        goal = power * ACCURACY**2
        for count in range(ITERATIONS):
            if power <= goal or power == 0:
                break
            if count == PROBE:
                # The residual falls by about the same factor in every iteration.
                fallen = math.log(goal / ACCURACY**2 / power)
                share = fallen / -math.log(ACCURACY**2)
                if share * (PROBE + self._products) < PROBE:
                    raise _TooCostlyError
            if not self._products:
                raise _TooCostlyError
            self._products -= 1
            product = (self._gram(direction) + RIDGE * direction) * support
            length = power / float(direction @ product)
            step.add_(direction, alpha=length)
            left.sub_(product, alpha=length)
            before, power = power, float(left @ left)
            direction.mul_(power / before).add_(left)
        return step

    def _written(self, point: _Point, shape: Tensor, rounds: int) -> Polished:
        """What is known of the code once it is rounded to the dictionary's precision.

        The dual point is that of the code before rounding: it bounds every code's distance.
        """
        level = self._threshold.level
        pull = point.gradient if self._threshold.nonnegative else point.gradient.abs()
        top = float(pull.max())
        scale = min(1.0, level / top) if top > 0 else 1.0
        product = float(point.code @ point.gradient) + point.squares
        dual = scale * product - scale**2 / 2 * point.squares
        rounded = self._at(point.code.to(self._dtype).double())
        energy = rounded.squares / 2 + level * float(rounded.code.abs().sum())
        quiet = rounded.gradient.clamp(-level, level)
        resting = self._threshold.potential(rounded.code)
        potential = torch.where(rounded.code == 0, quiet, resting)
        return Polished(
            code=rounded.code.to(self._dtype).view(shape.shape),
            potential=potential.to(self._dtype).view(shape.shape),
            energy=energy,
            squares=rounded.squares,
            active=int((rounded.code != 0).sum()),
            gap=max(energy - dual, 0.0) / max(energy, 1e-300),
            violation=self._violation(rounded),
            rounds=rounds,
        )
