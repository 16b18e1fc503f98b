"""Depthwise-separable convolution against PyTorch, and its count of operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from sixfold.studies.convolution import Geometry, direct
from sixfold.studies.convolution.depthwise import forward, gradients, multiply_adds

SIDES = st.integers(1, 3)


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


@given(
    channels=st.integers(1, 4),
    maps=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(SIDES, SIDES),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(SIDES, SIDES),
)
def test_both_steps_equal_pytorchs(
    channels: int,
    maps: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    how: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": channels,
    }
    geometry = Geometry.of((2, channels, 11, 10), (channels, 1, *kernel), **how)
    random = np.random.default_rng(0)
    x = random.standard_normal(geometry.image_shape)
    d = random.standard_normal(geometry.weight_shape)
    m = random.standard_normal((maps, channels))
    y, between = forward(x, d, m, geometry)
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, d, m)]
    first = functional.conv2d(tensors[0], tensors[1], **how)
    second = functional.conv2d(first, tensors[2][:, :, None, None])
    close(between, first.detach().numpy())
    close(y, second.detach().numpy())
    dy = random.standard_normal(y.shape)
    expected = torch.autograd.grad(second, tensors, torch.tensor(dy))
    for actual, wanted in zip(gradients(x, d, m, between, dy, geometry), expected, strict=True):
        close(actual, wanted.numpy())


def test_it_is_a_grouped_and_a_1x1_direct_convolution(solve: Callable[[Geometry], Any]) -> None:
    geometry = Geometry.of((2, 3, 6, 5), (3, 1, 3, 2), stride=2, padding=1, groups=3)
    case = solve(geometry)
    m = np.random.default_rng(0).standard_normal((4, 3))
    first = direct.forward(case.images, case.weights, geometry)
    mixing = Geometry.of(first.shape, (4, 3, 1, 1))
    expected = direct.forward(first, m[:, :, None, None], mixing)
    close(forward(case.images, case.weights, m, geometry)[0], expected)


def test_the_saving_is_the_papers() -> None:
    geometry = Geometry.of((2, 32, 14, 14), (32, 1, 3, 3), padding=1, groups=32)
    separable, full = multiply_adds(geometry, 64)
    assert separable == 2 * 14 * 14 * 32 * (9 + 64)
    assert separable / full == pytest.approx(1 / 64 + 1 / 9)


def test_other_geometries_are_refused() -> None:
    x, d = np.zeros((1, 4, 5, 5)), np.zeros((4, 2, 3, 3))
    with pytest.raises(ValueError, match="as many groups and maps as channels, not 2 groups"):
        forward(x, d, np.zeros((3, 4)), Geometry.of(x.shape, d.shape, groups=2))
    geometry = Geometry.of(x.shape, (4, 1, 3, 3), groups=4)
    with pytest.raises(ValueError, match=r"pointwise weights are \(3, 5\), not \(K, 4\)"):
        forward(x, np.zeros((4, 1, 3, 3)), np.zeros((3, 5)), geometry)
