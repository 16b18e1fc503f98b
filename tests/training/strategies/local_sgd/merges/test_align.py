"""Numbering feature maps in another way, and finding the numbering again."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sixfold import models
from sixfold.models.config import ModelConfig
from sixfold.training.strategies.local_sgd.merges import align
from sixfold.training.strategies.local_sgd.merges.channels import Channels, find_channels

NETWORKS: dict[str, tuple[str, str, tuple[int, int, int]]] = {
    "slide": ("slide", "", (3, 8, 8)),
    "cells": ("cells", "", (1, 128, 128)),
    "lenet300": ("lenet300", "", (1, 8, 8)),
    "lenet5": ("lenet5", "", (1, 16, 16)),
    "conv2": ("conv2", "", (3, 8, 8)),
    "resnet20 A": ("resnet20", "depth=8", (3, 8, 8)),
    "resnet20 B": ("resnet20", "depth=14,shortcut=B", (3, 8, 8)),
    "resnet50": ("resnet50", "", (3, 32, 32)),
    "mobilenet_v2": ("mobilenet_v2", "width=0.25", (3, 16, 16)),
    "vgg16": ("vgg16", "", (3, 32, 32)),
    "alexnet": ("alexnet", "", (3, 64, 64)),
}


def network(case: str) -> nn.Module:
    name, arguments, shape = NETWORKS[case]
    model = models.build(
        ModelConfig(model=name, model_args=arguments), shape=shape, classes=4, seed=1
    )
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            assert module.running_mean is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items() if t.is_floating_point()}


def shuffled(
    channels: Channels, model: nn.Module, seed: int
) -> tuple[dict[str, Tensor], list[align.Permutation]]:
    random = np.random.default_rng(seed)
    orders = [random.permutation(axis.size) for axis in channels.free]
    return align.apply(tensors_of(model), channels.free, orders), orders


LARGE = ("resnet50", "vgg16", "alexnet")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.full if c in LARGE else ()) for c in NETWORKS]
)
def test_another_numbering_is_the_same_function(case: str) -> None:
    model = network(case).double()
    images = torch.randn(2, *NETWORKS[case][2], dtype=torch.float64)
    channels = find_channels(model)
    with torch.no_grad():
        expected = model(images)
        before = tensors_of(model)
        changed, _ = shuffled(channels, model, seed=0)
        model.load_state_dict(changed, strict=False)
        found = model(images)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-9)
    assert sum(not torch.equal(before[name], changed[name]) for name in before) >= 3


@pytest.mark.parametrize("case", [c for c in NETWORKS if c not in LARGE])
def test_the_numbering_is_found_again(case: str) -> None:
    model = network(case)
    channels = find_channels(model)
    base = {name: t for name, t in tensors_of(model).items() if "running" not in name}
    changed, orders = shuffled(channels, model, seed=5)
    found = align.align(base, changed, channels.free)
    back = align.apply(changed, channels.free, found)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors_of(model).items())
    count = align.moved(channels.free, found)
    for axis, order in zip(channels.free, orders, strict=True):
        assert count[axis.layer] == int((order != np.arange(axis.size)).sum())


def test_nothing_moves_where_nothing_has_moved() -> None:
    model = network("lenet5")
    channels = find_channels(model)
    base = tensors_of(model)
    near = {name: t + 1e-3 * torch.randn_like(t) for name, t in base.items()}
    near["features.0.weight"][:3] = 0  # dead maps: any order of them would do
    near["features.2.weight"][:, :3] = 0
    found = align.align(base, near, channels.free)
    assert sum(align.moved(channels.free, found).values()) == 0


@given(st.integers(0, 1000))
def test_no_permutation_of_a_layer_matches_better(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    other = nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    base, worker = tensors_of(model), tensors_of(other)
    (axis,) = find_channels(model).free

    def matched(order: align.Permutation) -> float:
        arranged = align.apply(worker, (axis,), [order])
        return sum(float((base[name] * arranged[name]).sum()) for name in base)

    (found,) = align.align(base, worker, (axis,))
    best = max(matched(np.array(order)) for order in permutations(range(4)))
    assert matched(found) == pytest.approx(best, abs=1e-5)


def test_what_is_left_alone_is_named_with_the_reason() -> None:
    resnet = find_channels(network("resnet20 A"))
    assert "ConstantPad3d" in resnet.left_alone["stem.0"]
    assert "stage1.0.residual.0" in {axis.layer for axis in resnet.free}
    assert find_channels(network("resnet20 B")).left_alone == {
        "head.2": "its outputs are the network's own"
    }
    alex = find_channels(network("alexnet"))
    assert any("groups" in reason for reason in alex.left_alone.values())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "made", [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm]
)
def test_layers_whose_weight_is_made_of_others_are_left_alone(made: Any) -> None:
    layers = [nn.Conv2d(1, 4, 3), made(nn.Conv2d(4, 5, 3)), nn.Conv2d(5, 6, 3), nn.Conv2d(6, 2, 3)]
    found = find_channels(nn.Sequential(*layers))
    assert [axis.layer for axis in found.free] == ["2"]
    assert set(found.left_alone) == {"0", "1", "3"}
    assert "made of other tensors" in found.left_alone["1"]


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        if out.sum() > 0:
            out = -out
        return out


class Functional(nn.Module):
    """Written in another manner: functions and methods in place of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.conv3 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.join = nn.Conv2d(11, 4, 1)
        self.shared = nn.Linear(4 * 16, 4 * 16)
        self.out = nn.Linear(4 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.norm1(self.conv1(x)))
        a = a + self.conv2(a) * 0.5
        both = torch.cat([a, nn.functional.relu(self.conv3(x))], dim=1)
        y = nn.functional.max_pool2d(self.join(both), 2).view(x.size(0), -1)
        out: Tensor = self.out(torch.relu(self.shared(torch.relu(self.shared(y)))))
        return out


def test_functions_concatenations_and_shared_layers_are_followed() -> None:
    torch.manual_seed(0)
    model = Functional().double().eval()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    channels = find_channels(model)
    assert {"conv1", "conv3"} <= {axis.layer for axis in channels.free}
    expected = model(images)
    changed, _ = shuffled(channels, model, seed=2)
    model.load_state_dict(changed, strict=False)
    assert torch.allclose(model(images), expected, rtol=1e-9, atol=1e-10)


def test_a_network_that_cannot_be_traced_is_left_alone() -> None:
    found = find_channels(Untraceable())
    assert found.free == ()
    assert "cannot be traced" in found.left_alone["conv"]
