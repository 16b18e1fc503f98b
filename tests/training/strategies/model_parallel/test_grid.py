"""Grids: how ranks are numbered, and what is said of a wrong one."""

import pytest

from sixfold.training.strategies.model_parallel.grid import Grid, Mesh, parse_grid


def test_places_along_axes_number_the_ranks() -> None:
    mesh = Mesh(rows=2, cols=3, cout=2, cin=2)
    places = [mesh.place(rank, ("rows", "cols", "cout", "cin")) for rank in range(mesh.size)]
    assert places == list(range(24))


def test_a_group_differs_along_its_axes_only() -> None:
    mesh = Mesh(rows=2, cols=2, cin=2)
    for rank in range(mesh.size):
        group = mesh.group(rank, ("rows", "cin"))
        assert rank in group
        assert len(group) == 4
        assert {mesh.coordinates(other)["cols"] for other in group} == {
            mesh.coordinates(rank)["cols"]
        }


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("", Grid()),
        ("batch=3", Grid(batch=3)),
        (" rows=2 , cout=4 ", Grid(mesh=Mesh(rows=2, cout=4))),
        ("batch=2,rows=2,cols=1,cout=1,cin=1", Grid(batch=2, mesh=Mesh(rows=2))),
    ],
)
def test_grids_are_read(text: str, grid: Grid) -> None:
    assert parse_grid(text) == (grid, [])
    assert parse_grid(str(grid)) == (grid, [])


def test_everything_that_is_wrong_is_told() -> None:
    grid, problems = parse_grid("rows=2,rows=3,depth=2,cols=0,cin")
    assert grid is None
    assert len(problems) == 4
