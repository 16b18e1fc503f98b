"""The grid of ranks: how many divide the batch, the rows, the columns and the channels.

Ranks that share a batch coordinate form a *model-parallel group*: together they hold one copy of
the network. A group's axes are its `Mesh`. Ranks are numbered with the batch slowest, then rows,
columns, output channels and input channels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

Coordinates = dict[str, int]
"""Mesh axis -> place along it."""


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """The axes of a group, each with its number of ranks.

    Attributes:
        rows: ranks that divide the rows of maps.
        cols: ranks that divide the columns of maps.
        cout: ranks that divide the output channels of a convolution.
        cin: ranks that divide the input channels of a convolution, hence its sum.

    >>> mesh = Mesh(rows=2, cin=2)
    >>> mesh.size, mesh.axes, mesh.coordinates(2)
    (4, ('rows', 'cin'), {'rows': 1, 'cols': 0, 'cout': 0, 'cin': 0})
    """

    rows: int = 1
    cols: int = 1
    cout: int = 1
    cin: int = 1

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.rows * self.cols * self.cout * self.cin

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that divide anything: those of more than one rank."""
        return tuple(axis for axis in _AXES if getattr(self, axis) > 1)

    def coordinates(self, rank: int) -> Coordinates:
        """Where a rank of the group stands."""
        found: Coordinates = {}
        for axis in reversed(_AXES):
            rank, found[axis] = divmod(rank, getattr(self, axis))
        return {axis: found[axis] for axis in _AXES}

    def length(self, axes: Iterable[str]) -> int:
        """Number of ranks along several axes together."""
        product = 1
        for axis in axes:
            product *= getattr(self, axis)
        return product

    def place(self, rank: int, axes: Iterable[str]) -> int:
        """A rank's place along several axes together, the first of them the slowest."""
        coordinates, place = self.coordinates(rank), 0
        for axis in axes:
            place = place * int(getattr(self, axis)) + coordinates[axis]
        return place

    def group(self, rank: int, axes: Iterable[str]) -> tuple[int, ...]:
        """The ranks that differ from `rank` along these axes only, itself included, in order."""
        own, along = self.coordinates(rank), set(axes)
        return tuple(
            other
            for other in range(self.size)
            if all(
                self.coordinates(other)[axis] == own[axis] for axis in _AXES if axis not in along
            )
        )


_AXES = tuple(field.name for field in fields(Mesh))

AXES = ("batch", *_AXES)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All ranks of a run.

    Attributes:
        batch: groups, which divide the batch by its logical shards.
        mesh: the axes of each group.
    """

    batch: int = 1
    mesh: Mesh = Mesh()

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.batch * self.mesh.size

    def __str__(self) -> str:
        """As `--grid` takes it, axes of one rank left out."""
        sizes = {"batch": self.batch} | {axis: getattr(self.mesh, axis) for axis in _AXES}
        return ",".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1) or "batch=1"


def parse_grid(text: str) -> tuple[Grid | None, list[str]]:
    """Read `--grid`.

    Args:
        text: axis=size pairs with commas between; axes that are not named have size 1.

    Returns:
        The grid, and a line for everything that is wrong with the text (then there is no grid).

    >>> parse_grid("batch=2,rows=2")
    (Grid(batch=2, mesh=Mesh(rows=2, cols=1, cout=1, cin=1)), [])
    >>> parse_grid("row=2")[1]
    ["--grid: 'row=2' is not AXIS=SIZE; axes are batch, rows, cols, cout, cin, sizes from 1"]
    """
    sizes: dict[str, int] = {}
    problems = []
    for pair in text.split(",") if text.strip() else ():
        axis, _, size = (part.strip() for part in pair.partition("="))
        if axis not in AXES or not size.isascii() or not size.isdigit() or int(size) < 1:
            problems.append(
                f"--grid: {pair.strip()!r} is not AXIS=SIZE; axes are {', '.join(AXES)}, sizes "
                "from 1"
            )
        elif axis in sizes:
            problems.append(f"--grid: {axis} is given twice")
        else:
            sizes[axis] = int(size)
    if problems:
        return None, problems
    batch = sizes.pop("batch", 1)
    return Grid(batch=batch, mesh=Mesh(**sizes)), []
