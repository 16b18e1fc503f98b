"""Codes: the textbook's update, the certificate's word, and independence of the batch."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from sklearn.decomposition import sparse_encode
from tests.lca.conftest import draw, fista, matrix, objective, reference_lca, unit_atoms
from tests.marks import quick

from sixfold.core.errors import RunError
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.geometry import Geometry
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.solver import Solver

FIXED = DynamicsConfig(
    lambda_=0.2, dt=4.0, adaptive=False, state_momentum=0.0, tolerance=0.0, max_steps=30
)
CERTIFIED = DynamicsConfig(lambda_=0.2, dt=4.0, max_steps=20_000)


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_fixed_steps_are_the_textbooks(geometry: Geometry, kind: str, nonnegative: bool) -> None:
    atoms = unit_atoms(geometry, dtype=torch.float64)
    images = draw(2, *geometry.image)
    dynamics = dataclasses.replace(FIXED, threshold_type=kind, nonnegative=nonnegative)
    d, select = matrix(geometry, lambda _: atoms.numpy())
    for form in ("residual", "gram") if geometry.gram_is_exact else ("residual",):
        found = Solver(LateralInhibition(atoms, geometry, form=form), dynamics).solve(images)
        for index in range(2):
            expected = reference_lca(
                d,
                select @ images[index].numpy().ravel(),
                level=0.2,
                eta=0.04,
                steps=30,
                kind=kind,
                nonnegative=nonnegative,
            )
            code = found.codes[index].numpy().ravel()
            np.testing.assert_allclose(code, expected, rtol=0, atol=1e-11)
        assert found.steps.tolist() == [30, 30]


def test_the_certificate_holds_against_fista(geometry: Geometry) -> None:
    atoms = unit_atoms(geometry, dtype=torch.float64)
    images = draw(3, *geometry.image)
    found = Solver(LateralInhibition(atoms, geometry), CERTIFIED).solve(images)
    d, select = matrix(geometry, lambda _: atoms.numpy())
    assert found.done.all()
    for index in range(3):
        x = select @ images[index].numpy().ravel()
        best = objective(d, x, fista(d, x, level=0.2, steps=3000), 0.2)
        energy = objective(d, x, found.codes[index].numpy().ravel(), 0.2)
        # Energies are sums of whole numbers (`sixfold.lca.certificate`), hence rounded.
        assert float(found.energy[index]) == pytest.approx(energy, rel=1e-7)
        # A polished code is better than 3,000 steps of FISTA in the eleventh digit.
        assert best * (1 - 1e-9) <= energy <= best * (1 + 1e-4)
        assert energy - best <= float(found.gap[index]) * energy * (1 + 1e-6)


def test_fully_connected_and_patches_agree_with_scikit_learn() -> None:
    geometry = Geometry(channels=1, height=8, width=8, atoms=96, kernel=(8, 8))
    for dtype in (torch.float32, torch.float64):
        atoms = unit_atoms(geometry, dtype=dtype)
        images = draw(20, *geometry.image, dtype=dtype)
        found = Solver(LateralInhibition(atoms, geometry), CERTIFIED).solve(images)
        flat, x = atoms.flatten(1).double().numpy(), images.flatten(1).double().numpy()
        expected = sparse_encode(x, flat, algorithm="lasso_cd", alpha=0.2, max_iter=10_000)
        for index in range(20):
            ours = objective(flat.T, x[index], found.codes[index].double().numpy().ravel(), 0.2)
            theirs = objective(flat.T, x[index], expected[index], 0.2)
            assert ours <= theirs * (1 + 1e-4)


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("sharing", quick(["batch", "element", "position"], "element"))
def test_a_batch_is_its_elements_alone_bit_for_bit(
    geometry: Geometry, sharing: str, dtype: torch.dtype
) -> None:
    n, (p, q) = 11, geometry.positions
    leading = {"batch": (), "element": (n,), "position": (p * q,)}[sharing]
    atoms = unit_atoms(geometry, 1, *leading, dtype=dtype)
    images = draw(n, *geometry.image, dtype=dtype) * torch.arange(1, n + 1).view(-1, 1, 1, 1)
    dynamics = dataclasses.replace(CERTIFIED, max_steps=400)
    together = Solver(LateralInhibition(atoms, geometry, sharing=sharing), dynamics, width=8).solve(
        images
    )
    assert len(set(together.steps.tolist())) > 1, "all left at once: nothing was refilled"
    for index in range(n):
        own = atoms[index : index + 1] if sharing == "element" else atoms
        alone = Solver(LateralInhibition(own, geometry, sharing=sharing), dynamics, width=8).solve(
            images[index : index + 1]
        )
        assert torch.equal(alone.codes[0], together.codes[index])
        for field in ("steps", "energy", "gap", "violation", "rate", "active", "done"):
            assert getattr(alone, field)[0] == getattr(together, field)[index], field


@pytest.mark.full
def test_a_warm_start_from_the_answer_is_done_at_the_first_reading() -> None:
    geometry = Geometry(channels=1, height=12, width=12, atoms=9, kernel=(5, 5), padding=(2, 2))
    solver = Solver(
        LateralInhibition(unit_atoms(geometry, dtype=torch.float64), geometry), CERTIFIED
    )
    images = draw(3, *geometry.image)
    cold = solver.solve(images)
    warm = solver.solve(images, start=list(cold.codes))
    assert warm.done.all()
    assert warm.steps.tolist() == [CERTIFIED.check_every] * 3
    assert (cold.steps > CERTIFIED.check_every).all()


@pytest.mark.full
def test_the_energy_of_adaptive_steps_never_rises() -> None:
    geometry = Geometry(channels=2, height=12, width=12, atoms=20, kernel=(5, 5), padding=(2, 2))
    solver = Solver(
        LateralInhibition(unit_atoms(geometry, dtype=torch.float64), geometry),
        dataclasses.replace(CERTIFIED, check_every=5, dt=50.0, tolerance=1e-6),
    )
    found = solver.solve(draw(4, *geometry.image), trace=True)
    for element in range(4):
        energies = [row["energy"] for row in found.trace if row["element"] == element]
        assert len(energies) > 3
        assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(energies))


def test_the_optimality_certificate_bounds_each_condition() -> None:
    geometry = Geometry(channels=1, height=10, width=10, atoms=8, kernel=(4, 4), stride=(2, 2))
    atoms = unit_atoms(geometry, dtype=torch.float64)
    dynamics = dataclasses.replace(CERTIFIED, certificate="optimality", tolerance=1e-3)
    images = draw(3, *geometry.image)
    found = Solver(LateralInhibition(atoms, geometry), dynamics).solve(images)
    d, select = matrix(geometry, lambda _: atoms.numpy())
    for index in range(3):
        a = found.codes[index].numpy().ravel()
        g = d.T @ (select @ images[index].numpy().ravel() - d @ a)
        assert found.done[index]
        assert (np.abs(g[a == 0]) <= 0.2 * (1 + 1e-3)).all()
        np.testing.assert_allclose(g[a != 0], 0.2 * np.sign(a[a != 0]), rtol=1e-3)


def test_a_fixed_step_that_diverges_says_what_to_do() -> None:
    geometry = Geometry(channels=1, height=12, width=12, atoms=30, kernel=(5, 5), padding=(2, 2))
    atoms = unit_atoms(geometry, dtype=torch.float32).abs()
    dynamics = dataclasses.replace(FIXED, dt=150.0, max_steps=60)
    with pytest.raises(RunError, match="smaller --dt, or --adaptive"):
        Solver(LateralInhibition(atoms, geometry), dynamics).solve(draw(2, *geometry.image).float())


@pytest.mark.full
def test_a_step_that_is_far_too_large_is_put_right() -> None:
    geometry = Geometry(channels=1, height=12, width=12, atoms=30, kernel=(5, 5), padding=(2, 2))
    atoms = unit_atoms(geometry, dtype=torch.float32).abs()
    dynamics = dataclasses.replace(CERTIFIED, dt=100.0, tolerance=1e-3)
    images = draw(3, *geometry.image).float()
    found = Solver(LateralInhibition(atoms, geometry), dynamics).solve(images)
    assert found.done.all()
    assert (found.energy < images.flatten(1).double().square().sum(1) / 2).all()
    assert (found.squares > 0).all()
