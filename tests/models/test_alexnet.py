"""AlexNet's groups, response normalisation and sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sixfold.models.alexnet import alexnet
from sixfold.models.shapes import output_shape


def test_without_groups_it_is_the_joined_network() -> None:
    with torch.device("meta"):
        network = alexnet((3, 224, 224), 1000, groups=1)
    assert sum(parameter.numel() for parameter in network.parameters()) == 62_378_344


def test_torchvisions_form_has_its_published_size() -> None:
    with torch.device("meta"):
        network = alexnet((3, 224, 224), 1000, form="torchvision")
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_100_840
    with pytest.raises(ValueError, match="paper or torchvision"):
        alexnet((3, 224, 224), 1000, form="2013")


def test_maps_have_the_papers_sizes() -> None:
    with torch.device("meta"):
        features = alexnet((3, 224, 224), 1000).get_submodule("features")
    assert isinstance(features, nn.Sequential)
    sizes = [output_shape(features[:end], (3, 224, 224)) for end in (1, 4, 8, 16)]
    assert sizes == [(96, 55, 55), (96, 27, 27), (256, 13, 13), (256, 6, 6)]


def test_response_normalisation_is_the_papers() -> None:
    network = alexnet((3, 63, 63), 2)
    norm = next(layer for layer in network.modules() if isinstance(layer, nn.LocalResponseNorm))
    x = torch.rand(1, 7, 1, 1, dtype=torch.float64)
    # b_i = a_i / (2 + 1e-4 * sum over i-2..i+2 of a_j^2) ** 0.75, section 3.3 of the paper
    padded = nn.functional.pad(x.flatten() ** 2, (2, 2))
    sums = torch.stack([padded[i : i + 5].sum() for i in range(7)])
    torch.testing.assert_close(norm(x).flatten(), x.flatten() / (2 + 1e-4 * sums) ** 0.75)


def test_response_normalisation_can_be_left_out() -> None:
    with torch.device("meta"):
        network = alexnet((3, 64, 64), 2, response_norm=False)
    assert not any(isinstance(layer, nn.LocalResponseNorm) for layer in network.modules())


@pytest.mark.parametrize("groups", [0, 3, 64, -1])
def test_impossible_groups_are_refused(groups: int) -> None:
    with pytest.raises(ValueError, match="groups"):
        alexnet((3, 224, 224), 10, groups=groups)
