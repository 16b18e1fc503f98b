"""Every way to convolve gives what PyTorch gives, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.studies.convolution import written_out as literal

from sixfold.studies.convolution import Geometry, banded, direct, im2col
from sixfold.studies.convolution.geometry import Array

WAYS = {"direct": direct, "im2col": im2col, "banded": banded}
CASES = [
    Geometry.of((2, 3, 7, 6), (4, 3, 3, 3)),
    Geometry.of((1, 1, 1, 1), (1, 1, 1, 1)),
    Geometry.of((2, 4, 9, 5), (6, 2, 3, 2), stride=2, padding=1, groups=2),
    Geometry.of((3, 3, 8, 11), (3, 1, 4, 2), stride=(1, 3), padding=(2, 0), groups=3),
    Geometry.of((1, 2, 12, 9), (2, 2, 2, 3), dilation=(3, 2), padding=(0, 4)),
    Geometry.of((2, 2, 5, 7), (3, 2, 2, 2), stride=(3, 2), dilation=2, padding=3),
    Geometry.of((2, 1, 6, 6), (2, 1, 6, 6)),  # a linear layer
    Geometry.of((1, 2, 4, 4), (2, 2, 2, 2), stride=5),  # pixels that no kernel sees
]


def close(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    kernel, padding, dilation = pair(1, 4), pair(0, 3), pair(1, 3)
    groups = draw(st.integers(1, 3))
    least = [
        max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, padding, strict=True)
    ]
    return Geometry(
        batch=draw(st.integers(1, 3)),
        channels=groups * draw(st.integers(1, 2)),
        size=(draw(st.integers(least[0], 12)), draw(st.integers(least[1], 12))),
        maps=groups * draw(st.integers(1, 2)),
        kernel=kernel,
        stride=pair(1, 4),
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def compare(way: Any, geometry: Geometry, solve: Callable[[Geometry], Any], **more: int) -> None:
    case = solve(geometry)
    x, w, dy = case.images, case.weights, case.gradient
    close(way.forward(x, w, geometry, **more), case.outputs)
    close(way.input_gradient(w, dy, geometry, **more), case.image_gradient)
    close(way.weight_gradient(x, dy, geometry, **more), case.weight_gradient)


@pytest.mark.parametrize("geometry", CASES, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_products_equal_pytorchs(
    way: str, geometry: Geometry, solve: Callable[[Geometry], Any]
) -> None:
    compare(WAYS[way], geometry, solve)


@pytest.mark.parametrize("way", WAYS)
@given(geometry=geometries())
def test_products_of_any_geometry_equal_pytorchs(
    way: str, geometry: Geometry, solve: Callable[[Geometry], Any]
) -> None:
    more = {"vectorised": 7} if way == "direct" else {}
    compare(WAYS[way], geometry, solve, **more)


@pytest.mark.parametrize("geometry", CASES[1:6], ids=str)
def test_the_seven_written_loops_equal_pytorchs(
    geometry: Geometry, solve: Callable[[Geometry], Any]
) -> None:
    case = solve(geometry)
    y, dx, dw = literal.convolution(case.images, case.weights, case.gradient, geometry)
    close(y, case.outputs)
    close(dx, case.image_gradient)
    close(dw, case.weight_gradient)


@pytest.mark.parametrize("way", WAYS)
def test_products_are_adjoint_to_each_other(way: str, solve: Callable[[Geometry], Any]) -> None:
    geometry = CASES[5]
    case = solve(geometry)
    x, w, dy = case.images, case.weights, case.gradient
    product: Any = WAYS[way]
    scalar = np.vdot(product.forward(x, w, geometry), dy)
    assert np.vdot(x, product.input_gradient(w, dy, geometry)) == pytest.approx(scalar, rel=1e-12)
    assert np.vdot(w, product.weight_gradient(x, dy, geometry)) == pytest.approx(scalar, rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_equal_differences(way: str, solve: Callable[[Geometry], Any]) -> None:
    """The forward product is linear in each operand, so a difference of any size is exact."""
    geometry = CASES[2]
    case = solve(geometry)
    x, w, dy = case.images, case.weights, case.gradient
    product: Any = WAYS[way]
    dx, dw = product.input_gradient(w, dy, geometry), product.weight_gradient(x, dy, geometry)
    base = np.vdot(product.forward(x, w, geometry), dy)
    random = np.random.default_rng(0)
    for operand, gradient in ((x, dx), (w, dw)):
        for flat in random.choice(operand.size, 12, replace=False):
            at = np.unravel_index(flat, operand.shape)
            moved = operand.copy()
            moved[at] += 1.0
            operands = (moved, w) if operand is x else (x, moved)
            change = np.vdot(product.forward(*operands, geometry), dy) - base
            assert change == pytest.approx(gradient[at], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_float32_stays_float32(way: str, solve: Callable[[Geometry], Any]) -> None:
    case = solve(CASES[0])
    x, w, dy = (a.astype(np.float32) for a in (case.images, case.weights, case.gradient))
    product: Any = WAYS[way]
    y = product.forward(x, w, CASES[0])
    results = y, product.input_gradient(w, dy, CASES[0]), product.weight_gradient(x, dy, CASES[0])
    assert {result.dtype for result in results} == {np.dtype(np.float32)}
    np.testing.assert_allclose(y, case.outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_operands_of_other_shapes_are_refused(way: str, solve: Callable[[Geometry], Any]) -> None:
    case = solve(CASES[0])
    product: Any = WAYS[way]
    with pytest.raises(ValueError, match="weights are"):
        product.forward(case.images, case.weights[1:], CASES[0])
    with pytest.raises(ValueError, match="outputs are"):
        product.weight_gradient(case.images, case.weights, CASES[0])
