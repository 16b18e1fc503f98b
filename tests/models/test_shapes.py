"""Sizes between layers, found without computing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sixfold.models.shapes import ShapeMismatchError, flat_features, kind, output_shape, run, times


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.MaxPool2d(2))


def test_sizes_are_those_of_a_real_run() -> None:
    assert output_shape(layers(), (3, 11, 20)) == layers()(torch.zeros(1, 3, 11, 20)).shape[1:]
    assert flat_features(layers(), (3, 11, 20)) == 4 * 4 * 9


def test_layers_are_left_as_they_were() -> None:
    network = layers()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    output_shape(network, (3, 8, 8))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(layer.training for layer in network.modules())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


def test_names_start_with_the_path_that_the_caller_gives() -> None:
    with pytest.raises(
        ShapeMismatchError, match=r"layer 'features\.0' \(Conv2d 3->4, kernel 3x3\)"
    ):
        output_shape(layers(), (3, 2, 2), name="features")
    with pytest.raises(ShapeMismatchError, match=r"layer 'conv' \(Conv2d"):
        output_shape(nn.Conv2d(3, 4, 3), (3, 2, 2), name="conv")
    with pytest.raises(ShapeMismatchError, match=r"^Conv2d 3->4, kernel 3x3 would get"):
        run(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 2, 2))


def test_hooks_are_removed_after_a_failure() -> None:
    network = layers()
    with pytest.raises(ShapeMismatchError):
        run(network, torch.zeros(1, 3, 2, 2))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.MaxPool2d((3, 2)), "MaxPool2d 3x2"),
        (nn.AvgPool2d(3), "AvgPool2d 3x3"),
        (nn.BatchNorm2d(7), "BatchNorm2d 7"),
        (nn.ReLU(), "ReLU"),
    ],
)
def test_kinds_of_layers_have_their_numbers(layer: nn.Module, text: str) -> None:
    assert kind(layer) == text


def test_sizes_read_as_people_write_them() -> None:
    assert times((3, 4)) == "3x4"
