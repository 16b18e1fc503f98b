"""Residual networks of every depth, and their two kinds of shortcut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sixfold.models.resnet import resnet18, resnet20, resnet50
from sixfold.models.shapes import output_shape


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("depth", "count"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_depths_have_the_papers_sizes(depth: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(resnet20((3, 32, 32), 10, depth=depth)) == count


def test_option_b_adds_two_projections() -> None:
    with torch.device("meta"):
        count = parameters(resnet20((3, 32, 32), 10, shortcut="B"))
    assert count == 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


def test_option_a_takes_every_second_pixel_and_adds_zero_channels() -> None:
    network = resnet20((3, 32, 32), 10)
    block = network.get_submodule("stage2.0.shortcut")
    x = torch.randn(2, 16, 9, 9)
    expected = torch.zeros(2, 32, 5, 5)
    expected[:, 8:24] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize(("depth", "count"), [(101, 44_549_160), (152, 60_192_808)])
def test_deeper_bottleneck_networks_have_the_published_sizes(depth: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(resnet50((3, 224, 224), 1000, depth=depth)) == count


@pytest.mark.parametrize(
    ("stem", "side", "maps"),
    [("auto", 63, 8), ("auto", 64, 2), ("small", 64, 8), ("imagenet", 32, 1)],
)
def test_the_stem_follows_from_the_side(stem: str, side: int, maps: int) -> None:
    with torch.device("meta"):
        network = resnet50((3, side, side), 10, stem=stem)
    body = nn.Sequential(*list(network)[:-1])
    assert output_shape(body, (3, side, side)) == (2048, maps, maps)


@pytest.mark.parametrize("arguments", [{"depth": 21}, {"depth": 2}, {"shortcut": "C"}])
def test_impossible_arguments_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        resnet20((3, 32, 32), 10, **arguments)  # type: ignore[arg-type]


def test_resnet34_has_the_published_size() -> None:
    with torch.device("meta"):
        assert parameters(resnet18((3, 224, 224), 1000, depth=34)) == 21_797_672
    with pytest.raises(ValueError, match="18 or 34"):
        resnet18((3, 32, 32), 10, depth=50)


def test_impossible_arguments_of_resnet50_are_refused() -> None:
    with pytest.raises(ValueError, match="50, 101 or 152"):
        resnet50((3, 32, 32), 10, depth=18)
    with pytest.raises(ValueError, match="auto, small or imagenet"):
        resnet50((3, 32, 32), 10, stem="7x7")
