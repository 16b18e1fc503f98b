"""Images divided by rows and columns: the same bits for any grid."""

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from tests.lca.conftest import GEOMETRIES, draw, unit_atoms
from tests.marks import quick

from sixfold.core.errors import UserError
from sixfold.distributed.engines import open_engine
from sixfold.distributed.process_group import Communicator
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.geometry import Geometry
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.phases import Phases
from sixfold.lca.solver import Solver
from sixfold.lca.tiles import Tiles, grid_of, grid_problems
from sixfold.training.strategies.model_parallel.grid import Mesh

DYNAMICS = DynamicsConfig(lambda_=0.2, dt=4.0, max_steps=200)
DIVISIBLE = {
    "cifar": Geometry(
        channels=3, height=16, width=20, atoms=16, kernel=(9, 9), stride=(2, 2), padding=(4, 4)
    ),
    **{name: found for name, found in GEOMETRIES.items() if not found.dense},
}


class Divided:
    """Runs in every rank: solve, join, hand back bits."""

    def __init__(
        self,
        geometry: Geometry,
        shape: tuple[int, int],
        dtype: torch.dtype,
        dynamics: DynamicsConfig = DYNAMICS,
    ) -> None:
        self.geometry, self.shape, self.dtype = geometry, shape, dtype
        self.dynamics = dynamics

    def __call__(self, comm: Communicator) -> dict[str, Any]:
        torch.set_num_threads(1)
        interaction = LateralInhibition(
            unit_atoms(self.geometry, dtype=self.dtype), self.geometry, form="residual"
        )
        tiles = Tiles(comm, self.shape, Phases(self.geometry))
        images = draw(9, *self.geometry.image, dtype=self.dtype)
        found = Solver(interaction, self.dynamics, width=8, tiles=tiles).solve(images)
        return {
            "codes": tiles.join(found.codes).flatten().tolist(),
            "steps": found.steps.tolist(),
            "energy": found.energy.tolist(),
        }


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("shape", quick([(2, 1), (1, 2), (2, 2), (3, 1)], (2, 2)))
@pytest.mark.parametrize("name", quick(DIVISIBLE, "stride 2, padded", "one-dimensional"))
def test_any_grid_has_the_bits_of_one_process(
    name: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    geometry = DIVISIBLE[name]
    if grid_problems(Mesh(rows=shape[0], cols=shape[1]), Phases(geometry)):
        pytest.skip("this grid does not fit")
    interaction = LateralInhibition(unit_atoms(geometry, dtype=dtype), geometry, form="residual")
    images = draw(9, *geometry.image, dtype=dtype)
    whole = Solver(interaction, DYNAMICS, width=8).solve(images)
    with contextlib.closing(open_engine("inline")) as engine:
        group = engine.run_ranks(Divided(geometry, shape, dtype), shape[0] * shape[1])
    for found in group.results:
        codes = torch.tensor(found["codes"], dtype=torch.float64).to(dtype)
        assert torch.equal(codes, whole.codes.flatten())
        assert found["steps"] == whole.steps.tolist()
        assert found["energy"] == whole.energy.tolist()


def test_grids_that_do_not_fit_are_told() -> None:
    with pytest.raises(UserError, match="use --workers 4"):
        grid_of("1x2x2", 2)
    with pytest.raises(UserError, match="BATCHxROWSxCOLUMNS"):
        grid_of("2x2", 4)
    geometry = DIVISIBLE["cifar"]
    few = dataclasses.replace(geometry, height=9, width=9, padding=(0, 0))
    assert "one position" in grid_problems(Mesh(rows=2), Phases(few))[0]
    tiny = dataclasses.replace(geometry, height=11, width=11, padding=(0, 0))
    assert "single position" in grid_problems(Mesh(rows=2, cols=2), Phases(tiny))[0]
