"""MobileNetV2 at every width and on every size of image."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.marks import some
from torch import nn

from sixfold.models.mobilenet import mobilenet_v2, round_maps
from sixfold.models.shapes import output_shape


def maps(side: int, total_stride: int | None = None) -> tuple[int, ...]:
    with torch.device("meta"):
        network = mobilenet_v2((3, side, side), 10, total_stride=total_stride)
    return output_shape(nn.Sequential(*list(network)[:-1]), (3, side, side))


@pytest.mark.parametrize(
    ("width", "millions"), [(0.35, 1.68), (0.5, 1.97), (0.75, 2.64), (1.0, 3.50), (1.4, 6.11)]
)
def test_widths_have_the_published_sizes(width: float, millions: float) -> None:
    with torch.device("meta"):
        network = mobilenet_v2((3, 224, 224), 1000, width=width)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize(
    ("side", "total_stride", "rows"),
    some(
        [
            (32, None, 4),
            (63, None, 8),
            (64, None, 2),
            (64, 16, 4),
            (64, 8, 8),
            (32, 32, 1),
            (224, None, 7),
        ],
        3,
        rows=True,
    ),
)
def test_strides_follow_from_the_side(side: int, total_stride: int | None, rows: int) -> None:
    assert maps(side, total_stride) == (1280, rows, rows)


@given(st.floats(0.01, 5000))
def test_rounding_gives_multiples_of_8_never_a_tenth_below(count: float) -> None:
    rounded = round_maps(count)
    assert rounded % 8 == 0
    assert 0.9 * count <= rounded <= max(8, count + 8)


@pytest.mark.parametrize(
    "arguments", [{"width": 0.0}, {"width": math.nan}, {"width": math.inf}, {"total_stride": 4}]
)
def test_impossible_arguments_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        mobilenet_v2((3, 32, 32), 10, **arguments)  # type: ignore[arg-type]


def test_a_block_adds_its_input_only_if_the_shape_is_kept() -> None:
    network = mobilenet_v2((3, 32, 32), 10)
    adds = [
        block.adds_input
        for name, stage in network.named_children()
        if name.startswith("stage")
        for block in stage.children()
    ]
    assert adds == [count > 0 for stage in (1, 2, 3, 4, 3, 3, 1) for count in range(stage)]
