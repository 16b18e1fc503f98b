"""The division that dynamic programming chooses for each layer."""

from itertools import product

import torch
from tests.training.strategies.model_parallel.divided import deviation
from torch import Tensor, nn

from sixfold.perf.plan.candidates import meshes
from sixfold.perf.plan.layer_ways import WaySearch
from sixfold.training.strategies.model_parallel.division import INPUTS, OUTPUTS, LayerGrid
from sixfold.training.strategies.model_parallel.grid import Mesh

SHAPE = (3, 20, 24)


class Net(nn.Module):
    """Wide maps first, many channels last, and a shortcut around two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 32, 3, padding=1)
        self.two = nn.Conv2d(32, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4 * 10 * 12, 64)
        self.last = nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = self.norm(x + self.two(self.one(x).relu()))
        x = nn.functional.max_pool2d(x, 2).flatten(1)
        return self.last(self.hidden(x).relu())  # type: ignore[no-any-return]


def search(ranks: int) -> WaySearch:
    return WaySearch(Net().to("meta"), SHAPE, ranks, samples=2)


def test_no_other_division_costs_less() -> None:
    """Next to it every division there is, priced one by one."""
    known, ranks = search(2), 2
    names = ("first", "one", "two", "hidden", "last")
    convs: list[Mesh | str] = list(meshes(ranks))
    linear: list[Mesh | str] = [INPUTS, OUTPUTS]
    costs = []
    for ways in product(*[convs] * 3, *[linear] * 2):
        grid = LayerGrid(mesh=Mesh(rows=ranks), layers=tuple(zip(names, ways, strict=True)))
        costs.append(known.of(grid).shard_s)
    assert known.best().shard_s == min(costs)
    assert len(costs) == 4**3 * 4


def test_the_grid_that_is_named_is_the_one_that_was_priced() -> None:
    known = search(4)
    best = known.best()
    assert known.of(best.grid).shard_s == best.shard_s
    assert best.grid.mesh.size == 4


def test_the_chosen_division_is_the_network() -> None:
    torch.manual_seed(0)
    grid = search(4).best().grid
    assert deviation(Net(), SHAPE, grid.mesh, layers=grid.layers) < 1e-10


def test_large_maps_are_divided_by_place_and_many_weights_by_channels() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.MaxPool2d(16),
        nn.Conv2d(8, 512, 3, padding=1),
        nn.Conv2d(512, 512, 3, padding=1),
    )
    found = WaySearch(network.to("meta"), (3, 64, 64), 2, samples=8).best().grid
    ways = {name: dict(found.layers).get(name, found.mesh) for name in ("0", "1", "3", "4")}
    assert ways["1"] in (Mesh(rows=2), Mesh(cols=2))
    assert ways["4"] in (Mesh(cout=2), Mesh(cin=2))
