"""The loops in every order: equal sums, and equal bits where the order of additions is equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from tests.studies.convolution import written_out as literal

from sixfold.studies.convolution import Geometry
from sixfold.studies.convolution.direct import (
    LOOPS,
    complete,
    extents,
    forward,
    input_gradient,
    weight_gradient,
)
from sixfold.studies.convolution.geometry import Array

GEOMETRY = Geometry.of((2, 2, 3, 4), (2, 2, 2, 2), padding=(0, 1), stride=(1, 2))
GROUPED = Geometry.of((2, 4, 3, 3), (4, 2, 2, 3), padding=1, dilation=(2, 1), groups=2)


def products(case: Any, geometry: Geometry, **how: Any) -> tuple[Array, Array, Array]:
    return (
        forward(case.images, case.weights, geometry, **how),
        input_gradient(case.weights, case.gradient, geometry, **how),
        weight_gradient(case.images, case.gradient, geometry, **how),
    )


def compare_all(orders: Iterator[tuple[str, ...]], case: Any, geometry: Geometry) -> None:
    expected = case.outputs, case.image_gradient, case.weight_gradient
    forward_bits: dict[tuple[str, ...], set[bytes]] = {}
    weight_bits: dict[tuple[str, ...], set[bytes]] = {}
    for order in orders:
        results = products(case, geometry, order=order, vectorised=5)
        for actual, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10)
        loops = complete(order)
        reduced = tuple(loop for loop in loops if loop in ("chan_n1", "kern_x", "kern_y"))
        forward_bits.setdefault(reduced, set()).add(results[0].tobytes())
        reduced = tuple(loop for loop in loops if loop in ("batch", "row_n", "col_n"))
        weight_bits.setdefault(reduced, set()).add(results[2].tobytes())
    # One set of bits for each order of the loops that are summed over, whatever the others do.
    assert {len(bits) for bits in forward_bits.values()} == {1}
    assert {len(bits) for bits in weight_bits.values()} == {1}
    assert len(forward_bits) == 6


@pytest.mark.parametrize(
    "geometry",
    [GEOMETRY, pytest.param(GROUPED, marks=pytest.mark.full)],
    ids=["plain", "grouped"],
)
def test_all_720_orders_of_six_loops_are_equal(
    geometry: Geometry, solve: Callable[[Geometry], Any]
) -> None:
    compare_all(permutations(LOOPS[1:]), solve(geometry), geometry)


@pytest.mark.full
def test_all_5040_orders_of_seven_loops_are_equal(solve: Callable[[Geometry], Any]) -> None:
    compare_all(permutations(LOOPS), solve(GROUPED), GROUPED)


def test_different_orders_do_give_different_bits(solve: Callable[[Geometry], Any]) -> None:
    geometry = Geometry.of((2, 5, 6, 6), (3, 5, 3, 3))
    case = solve(geometry)
    bits = {
        forward(case.images, case.weights, geometry, order=order, vectorised=7).tobytes()
        for order in permutations(LOOPS[1:])
    }
    assert len(bits) == 6


@pytest.mark.parametrize("geometry", [GEOMETRY, GROUPED], ids=["plain", "grouped"])
@pytest.mark.parametrize("order", [LOOPS, LOOPS[::-1], LOOPS[3:] + LOOPS[:3]], ids=str)
def test_how_many_loops_are_vectorised_changes_no_bit(
    geometry: Geometry, order: tuple[str, ...], solve: Callable[[Geometry], Any]
) -> None:
    case = solve(geometry)
    expected = products(case, geometry, order=order, vectorised=0)
    for vectorised in range(1, 8):
        results = products(case, geometry, order=order, vectorised=vectorised)
        assert all(map(np.array_equal, results, expected))


@pytest.mark.parametrize("geometry", [GEOMETRY, GROUPED], ids=["plain", "grouped"])
def test_the_usual_order_has_the_bits_of_the_written_loops(
    geometry: Geometry, solve: Callable[[Geometry], Any]
) -> None:
    case = solve(geometry)
    expected = literal.convolution(case.images, case.weights, case.gradient, geometry)
    assert all(map(np.array_equal, products(case, geometry), expected))


def test_the_nest_has_as_many_points_as_its_extents_say() -> None:
    assert list(extents(GROUPED)) == list(LOOPS)
    assert list(extents(GROUPED).values()) == [2, 4, 2, 3, 3, 2, 3]


@pytest.mark.parametrize(
    "order", [(), LOOPS[:5], (*LOOPS, "batch"), ("row", *LOOPS[1:]), (*LOOPS[1:6], "kern_x")]
)
def test_an_order_must_be_a_permutation(order: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must name each of batch, chan_n"):
        forward(np.zeros((2, 2, 3, 4)), np.zeros((2, 2, 2, 2)), GEOMETRY, order=order)


@pytest.mark.parametrize("vectorised", [-1, 8])
def test_the_vectorised_loops_must_be_loops_of_the_nest(vectorised: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 7"):
        forward(np.zeros((2, 2, 3, 4)), np.zeros((2, 2, 2, 2)), GEOMETRY, vectorised=vectorised)
