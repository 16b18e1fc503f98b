"""How a dictionary follows from codes.

    delta_k = sum over elements and positions of  a_k r_patch  /  number of activations of atom k
    v_k <- m v_k + (1 - m) delta_k,    d_k <- (d_k + lr v_k) / |d_k + lr v_k|

the gradient step of Olshausen and Field, "Sparse coding with an overcomplete basis set", 1997,
equation 16, divided by activations so that rare atoms learn as fast as frequent ones. Both sums
run over the whole batch, all positions and all workers, each by itself; they are divided, and
atoms brought to norm 1, once. An average of quotients would depend on the division.

Each logical shard of the batch (`sixfold.distributed.logical_shards`) gives one vector: both sums,
figures for the log, and patches for atoms to be revived. Vectors are added in the fixed tree, so
the dictionary has the same bits for any number of workers and whatever a worker codes at a time.

An atom without any activation for `revive_after` updates is replaced by the patch of an image
that is reconstructed worst. Which image is drawn from (seed, step, atom).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sixfold.core import random_keys
from sixfold.distributed.logical_shards import Node, TreeFold
from sixfold.lca.dictionary import normalise
from sixfold.lca.geometry import Geometry
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.solver import Solution

FIGURES = ("energy", "squares", "power", "active", "steps", "done", "elements")
"""Sums over elements that are logged; `power` is |x|^2."""

MOST_REVIVED = 8  # atoms that are revived in one update; the others wait for the next


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What all shards together have given."""

    product: Tensor  # sums of activation x residual patch, (K, C, R, S), float64
    counts: Tensor  # activations of each atom, (K,), float64 (whole numbers)
    figures: dict[str, float]  # by the names of `FIGURES`
    patches: Tensor  # for the atoms to be revived, (n, C, R, S), float64


class ShardSums:
    """The layout of a shard's vector: products, counts, figures, patches of revived atoms."""

    def __init__(self, geometry: Geometry, revived: int) -> None:
        self.geometry, self.revived = geometry, revived
        size = int(np.prod(geometry.atom_shape))
        self.sizes = (geometry.atoms * size, geometry.atoms, len(FIGURES), revived * size)

    def empty(self) -> NDArray[np.float64]:
        """A vector of zeros."""
        return np.zeros(sum(self.sizes))

    def read(self, vector: NDArray[np.float64]) -> Totals:
        """The parts of a vector."""
        product, counts, figures, patches = torch.split_with_sizes(
            torch.from_numpy(vector), list(self.sizes)
        )
        shape = self.geometry.atom_shape
        return Totals(
            product=product.view(-1, *shape),
            counts=counts,
            figures=dict(zip(FIGURES, figures.tolist(), strict=True)),
            patches=patches.view(self.revived, *shape),
        )


def patch_products(geometry: Geometry, codes: Tensor, residuals: Tensor) -> Tensor:
    """Sums over elements and positions of activation x residual patch, (K, C, R, S), float64.

    From codes (n, K, P, Q) and residuals (n, C, H, W).
    """
    ph, pw = geometry.padding
    total = torch.zeros(geometry.atoms, int(np.prod(geometry.atom_shape)), dtype=torch.float64)
    for code, residual in zip(codes, residuals, strict=True):
        canvas = functional.pad(residual[None], (pw, pw, ph, ph))
        columns = functional.unfold(canvas, geometry.kernel, stride=geometry.stride)[0]
        total += (code.flatten(1) @ columns.t()).double()
    return total.view(geometry.atoms, *geometry.atom_shape)


def sum_shards(
    sums: ShardSums,
    interaction: LateralInhibition,
    images: Tensor,
    solution: Solution,
    shards: Iterable[tuple[int, range]],
    donors: Sequence[int],
) -> TreeFold[Any]:
    """The shards' vectors, added as far as they can be.

    `images` (n, C, H, W) and `solution` are of all shards, one after the other; `shards` has the
    number of each and which elements of the batch it has; `donors` for each atom to be revived the
    element whose worst patch it becomes.
    """
    residuals = interaction.residual(images, solution.codes)
    fold: TreeFold[Any] = TreeFold(lambda left, right: left + right)
    at = 0
    for shard, run in shards:
        chosen = slice(at, at + len(run))
        vector = _shard_vector(sums, images, residuals, solution, chosen)
        patches = sums.read(vector).patches
        for place, donor in enumerate(donors):
            if donor in run:
                patch = worst_patch(sums.geometry, residuals[at + donor - run.start])
                patches[place].copy_(patch)
        fold.push(Node(0, shard), vector)
        at += len(run)
    return fold


def _shard_vector(
    sums: ShardSums, images: Tensor, residuals: Tensor, solution: Solution, chosen: slice
) -> NDArray[np.float64]:
    """What one shard gives; `chosen` says which of the images are its own."""
    codes = solution.codes[chosen]
    vector = sums.empty()
    totals = sums.read(vector)
    totals.product.copy_(patch_products(sums.geometry, codes, residuals[chosen]))
    totals.counts.copy_((codes != 0).flatten(2).sum(2).sum(0))
    values = {
        "energy": solution.energy[chosen],
        "squares": solution.squares[chosen],
        "power": images[chosen].flatten(1).double().square().sum(1),
        "active": solution.active[chosen],
        "steps": solution.steps[chosen],
        "done": solution.done[chosen],
        "elements": torch.ones(len(codes)),
    }
    start = sums.sizes[0] + sums.sizes[1]
    for place, name in enumerate(FIGURES):
        vector[start + place] = float(values[name].double().sum())
    return vector


def worst_patch(geometry: Geometry, residual: Tensor) -> Tensor:
    """The patch of an image that is reconstructed worst, (C, R, S), float64."""
    rows, columns = geometry.kernel
    height, width = residual.shape[1:]
    if rows > height or columns > width:
        residual = functional.pad(residual, (0, max(columns - width, 0), 0, max(rows - height, 0)))
    box = torch.ones(1, residual.shape[0], rows, columns, dtype=torch.float64)
    errors = functional.conv2d(residual[None].double().square(), box)[0, 0]
    place = int(errors.argmax())
    row, column = divmod(place, errors.shape[1])
    return residual[:, row : row + rows, column : column + columns].double()


class Learner:
    """A dictionary that learns: its state, and how totals change it.

    After `revive_after` updates without activation an atom is replaced; 0 for never.
    """

    def __init__(
        self, geometry: Geometry, atoms: Tensor, *, momentum: float, revive_after: int, seed: int
    ) -> None:
        self.geometry, self.momentum = geometry, momentum
        self.revive_after, self.seed = revive_after, seed
        self.atoms = normalise(atoms)
        self.velocity = torch.zeros_like(atoms, dtype=torch.float64)
        # (K,) updates since each atom was last active, and its activations in the last update.
        self.quiet = torch.zeros(len(atoms), dtype=torch.int64)
        self.seen = torch.zeros(len(atoms), dtype=torch.float64)

    def to_revive(self) -> list[int]:
        """Atoms that have been quiet for too long, at most `MOST_REVIVED`."""
        if not self.revive_after:
            return []
        dead = (self.quiet >= self.revive_after).nonzero().flatten().tolist()
        return [int(atom) for atom in dead[:MOST_REVIVED]]

    def donor(self, step: int, atom: int, batch: int) -> int:
        """Which element of the batch gives its worst patch to an atom."""
        return random_keys.key(self.seed, "revive", step, atom) % batch

    def update(self, totals: Totals, revived: list[int], lr: float) -> None:
        """Divide, move by `lr`, normalise; the `revived` atoms take the patches in `totals`."""
        self.seen = totals.counts.clone()
        delta = totals.product / totals.counts.clamp(min=1)[:, None, None, None]
        self.velocity.mul_(self.momentum).add_(delta, alpha=1 - self.momentum)
        moved = self.atoms.double() + lr * self.velocity
        self.quiet = torch.where(totals.counts > 0, 0, self.quiet + 1)
        for place, atom in enumerate(revived):
            patch = totals.patches[place]
            if bool(patch.any()):
                moved[atom] = patch
                self.velocity[atom] = 0
                self.quiet[atom] = 0
        self.atoms = normalise(moved).to(self.atoms.dtype)
