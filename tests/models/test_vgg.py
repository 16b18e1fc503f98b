"""The two forms of VGG-16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sixfold.models.vgg import vgg16


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("shape", "classes", "arguments", "count"),
    [
        ((3, 32, 32), 10, {}, 14_728_266),
        ((3, 32, 32), 10, {"batch_norm": False}, 14_719_818),
        ((3, 224, 224), 1000, {"batch_norm": True}, 138_365_992),
        ((3, 224, 224), 10, {"form": "cifar", "batch_norm": False}, 14_714_688 + 25_088 * 10 + 10),
    ],
)
def test_forms_have_the_published_sizes(
    shape: tuple[int, int, int], classes: int, arguments: dict[str, bool], count: int
) -> None:
    with torch.device("meta"):
        assert parameters(vgg16(shape, classes, **arguments)) == count  # type: ignore[arg-type]


def test_the_form_follows_from_the_shorter_side() -> None:
    with torch.device("meta"):
        small, large = vgg16((3, 63, 200), 10), vgg16((3, 64, 64), 10)
    assert sum(isinstance(layer, nn.Linear) for layer in small.modules()) == 1
    assert sum(isinstance(layer, nn.Linear) for layer in large.modules()) == 3
    assert sum(isinstance(layer, nn.Dropout) for layer in large.modules()) == 2


@pytest.mark.parametrize("arguments", [{"dropout": 1.0}, {"dropout": -0.1}, {"form": "small"}])
def test_impossible_arguments_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        vgg16((3, 64, 64), 10, **arguments)  # type: ignore[arg-type]
