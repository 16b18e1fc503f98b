"""Layouts: every element has an owner, and exactly one among copies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import (
    Layout,
    Split,
    even,
    everywhere,
    maps,
    vector,
    whole,
)

MESHES = st.builds(
    Mesh,
    rows=st.integers(1, 3),
    cols=st.integers(1, 2),
    cout=st.integers(1, 3),
    cin=st.integers(1, 2),
)


@given(mesh=MESHES, length=st.integers(0, 9))
def test_an_even_split_has_intervals_of_about_one_length(mesh: Mesh, length: int) -> None:
    split = even(length, mesh, ("rows", "cout"))
    lengths = [b - a for a, b in zip(split.cuts, split.cuts[1:], strict=False)]
    assert sum(lengths) == length
    assert max(lengths) - min(lengths) <= 1


@given(
    mesh=MESHES,
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    kind=st.sampled_from([maps, lambda mesh, shape: vector(mesh, shape[0]), everywhere]),
)
def test_the_ranks_at_one_place_among_copies_hold_everything_once(
    mesh: Mesh, shape: tuple[int, int, int], kind: object
) -> None:
    layout: Layout = kind(mesh, shape)  # type: ignore[operator]
    copied = tuple(sorted(layout.copied))
    held: dict[tuple[int, ...], int] = {}
    for rank, ((a, b), (c, d), (e, f)) in enumerate(layout.boxes()):
        if mesh.place(rank, copied) == 0:
            for cell in ((x, y, z) for x in range(a, b) for y in range(c, d) for z in range(e, f)):
                held[cell] = held.get(cell, 0) + 1
    assert set(held.values()) <= {1}
    sizes = layout.shape
    assert len(held) == sizes[0] * sizes[1] * sizes[2]


def test_an_axis_divides_one_dim_only() -> None:
    mesh = Mesh(rows=2)
    half = even(4, mesh, ("rows",))
    with pytest.raises(ValueError, match="one dim only"):
        Layout(mesh, (half, half))
    with pytest.raises(ValueError, match="does not fit"):
        Layout(mesh, (Split((0, 4), ("rows",)), whole(1)))
