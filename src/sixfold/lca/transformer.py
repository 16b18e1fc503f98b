"""LCA as a scikit-learn transformer: rows in, codes out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sixfold.core.errors import UserError, raise_problems
from sixfold.distributed.logical_shards import shard_bounds, shard_count
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.dictionary import random_atoms
from sixfold.lca.geometry import Geometry
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.learning import Learner, ShardSums, sum_shards
from sixfold.lca.order import Order
from sixfold.lca.solver import Solver


class LCATransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Sparse codes of rows in a fully connected dictionary that `fit` learns.

    Rows are coded as they are: scale them before, for example with `StandardScaler`. The learning
    is that of `sixfold lca learn --kernel full` on one worker, in float64.

    Args:
        n_components: number of atoms.
        lambda_: lambda, the weight of the penalty.
        nonnegative: whether codes may not be negative.
        max_iter: updates of the dictionary.
        batch_size: rows per update.
        learning_rate: of the updates.
        momentum: of the updates.
        tolerance: certificate of a code, its duality gap relative to its objective.
        max_steps: most time steps of a code.
        dictionary: atoms to use, (n_components, n_features); `fit` then learns nothing.
        random_state: seed, a whole number.

    Attributes:
        components_: the atoms, (n_components, n_features), each of norm 1.
        n_features_in_: columns of the rows that were fitted.

    >>> rows = np.random.default_rng(0).normal(size=(40, 6))
    >>> LCATransformer(n_components=8, max_iter=3, batch_size=20).fit_transform(rows).shape
    (40, 8)
    """

    def __init__(
        self,
        n_components: int = 64,
        *,
        lambda_: float = 0.1,
        nonnegative: bool = False,
        max_iter: int = 100,
        batch_size: int = 64,
        learning_rate: float = 1.0,
        momentum: float = 0.5,
        tolerance: float = 1e-4,
        max_steps: int = 1000,
        dictionary: ArrayLike | None = None,
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.lambda_ = lambda_
        self.nonnegative = nonnegative
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.dictionary = dictionary
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> LCATransformer:  # noqa: ARG002 - scikit-learn's
        """Learn the dictionary from rows (n, n_features); `y` is ignored."""
        rows = validate_data(self, X, dtype=np.float64)
        geometry = self._geometry(rows.shape[1])
        if self.dictionary is not None:
            atoms = np.asarray(self.dictionary, np.float64)
            if atoms.shape != (self.n_components, rows.shape[1]):
                raise UserError(
                    f"the dictionary has shape {atoms.shape}, expected "
                    f"{(self.n_components, rows.shape[1])}"
                )
            self.components_ = atoms
        else:
            with one_thread():
                self.components_ = self._learn(rows, geometry)
        self._n_features_out = len(self.components_)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Codes of rows, (n, n_components)."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        geometry = self._geometry(rows.shape[1])
        atoms = torch.from_numpy(self.components_).view(-1, *geometry.atom_shape)
        with one_thread():
            solver = Solver(LateralInhibition(atoms, geometry), self._dynamics())
            found = solver.solve(_images(rows, geometry))
        codes: NDArray[np.float64] = found.codes.flatten(1).numpy()
        return codes

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Rows from codes, (n, n_features)."""
        check_is_fitted(self)
        made: NDArray[np.float64] = np.asarray(X, np.float64) @ self.components_
        return made

    def _geometry(self, features: int) -> Geometry:
        return Geometry(
            channels=1, height=1, width=features, atoms=self.n_components, kernel=(1, features)
        )

    def _dynamics(self) -> DynamicsConfig:
        dynamics = DynamicsConfig(
            lambda_=self.lambda_,
            nonnegative=self.nonnegative,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )
        raise_problems(dynamics.problems())
        return dynamics

    def _learn(self, rows: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float64]:
        learner = Learner(
            geometry,
            random_atoms(geometry, self.random_state, torch.float64),
            momentum=self.momentum,
            revive_after=20,
            seed=self.random_state,
        )
        batch = min(self.batch_size, len(rows))
        order = Order(kind="random", images=len(rows), batch=batch, seed=self.random_state)
        for step in range(self.max_iter):
            images = _images(rows[order.at(step)], geometry)
            self._update(learner, images, step)
        atoms: NDArray[np.float64] = learner.atoms.flatten(1).numpy()
        return atoms

    def _update(self, learner: Learner, images: torch.Tensor, step: int) -> None:
        """One update from a batch, over the same shards as `sixfold lca learn`."""
        revived, batch = learner.to_revive(), len(images)
        sums, count = ShardSums(learner.geometry, len(revived)), shard_count(batch)
        interaction = LateralInhibition(learner.atoms, learner.geometry)
        solution = Solver(interaction, self._dynamics()).solve(images)
        donors = [learner.donor(step, atom, batch) for atom in revived]
        shards = ((shard, range(*shard_bounds(batch, count, shard))) for shard in range(count))
        fold = sum_shards(sums, interaction, images, solution, shards, donors)
        learner.update(sums.read(fold.root(count)), revived, self.learning_rate)


def _images(rows: NDArray[np.float64], geometry: Geometry) -> torch.Tensor:
    """Rows as images of one row, (n, 1, 1, n_features)."""
    assert math.prod(geometry.image) == rows.shape[1]
    return torch.from_numpy(np.ascontiguousarray(rows)).view(-1, *geometry.image)
