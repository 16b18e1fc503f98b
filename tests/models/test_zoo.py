"""What every network of the zoo must be able to do."""

from __future__ import annotations

import pytest
import torch
from tests.marks import some
from torch import fx, nn

from sixfold.core.errors import UserError
from sixfold.models import build, check, config, names
from sixfold.models.config import ModelConfig
from sixfold.models.zoo import ZOO

Shape = tuple[int, int, int]

# name, image, classes, parameters. The last as published: the slide network's and LeNet-5's by the
# pruning literature, ResNet-20 in K. He's family by depth (0.27M), ResNet-50, VGG-16 and
# MobileNetV2 as everyone's model zoo lists them, AlexNet as Caffe's 60,965,224; Conv-N and cells
# by hand.
COUNTS = [
    ("slide", (3, 32, 32), 10, 84_362),
    ("lenet300", (1, 28, 28), 10, 266_610),
    ("lenet5", (1, 28, 28), 10, 431_080),
    ("cells", (1, 256, 256), 3, 3_904 + 73_792 + 73_856 + 3 * 3200 + 3),
    ("conv2", (3, 32, 32), 10, 38_720 + 64 * 16 * 16 * 256 + 256 + 65_792 + 2_570),
    ("conv4", (3, 32, 32), 10, 260_160 + 128 * 8 * 8 * 256 + 256 + 65_792 + 2_570),
    ("conv6", (3, 32, 32), 10, 1_145_408 + 256 * 4 * 4 * 256 + 256 + 65_792 + 2_570),
    ("resnet20", (3, 32, 32), 10, 269_722),
    ("resnet18", (3, 224, 224), 1000, 11_689_512),
    ("resnet50", (3, 224, 224), 1000, 25_557_032),
    ("vgg16", (3, 224, 224), 1000, 138_357_544),
    ("alexnet", (3, 224, 224), 1000, 60_965_224),
    ("mobilenet_v2", (3, 224, 224), 1000, 3_504_872),
]
SMALLEST = {
    "slide": 2,
    "lenet300": 1,
    "lenet5": 16,
    "cells": 64,
    "conv2": 2,
    "conv4": 4,
    "conv6": 8,
    "resnet20": 1,
    "resnet18": 1,
    "resnet50": 1,
    "vgg16": 32,
    "alexnet": 63,
    "mobilenet_v2": 1,
}


def make(name: str, side: int, *, classes: int = 5) -> nn.Module:
    return build(ModelConfig(model=name), shape=(3, side, side), classes=classes, seed=0)


@pytest.mark.parametrize(("name", "shape", "classes", "parameters"), COUNTS)
def test_counts_of_parameters_are_the_literatures(
    name: str, shape: Shape, classes: int, parameters: int
) -> None:
    with torch.device("meta"):
        network = ZOO[name](shape, classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_the_counts_cover_the_zoo() -> None:
    assert [name for name, *_ in COUNTS] == list(ZOO) == list(SMALLEST) == list(names())


@pytest.mark.parametrize("name", ZOO)
def test_every_network_has_a_line_of_help(name: str) -> None:
    line = names()[name]
    assert line.endswith(".")
    assert len(line) < 100


@pytest.mark.parametrize(("name", "side"), some(SMALLEST.items(), 3, rows=True))
def test_every_size_from_the_smallest_on_is_taken(name: str, side: int) -> None:
    for larger in (side, side + 1, 97):
        square = (2, max(side, larger), max(side, larger))
        assert check(ModelConfig(model=name), shape=square, classes=4) == []


@pytest.mark.parametrize(("name", "side"), SMALLEST.items())
def test_below_the_smallest_size_the_remedy_is_named(name: str, side: int) -> None:
    if side == 1:
        return
    (problem,) = check(ModelConfig(model=name), shape=(1, side - 1, side - 1), classes=4)
    assert problem.startswith(
        f"{name} cannot take 1x{side - 1}x{side - 1} images: layer 'features."
    )
    assert f"at least {side}x{side} are needed: use --resize {config.ZOO[name][1]}" in problem


@pytest.mark.parametrize("name", some(ZOO, 3))
def test_uneven_images_are_taken(name: str) -> None:
    assert check(ModelConfig(model=name), shape=(4, 70, 101), classes=2) == []


@pytest.mark.parametrize(("name", "side"), SMALLEST.items())
def test_one_image_in_evaluation_gives_what_it_gives_in_a_batch(name: str, side: int) -> None:
    network = make(name, side).eval().double()
    images = torch.rand(3, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        batch, alone = network(images), network(images[1:2])
    assert alone.shape == (1, 5)
    torch.testing.assert_close(alone, batch[1:2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "side"), SMALLEST.items())
def test_networks_can_be_traced_symbolically(name: str, side: int) -> None:
    network = make(name, side).eval()
    traced = fx.symbolic_trace(network)
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(traced(images), network(images))


@pytest.mark.parametrize(("name", "side"), SMALLEST.items())
def test_every_parameter_gets_a_gradient(name: str, side: int) -> None:
    network = make(name, max(side, 8))
    images, labels = torch.randn(4, 3, max(side, 8), max(side, 8)), torch.tensor([0, 1, 2, 3])
    torch.autograd.backward(nn.functional.cross_entropy(network(images), labels))
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.abs().sum() > 0, path


@pytest.mark.parametrize("name", ZOO)
def test_layers_are_modules_that_do_not_overwrite_their_input(name: str) -> None:
    with torch.device("meta"):
        network = ZOO[name]((3, 64, 64), 10)
    assert not any(getattr(layer, "inplace", False) for layer in network.modules())
    graph = fx.symbolic_trace(network).graph
    functions = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert functions <= {"<built-in function add>"}
    assert not [node for node in graph.nodes if node.op == "call_method"]


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
def test_the_slide_network_takes_any_kernel(kernel: int) -> None:
    network = build(
        ModelConfig(model="slide", model_args=f"kernel={kernel},maps=8"),
        shape=(3, 12, 10),
        classes=4,
        seed=0,
    )
    assert network(torch.zeros(2, 3, 12, 10)).shape == (2, 4)
    assert network.features[0].weight.shape == (8, 3, kernel, kernel)  # type: ignore[union-attr,index]


@pytest.mark.parametrize("name", ["slide", "cells"])
def test_initial_weights_follow_the_rule_asked_for(name: str) -> None:
    def made(init: str) -> nn.Module:
        side = 32 if name == "slide" else 128
        config = ModelConfig(model=name, model_args=f"init={init}" if init else "")
        return build(config, shape=(3, side, side), classes=10, seed=3)

    def spread(network: nn.Module) -> list[float]:
        return [float(p.detach().std()) for p in network.parameters() if p.dim() > 1]

    plain = made("")
    for a, b in zip(plain.parameters(), made("torch").parameters(), strict=True):
        assert torch.equal(a, b)
    for layer in made("small").modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
            assert layer.bias is not None
            assert not layer.bias.any()
    fans = [float(p[0].numel()) for p in plain.parameters() if p.dim() > 1]
    gains = [2.0] * (len(fans) - 1) + [1.0]
    for found, fan, gain in zip(spread(made("he")), fans, gains, strict=True):
        assert found == pytest.approx((gain / fan) ** 0.5, rel=0.1)
    for found, fan in zip(spread(made("caffe")), fans, strict=True):
        assert found == pytest.approx((1 / fan) ** 0.5, rel=0.1)
    with pytest.raises(UserError, match=r"did you mean glorot\?"):
        made("glorrot")
