"""Every form computes the same gradient as explicit matrices; slots do not see each other."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from tests.lca.conftest import Floats, draw, matrix, unit_atoms

from sixfold.core.errors import UserError
from sixfold.lca.geometry import Geometry
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.lane import LocalLane


def forms(geometry: Geometry) -> list[str]:
    return ["residual", "gram"] if geometry.gram_is_exact else ["residual"]


def dictionary_of(atoms: Floats, sharing: str, element: int, place: int) -> Floats:
    """The dictionary of an element at a position."""
    return atoms if sharing == "batch" else atoms[element if sharing == "element" else place]


@pytest.mark.parametrize("sharing", ["batch", "element", "position"])
def test_gradient_and_squares_are_those_of_explicit_matrices(
    geometry: Geometry, sharing: str
) -> None:
    n, (p, q) = 3, geometry.positions
    leading = {"batch": (), "element": (n,), "position": (p * q,)}[sharing]
    atoms = unit_atoms(geometry, 1, *leading, dtype=torch.float64)
    images, codes = draw(n, *geometry.image), draw(n, geometry.atoms, p, q, seed=2)
    for form in forms(geometry) if sharing == "batch" else ["auto"]:
        interaction = LateralInhibition(atoms, geometry, sharing=sharing, form=form)
        lane = interaction.lane(8)
        prepared = interaction.prepare(images)
        for index in range(n):
            lane.load(index + 2, prepared[index])
            lane.code[index + 2] = codes[index]
            if isinstance(lane, LocalLane) and sharing == "element":
                lane.load_dictionary(index + 2, atoms[index])
        gradient = lane.gradient().clone()
        squares = lane.squares().flatten(1).sum(1)
        residuals = interaction.residual(images, codes)
        for index in range(n):
            d, select = matrix(geometry, partial(dictionary_of, atoms.numpy(), sharing, index))
            x = select @ images[index].numpy().ravel()
            r = x - d @ codes[index].numpy().ravel()
            found = gradient[index + 2].numpy().ravel()
            np.testing.assert_allclose(found, d.T @ r, rtol=0, atol=1e-12)
            assert float(squares[index + 2]) == pytest.approx(float(r @ r), rel=1e-12)
            np.testing.assert_allclose(
                residuals[index].numpy().ravel(), select.T @ r, rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharing", ["batch", "element", "position"])
def test_a_slot_has_the_same_bits_wherever_it_is_and_whoever_is_beside_it(
    geometry: Geometry, sharing: str, dtype: torch.dtype
) -> None:
    p, q = geometry.positions
    leading = {"batch": (), "element": (8,), "position": (p * q,)}[sharing]
    atoms = unit_atoms(geometry, 1, *leading, dtype=dtype)
    image = draw(*geometry.image, dtype=dtype)
    code = draw(geometry.atoms, p, q, seed=2, dtype=dtype)
    for form in forms(geometry) if sharing == "batch" else ["auto"]:
        lane = LateralInhibition(atoms, geometry, sharing=sharing, form=form).lane(8)
        prepare = LateralInhibition(atoms, geometry, sharing=sharing, form=form).prepare
        found = []
        for slot, neighbours in ((0, 0.0), (3, 1.0), (7, -5.0)):
            for other in range(8):
                lane.load(other, prepare(neighbours * draw(1, *geometry.image, dtype=dtype))[0])
                lane.code[other] = neighbours
                if isinstance(lane, LocalLane) and sharing == "element":
                    lane.load_dictionary(other, atoms[other])
            lane.load(slot, prepare(image[None])[0])
            lane.code[slot] = code
            if isinstance(lane, LocalLane) and sharing == "element":
                lane.load_dictionary(slot, atoms[0])
            found.append(lane.gradient()[slot].clone())
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])


def test_gram_form_refuses_a_free_boundary() -> None:
    geometry = Geometry(channels=1, height=8, width=8, atoms=3, kernel=(3, 3), padding=(1, 1))
    atoms = unit_atoms(geometry, dtype=torch.float64)
    with pytest.raises(UserError, match="boundary zero"):
        LateralInhibition(atoms, geometry, form="gram")
    assert LateralInhibition(
        atoms, dataclasses.replace(geometry, boundary="zero"), form="gram"
    ).lane(8)


def test_a_dictionary_of_another_shape_is_refused_with_both_shapes() -> None:
    geometry = Geometry(channels=1, height=8, width=8, atoms=3, kernel=(3, 3))
    with pytest.raises(UserError, match=r"shape \(4, 1, 3, 3\), expected \(3, 1, 3, 3\)"):
        LateralInhibition(torch.zeros(4, 1, 3, 3), geometry)
