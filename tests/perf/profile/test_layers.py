"""Costs by arithmetic: against numbers worked out by hand, torch's own counter, and autograd."""

from typing import Any

import pytest
import torch
from tests.marks import some
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sixfold.core.errors import UserError
from sixfold.models import zoo
from sixfold.models.building import build
from sixfold.models.config import ModelConfig
from sixfold.models.graph.operations import PRODUCT, operation_named, plain_name
from sixfold.models.meta_initialization import build_on_meta
from sixfold.models.shapes import Shape
from sixfold.perf.profile.layers import LayerCost, layer_costs, total
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool
from sixfold.training.native.max_pool import is_built

SHAPES: dict[str, Shape] = {"lenet300": (1, 28, 28), "lenet5": (1, 28, 28), "cells": (1, 256, 256)}
IMAGENET: dict[str, Shape] = {"resnet50": (3, 64, 64), "alexnet": (3, 64, 64)}


def shape_of(name: str) -> Shape:
    return {**SHAPES, **IMAGENET}.get(name, (3, 32, 32))


def by_name(costs: tuple[LayerCost, ...]) -> dict[str, LayerCost]:
    return {cost.name: cost for cost in costs}


class Viewing(nn.Module):
    """A forward that can do with images laid out N C H W only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        logits: Tensor = self.head(x.view(x.size(0), -1))
        return logits


def test_a_forward_that_views_maps_as_rows_is_counted() -> None:
    costs = by_name(layer_costs(Viewing(), (3, 8, 8), 2))
    assert costs["conv"].forward_flops == 2 * 2 * 4 * 36 * 27


def test_the_slide_network_by_hand() -> None:
    network = build(ModelConfig(model="slide"), shape=(3, 32, 32), classes=10, seed=0)
    costs = by_name(layer_costs(network, (3, 32, 32), 2))
    conv = costs["features.0"]
    products = 2 * 2 * 32 * 32 * 32 * 3 * 5 * 5  # 2 N K H' W' C R S
    images, maps, weights = 2 * 3 * 32 * 32 * 4, 2 * 32 * 32 * 32 * 4, (32 * 75 + 32) * 4
    assert conv.forward_flops == products
    assert conv.backward_flops == products  # the images' gradient is not wanted
    assert conv.forward_bytes == images + weights + maps
    assert conv.backward_bytes == maps + images + weights  # dy, x; dw
    assert (conv.parameters, conv.kept_bytes) == (32 * 75 + 32, images)
    relu, pool = costs["features.1"], costs["features.2"]
    assert (relu.forward_flops, relu.backward_flops) == (2 * 32 * 32 * 32, 2 * 32 * 32 * 32)
    assert relu.kept_bytes == maps  # its output, which the pool keeps as well
    assert pool.forward_flops == 2 * 32 * 16 * 16 * 4
    assert pool.kept_bytes == 2 * 32 * 16 * 16 * 8  # places of maxima, int64
    linear = costs["classifier.1"]
    assert linear.forward_flops == 2 * 2 * 8192 * 10
    assert linear.backward_flops == 2 * linear.forward_flops
    assert linear.backward_bytes == 2 * 10 * 4 + 2 * (2 * 8192 * 4) + 81930 * 4 + 81930 * 4
    assert total(tuple(costs.values()), "parameters") == 84_362


@pytest.mark.skipif(not is_built(), reason="the C module is not built")
def test_our_own_pool_keeps_one_byte_an_output() -> None:
    network = build(ModelConfig(model="slide"), shape=(3, 32, 32), classes=10, seed=0)
    costs = by_name(layer_costs(fused_max_pool(relu_behind_max_pool(network)), (3, 32, 32), 2))
    pool = costs["features.1"]
    given, made = 2 * 32 * 32 * 32 * 4, 2 * 32 * 16 * 16 * 4
    assert pool.kept_bytes == 2 * 32 * 16 * 16
    assert pool.forward_bytes == given + made + made // 4
    assert pool.backward_bytes == made + made // 4 + given


@pytest.mark.parametrize("name", some(zoo.ZOO, 3))
def test_products_are_those_that_torch_counts(name: str) -> None:
    shape = shape_of(name)
    network = build_on_meta(ModelConfig(model=name), shape=shape, classes=10, seed=0).network
    costs = layer_costs(network, shape, 2)
    assert not [cost.unknown for cost in costs if cost.unknown]
    with FlopCounterMode(display=False) as counter:
        logits = network(torch.empty(2, *shape, device="meta"))
        forward = counter.get_total_flops()
        logits.sum().backward()
    products = [f for cost in costs for f in cost.functions if _is_product(f.name)]
    assert sum(f.forward_flops for f in products) == forward
    if all(getattr(module, "groups", 1) == 1 for module in network.modules()):
        assert sum(f.backward_flops for f in products) == counter.get_total_flops() - forward
    else:  # torch's counter forgets the groups when it goes backward
        first = products[0].forward_flops
        assert sum(f.backward_flops for f in products) == 2 * forward - first
    assert total(costs, "parameters") == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "conv2"])
def test_what_is_kept_is_what_autograd_keeps(name: str) -> None:
    shape = (3, 32, 32)
    network = build(ModelConfig(model=name), shape=shape, classes=10, seed=0)
    kept: dict[int, Tensor] = {}
    own = {t.untyped_storage().data_ptr() for t in [*network.parameters(), *network.buffers()]}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    images = torch.zeros(2, *shape).contiguous(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network.train()(images)
        nn.functional.cross_entropy(logits, torch.zeros(2, dtype=torch.int64), reduction="sum")
    expected = sum(t.numel() * t.element_size() for s, t in kept.items() if s not in own)
    found = total(layer_costs(network, shape, 2), "kept_bytes")
    # The real run keeps a few scratch tensors of no size that the meta device does not know.
    assert found == pytest.approx(expected, rel=0.01)


class Branches(nn.Module):
    """Everything that a plain sequence is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.twice(self.twice(y) * self.scale) + y
        z = torch.cat([z, torch.cumsum(z, 1)], 1)
        logits: Tensor = self.head(nn.functional.gelu(z).mean((2, 3)))
        return logits


def test_a_users_own_network() -> None:
    costs = by_name(layer_costs(Branches(), (3, 8, 8), 2))
    assert list(costs) == [
        *("conv", "twice", "mul", "twice#2", "add", "cumsum", "cat", "gelu", "mean", "head"),
        "loss",
    ]
    maps = 2 * 4 * 8 * 8
    assert costs["twice#2"].parameters == 0  # counted where it was called first
    assert costs["twice"].backward_flops == 2 * 2 * maps * 4
    # y is taken by `twice` and by the addition: its gradients are added once.
    assert (costs["add"].forward_flops, costs["add"].backward_flops) == (maps, maps)
    assert costs["add"].backward_bytes == 3 * maps * 4
    assert [f.name for f in costs["add"].functions] == ["add", "sum_of_gradients"]
    assert costs["cumsum"].unknown == ("cumsum",)
    assert [name for name, cost in costs.items() if cost.unknown] == ["cumsum"]


def test_products_within_an_unknown_function_are_counted() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            found: Tensor = self.attend(tokens, tokens, tokens)[0]
            logits: Tensor = self.head(found.mean(1))
            return logits

    cost = by_name(layer_costs(Attention(), (4, 6, 6), 2))["attend"]
    assert cost.unknown
    projections = 4 * 2 * (2 * 36) * 4 * 4
    assert cost.forward_flops >= projections


def test_frozen_weights_and_their_gradients_cost_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    network[0].requires_grad_(False)
    costs = by_name(layer_costs(network, (3, 8, 8), 2))
    assert (costs["0"].backward_flops, costs["0"].parameters) == (0, 0)
    assert costs["1"].backward_flops == 0
    assert costs["3"].backward_flops == costs["3"].forward_flops  # only its weights' gradient


def test_grouped_and_transposed_convolutions() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=4), nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
    )
    costs = layer_costs(network, (4, 6, 6), 3, loss=False)
    assert costs[0].forward_flops == 2 * 3 * 8 * 4 * 4 * 1 * 9
    assert costs[1].forward_flops == 2 * 3 * (8 * 4 * 4) * 3 * 4
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(3, 4, 6, 6))
    assert total(costs, "forward_flops") == counter.get_total_flops()


def test_a_network_that_decides_by_values_is_run_on_the_cpu() -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            logits: Tensor = self.head(x if float(x.sum()) > 1 else x + 1)
            return logits

    assert by_name(layer_costs(Decides(), (3, 2, 2), 2))["head"].forward_flops == 2 * 2 * 12 * 10


def test_the_network_is_left_as_it_was() -> None:
    network = build(ModelConfig(model="resnet20"), shape=(3, 32, 32), classes=10, seed=0).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.random.get_rng_state()
    layer_costs(network, (3, 32, 32), 2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be run on 2 images of 3x8x8"):
        layer_costs(nn.Sequential(nn.Conv2d(1, 4, 3)), (3, 8, 8), 2)


def test_names_of_functions() -> None:
    functions: list[Any] = [
        Tensor.__iadd__,
        Tensor.relu_,
        Tensor.__rsub__,
        Tensor.__matmul__,
        torch.rsqrt,
    ]
    assert [plain_name(f) for f in functions] == ["add", "relu", "sub", "matmul", "rsqrt"]


def _is_product(name: str) -> bool:
    row = operation_named(name)
    return row is not None and row.traffic == PRODUCT
