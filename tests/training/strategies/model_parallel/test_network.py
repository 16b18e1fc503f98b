"""Whole networks: random ones, what they send, what they hold, and what cannot be divided."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.strategies.model_parallel.divided import batch, deviation, run_divided
from torch import Tensor, nn

from sixfold.core.errors import UnsupportedError
from sixfold.distributed.process_group import Communicator, SingleProcess
from sixfold.models.slide import slide
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.network import divide

MESHES = st.sampled_from(
    [
        Mesh(rows=rows, cols=cols, cout=cout, cin=cin)
        for rows, cols, cout, cin in product(range(1, 9), range(1, 9), range(1, 5), range(1, 5))
        if rows * cols * cout * cin <= 8
    ]
)


@st.composite
def networks(draw: Any) -> tuple[nn.Module, tuple[int, int, int]]:
    """A few random layers that fit each other, and the shape of their images."""
    torch.manual_seed(draw(st.integers(0, 9)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(3, 12)), draw(st.integers(3, 12)))
    layers: list[nn.Module] = []
    channels, rows, cols = shape
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "conv", "group", "max", "avg", "norm", "relu"]))
        kernel = draw(st.integers(1, min(rows, cols, 4)))
        stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, kernel // 2))
        if kind == "norm":
            layers.append(nn.BatchNorm2d(channels))
            continue
        if kind == "relu":
            layers.append(nn.ReLU())
            continue
        if kind == "max":
            layers.append(nn.MaxPool2d(kernel, stride, padding, ceil_mode=draw(st.booleans())))
        elif kind == "avg":
            layers.append(
                nn.AvgPool2d(kernel, stride, padding, draw(st.booleans()), draw(st.booleans()))
            )
        else:
            maps = (
                channels * draw(st.integers(1, 2)) if kind == "group" else draw(st.integers(1, 5))
            )
            groups = channels if kind == "group" else 1
            layers.append(nn.Conv2d(channels, maps, kernel, stride, padding, groups=groups))
        with torch.no_grad():
            _, channels, rows, cols = layers[-1](torch.zeros(1, channels, rows, cols)).shape
    body = nn.Sequential(*layers, nn.Flatten())
    return nn.Sequential(body, nn.Linear(channels * rows * cols, 2)), shape


@settings(derandomize=True)
@given(network=networks(), mesh=MESHES)
def test_random_networks_in_random_grids(
    network: tuple[nn.Module, tuple[int, int, int]], mesh: Mesh
) -> None:
    assert deviation(network[0], network[1], mesh, samples=4) < 1e-9


@pytest.mark.full
@settings(max_examples=400)
@given(network=networks(), mesh=MESHES)
def test_many_random_networks_in_random_grids(
    network: tuple[nn.Module, tuple[int, int, int]], mesh: Mesh
) -> None:
    assert deviation(network[0], network[1], mesh, samples=4) < 1e-9


def sent(network: nn.Module, shape: tuple[int, int, int], mesh: Mesh, samples: int) -> list[int]:
    images, labels = batch(shape, samples, 2)
    outcomes = run_divided(network.double(), shape, mesh, images, labels)
    return [found.sent_bytes for found in outcomes]


@pytest.mark.parametrize("mesh", [Mesh(cout=2), Mesh(rows=2)], ids=str)
def test_conv_pool_linear_exchanges_its_logits_only(mesh: Mesh) -> None:
    shape, samples = (3, 16, 16), 7
    assert sent(slide(shape, 10), shape, mesh, samples) == [samples * 10 * 8] * 2


def test_depthwise_layers_exchange_nothing_along_channels() -> None:
    def network(*more: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), *more, nn.Flatten(), nn.Linear(8 * 6 * 6, 2))

    def depthwise() -> nn.Module:
        return nn.Conv2d(8, 8, 3, padding=1, groups=8)

    for mesh in (Mesh(cout=2), Mesh(cout=2, cin=2)):
        plain = sent(network(), (3, 8, 8), mesh, 3)
        assert sent(network(depthwise(), nn.ReLU(), depthwise()), (3, 8, 8), mesh, 3) == plain


def test_two_groups_on_two_ranks_exchange_nothing() -> None:
    def network(groups: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3, groups=groups),
            nn.Flatten(),
            nn.Linear(8 * 4 * 4, 2),
        )

    logits = 3 * 2 * 8
    assert sent(network(2), (3, 8, 8), Mesh(cout=2), 3) == [logits, logits]
    assert sent(network(1), (3, 8, 8), Mesh(cout=2), 3)[0] > logits


def of_rank(rank: int, mesh: Mesh) -> Communicator:
    return Communicator(rank=rank, size=mesh.size, host="", attempt=0, transport=SingleProcess())


def test_a_rank_holds_its_part_and_takes_its_part_of_the_images() -> None:
    shape, mesh = (3, 32, 32), Mesh(rows=2, cout=2)
    network = slide(shape, 10).to("meta")
    whole = sum(parameter.numel() for parameter in network.parameters())
    held = []
    for rank in range(mesh.size):
        divided = divide(network, shape, of_rank(rank, mesh), mesh)
        held.append(sum(parameter.numel() for parameter in divided.parameters()))
        rows = divided.box[1]
        assert rows == ((0, 18) if rank < 2 else (14, 32))  # half of them, and two beyond
    assert max(held) < whole / 3


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 3)
        self.reflect = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        self.scale = nn.Parameter(torch.ones(1))
        self.last = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reflect(self.norm(x)) * self.scale
        return self.last(x.roll(1, 2).flatten(1))  # type: ignore[no-any-return]


def test_every_layer_that_cannot_be_divided_is_named_with_a_remedy() -> None:
    with torch.device("meta"):
        network = Odd()
    with pytest.raises(UnsupportedError) as caught:
        divide(network, (3, 4, 4), of_rank(0, Mesh(rows=2)), Mesh(rows=2))
    text = str(caught.value)
    for name in ("'norm' (GroupNorm)", "'reflect' (Conv2d)", "'scale'", "roll"):
        assert name in text
    assert all("--strategy sync" in line for line in caught.value.problems)


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.sum() > 0 else -x
        return self.last(x.flatten(1))  # type: ignore[no-any-return]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(self.conv(x)).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "text"), [(Decides, "cannot be followed"), (Twice, "more than once")]
)
def test_what_else_cannot_be_divided_is_told(network: Callable[[], nn.Module], text: str) -> None:
    with torch.device("meta"):
        made = network()
    with pytest.raises(UnsupportedError, match=text):
        divide(made, (3, 4, 4), of_rank(0, Mesh(rows=2)), Mesh(rows=2))
