"""Steps and footprints, counted by walking the nest."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.studies.convolution import Geometry
from sixfold.studies.convolution.direct import LOOPS, extents
from sixfold.studies.convolution.locality import ARRAYS, footprint, steps

PLAIN = Geometry.of((2, 2, 5, 4), (3, 2, 2, 3), padding=1, stride=(2, 1), dilation=(1, 2))
GROUPED = Geometry.of((2, 4, 5, 4), (4, 2, 2, 2), stride=2, groups=2)


def touched(at: dict[str, int], geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """The elements that one point of the nest touches."""
    maps, group_channels, _, _ = geometry.weight_shape
    n, k, c, p, q, r, s = (at[loop] for loop in LOOPS)
    channel = k // (maps // geometry.groups) * group_channels + c
    i = p * geometry.stride[0] + r * geometry.dilation[0]
    j = q * geometry.stride[1] + s * geometry.dilation[1]
    return {"images": (n, channel, i, j), "weights": (k, c, r, s), "outputs": (n, k, p, q)}


def place(index: tuple[int, ...], sizes: tuple[int, ...]) -> int:
    flat = 0
    for position, size in zip(index, sizes, strict=True):
        flat = flat * size + position
    return flat


@given(st.permutations(LOOPS), st.integers(0, 7), st.sampled_from([PLAIN, GROUPED]))
def test_footprints_are_the_elements_that_the_inner_loops_touch(
    order: list[str], depth: int, geometry: Geometry
) -> None:
    inner = order[7 - depth :]
    seen: dict[str, set[tuple[int, ...]]] = {name: set() for name in ARRAYS}
    for point in product(*(range(extents(geometry)[loop]) for loop in inner)):
        at = dict.fromkeys(LOOPS, 0) | dict(zip(inner, point, strict=True))
        for name, element in touched(at, geometry).items():
            seen[name].add(element)
    assert footprint(order, depth, geometry) == {name: len(each) for name, each in seen.items()}


@pytest.mark.parametrize("loop", LOOPS)
def test_steps_are_how_far_the_index_moves(loop: str) -> None:
    sizes = {
        "images": (2, 2, *PLAIN.padded),
        "weights": PLAIN.weight_shape,
        "outputs": PLAIN.output_shape,
    }
    start = dict.fromkeys(LOOPS, 0)
    before, after = touched(start, PLAIN), touched(start | {loop: 1}, PLAIN)
    assert steps(PLAIN)[loop] == {
        name: place(after[name], sizes[name]) - place(before[name], sizes[name]) for name in ARRAYS
    }
