"""The last digits of a code: scikit-learn's objective, the optimality conditions, no dependence."""

import contextlib
import dataclasses
import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import sparse_encode
from tests.lca.conftest import GEOMETRIES, draw, fista, matrix, objective, unit_atoms
from tests.lca.test_tiles import Divided
from tests.marks import quick, some
from torch import Tensor

from sixfold.distributed.engines import open_engine
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.dynamics import AdaptiveRate, Threshold
from sixfold.lca.geometry import Geometry
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.polish import Polisher
from sixfold.lca.solver import Solution, Solver

EXACT = DynamicsConfig(lambda_=0.2, dt=4.0, max_steps=4000, tolerance=1e-8)
ROW = Geometry(channels=1, height=1, width=24, atoms=60, kernel=(1, 24))


def dictionaries() -> dict[str, Tensor]:
    """Dictionaries (60, 24) whose products may be singular or nearly so."""
    plain = unit_atoms(ROW, dtype=torch.float64).flatten(1)
    holes = plain.clone()
    holes[::5] = 0
    flat = draw(60, 4, seed=4) @ draw(4, 24, seed=5)
    alike = 0.1 * plain + plain[:1]
    return {
        "random": plain,
        "every atom twice": torch.cat([plain[:30], plain[:30]]),
        "atoms and their opposites": torch.cat([plain[:30], -plain[:30]]),
        "nearly twice": torch.cat([plain[:30], plain[:30] + 1e-7 * draw(30, 24, seed=9)]),
        "atoms of zeros": holes,
        "four dims": flat / flat.norm(dim=1, keepdim=True),
        "coherent": alike / alike.norm(dim=1, keepdim=True),
    }


def lasso(atoms: Tensor, rows: Tensor, level: float, nonnegative: bool) -> Tensor:
    """Scikit-learn's objectives of rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = sparse_encode(
            rows.numpy(),
            atoms.numpy(),
            algorithm="lasso_cd",
            alpha=level,
            max_iter=20_000,
            positive=nonnegative,
        )
    return energies(atoms, rows, torch.from_numpy(codes), level)


def energies(atoms: Tensor, rows: Tensor, codes: Tensor, level: float) -> Tensor:
    return (rows - codes @ atoms).square().sum(1) / 2 + level * codes.abs().sum(1)


def polish(atoms: Tensor, rows: Tensor, level: float, nonnegative: bool = False) -> Solution:
    dynamics = dataclasses.replace(EXACT, lambda_=level, nonnegative=nonnegative)
    interaction = LateralInhibition(atoms.view(60, 1, 1, 24), ROW)
    return Solver(interaction, dynamics).solve(rows.view(-1, 1, 1, 24))


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("level", [0.01, 0.3, 100.0])
@pytest.mark.parametrize("name", some(dictionaries(), 2))
def test_codes_are_the_best_whatever_the_dictionary(
    name: str, level: float, nonnegative: bool
) -> None:
    atoms, rows = dictionaries()[name], draw(5, 24, seed=7)
    rows[4] = 0
    found = polish(atoms, rows, level, nonnegative)
    codes = found.codes.flatten(1)
    best = lasso(atoms, rows, level, nonnegative)
    assert found.done.all()
    assert (energies(atoms, rows, codes, level) <= best * (1 + 1e-7) + 1e-12).all()
    pull = (rows - codes @ atoms) @ atoms.t()
    assert ((pull if nonnegative else pull.abs()) <= level * (1 + 1e-3)).all()
    assert not nonnegative or (codes >= 0).all()
    if level == 100.0:
        assert not codes.any()


@given(st.integers(0, 10_000), st.floats(0.003, 3.0), st.booleans(), st.floats(0.0, 1.0))
def test_a_polished_code_meets_every_condition_from_any_beginning(
    seed: int, level: float, nonnegative: bool, share: float
) -> None:
    geometry = Geometry(channels=1, height=1, width=9, atoms=14, kernel=(1, 9))
    atoms = unit_atoms(geometry, seed, dtype=torch.float64)
    image = draw(*geometry.image, seed=seed + 1)
    start = draw(14, 1, 1, seed=seed + 2) * (draw(14, 1, 1, seed=seed + 3) < 2 * share - 1)
    start = start.abs() if nonnegative else start
    threshold = Threshold(level=level, nonnegative=nonnegative)
    found = Polisher(LateralInhibition(atoms, geometry), threshold).polish(image, start, 0, 100)
    assert found is not None
    d, a = atoms.flatten(1).numpy().T, found.code.flatten().numpy()
    g = d.T @ (image.flatten().numpy() - d @ a)
    assert found.gap < 1e-9
    assert ((g if nonnegative else np.abs(g))[a == 0] <= level * (1 + 1e-7)).all()
    np.testing.assert_allclose(g[a != 0], level * np.sign(a[a != 0]), rtol=1e-7)
    before = objective(d, image.flatten().numpy(), start.flatten().numpy(), level)
    assert found.energy <= before * (1 + 1e-12)


@pytest.mark.parametrize("dtype", quick([torch.float32, torch.float64], torch.float32))
def test_the_gap_of_a_rounded_code_still_bounds_its_distance(
    geometry: Geometry, dtype: torch.dtype
) -> None:
    atoms, images = unit_atoms(geometry, dtype=dtype), draw(3, *geometry.image, dtype=dtype)
    found = Solver(LateralInhibition(atoms, geometry), EXACT).solve(images)
    d, select = matrix(geometry, lambda _: atoms.double().numpy())
    assert found.done.all()
    assert (found.solves > 0).any()
    for index in range(3):
        x = select @ images[index].double().numpy().ravel()
        best = objective(d, x, fista(d, x, level=0.2, steps=4000), 0.2)
        energy = objective(d, x, found.codes[index].double().numpy().ravel(), 0.2)
        assert energy <= best * (1 + 1e-7)
        assert energy - best <= (float(found.gap[index]) + 1e-12) * energy


@pytest.mark.parametrize("sharing", quick(["batch", "element", "position"], "batch"))
def test_a_polished_batch_is_its_elements_alone_bit_for_bit(
    geometry: Geometry, sharing: str
) -> None:
    n, (p, q) = 9, geometry.positions
    leading = {"batch": (), "element": (n,), "position": (p * q,)}[sharing]
    atoms = unit_atoms(geometry, 1, *leading, dtype=torch.float32)
    images = draw(n, *geometry.image, dtype=torch.float32)
    images *= torch.arange(1, n + 1).view(-1, 1, 1, 1)
    together = Solver(LateralInhibition(atoms, geometry, sharing=sharing), EXACT, width=8).solve(
        images
    )
    assert (together.solves > 0).any()
    for index in (0, 5, 8):
        own = atoms[index : index + 1] if sharing == "element" else atoms
        alone = Solver(LateralInhibition(own, geometry, sharing=sharing), EXACT, width=8).solve(
            images[index : index + 1]
        )
        for field in ("codes", "steps", "energy", "gap", "violation", "rate", "solves", "done"):
            assert torch.equal(getattr(alone, field)[0], getattr(together, field)[index]), field


@pytest.mark.parametrize("shape", quick([(2, 1), (2, 2)], (2, 1)))
def test_any_grid_polishes_to_the_bits_of_one_process(shape: tuple[int, int]) -> None:
    geometry = GEOMETRIES["stride 2, padded"]
    interaction = LateralInhibition(
        unit_atoms(geometry, dtype=torch.float32), geometry, form="residual"
    )
    images = draw(9, *geometry.image, dtype=torch.float32)
    whole = Solver(interaction, EXACT, width=8).solve(images)
    assert (whole.solves > 0).any()
    with contextlib.closing(open_engine("inline")) as engine:
        divided = Divided(geometry, shape, torch.float32, EXACT)
        group = engine.run_ranks(divided, shape[0] * shape[1])
    for found in group.results:
        codes = torch.tensor(found["codes"], dtype=torch.float64).float()
        assert torch.equal(codes, whole.codes.flatten())
        assert found["steps"] == whole.steps.tolist()
        assert found["energy"] == whole.energy.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold_type": "hard", "certificate": "optimality"},
        {"polish": False},
        {"lambda_": 0.0},
        {"tolerance": 0.0},
    ],
    ids=str,
)
def test_only_a_certificate_of_the_soft_threshold_is_polished_for(
    changes: dict[str, float | str],
) -> None:
    geometry = GEOMETRIES["no padding"]
    interaction = LateralInhibition(unit_atoms(geometry, dtype=torch.float64), geometry)
    dynamics = DynamicsConfig(**{"lambda_": 0.2, "max_steps": 200, **changes})  # type: ignore[arg-type]
    found = Solver(interaction, dynamics).solve(draw(3, *geometry.image))
    assert not found.solves.any()
    assert found.energy.isfinite().all()


def test_a_step_that_was_too_large_is_approached_slowly() -> None:
    """Within rounding of its best the energy does not tell of a step that is too large."""
    geometry = Geometry(channels=1, height=12, width=12, atoms=200, kernel=(12, 12))
    atoms = unit_atoms(geometry, dtype=torch.float32)
    dynamics = DynamicsConfig(lambda_=0.02, max_steps=4000, tolerance=1e-9, polish=False)
    found = Solver(LateralInhibition(atoms, geometry), dynamics).solve(
        draw(4, *geometry.image, dtype=torch.float32), trace=True
    )
    for element in range(4):
        rates = [row["rate"] for row in found.trace if row["element"] == element]
        assert len(rates) > 100
        later = rates[len(rates) // 2 :]
    assert max(b / a for a, b in itertools.pairwise(later)) <= AdaptiveRate().recover + 1e-6


def test_a_system_that_costs_too_much_is_left_to_the_time_steps() -> None:
    """Nearly as many entries as pixels: conjugate gradients would need hundreds of products."""
    geometry = Geometry(
        channels=1, height=24, width=24, atoms=16, kernel=(7, 7), padding=(3, 3), boundary="zero"
    )
    atoms = unit_atoms(geometry, dtype=torch.float32)
    threshold = Threshold(level=0.02)
    interaction = LateralInhibition(atoms, geometry)
    polisher = Polisher(interaction, threshold)
    assert polisher.affords(575)
    assert not polisher.affords(576)
    code = draw(16, 24, 24, seed=3).float() * (draw(16, 24, 24, seed=4) > 1.6)
    image = interaction.prepare(draw(1, *geometry.image, seed=5).float())[0]
    assert polisher.polish(image, code, 0, 100) is None
