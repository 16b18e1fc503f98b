"""Who holds what: a layout cuts the dims of a tensor along axes of the mesh.

Everything here is arithmetic on intervals; no tensor is touched. A dim is cut at given points into
as many intervals as there are ranks along the axes that divide it; an interval may be empty. Along
axes that divide no dim, ranks hold copies.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from sixfold.training.strategies.model_parallel.grid import Mesh

Interval = tuple[int, int]
"""First index and one past the last; empty if they are equal."""

Box = tuple[Interval, ...]
"""An interval for every dim."""


def is_empty(box: Box) -> bool:
    """Whether a box holds no element."""
    return any(stop <= start for start, stop in box)


def sizes(box: Box) -> tuple[int, ...]:
    """Number of elements along each dim."""
    return tuple(stop - start for start, stop in box)


def volume(box: Box) -> int:
    """Number of elements."""
    return prod(sizes(box))


def common(one: Box, other: Box) -> Box | None:
    """The box that two boxes share, None if it is empty.

    >>> common(((0, 4), (0, 2)), ((3, 9), (1, 2)))
    ((3, 4), (1, 2))
    """
    found = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return None if is_empty(found) else found


def slices(box: Box, origin: Box) -> tuple[slice, ...]:
    """Where a box lies in an array that holds the box `origin`; for indexing."""
    return tuple(
        slice(start - first, stop - first)
        for (start, stop), (first, _) in zip(box, origin, strict=True)
    )


@dataclass(frozen=True)
class Split:
    """How one dim is cut.

    Attributes:
        cuts: the ends of the intervals, from 0 to the dim's length.
        axes: the mesh axes that divide it, the slowest first; none if it is whole.
    """

    cuts: tuple[int, ...]
    axes: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Of the dim."""
        return self.cuts[-1]


def whole(length: int) -> Split:
    """A dim that is not cut."""
    return Split((0, length))


def even(length: int, mesh: Mesh, axes: Iterable[str]) -> Split:
    """A dim cut into intervals of lengths that differ by at most 1.

    >>> even(10, Mesh(rows=4), ("rows",))
    Split(cuts=(0, 2, 5, 7, 10), axes=('rows',))
    """
    used = tuple(axis for axis in axes if axis in mesh.axes)
    parts = mesh.length(used)
    return Split(tuple(part * length // parts for part in range(parts + 1)), used)


@dataclass(frozen=True)
class Layout:
    """How a tensor is divided over the ranks of a group.

    Attributes:
        mesh: the group.
        splits: one for every dim. An axis divides at most one dim.

    >>> mesh = Mesh(rows=2, cout=2)
    >>> maps = Layout(mesh, (even(8, mesh, ("cout",)), even(5, mesh, ("rows",)), whole(5)))
    >>> maps.box(3)
    ((4, 8), (2, 5), (0, 5))
    """

    mesh: Mesh
    splits: tuple[Split, ...]

    def __post_init__(self) -> None:
        used = [axis for split in self.splits for axis in split.axes]
        if len(used) != len(set(used)):
            raise ValueError(f"an axis of the mesh can divide one dim only: {used}")
        for split in self.splits:
            if len(split.cuts) != self.mesh.length(split.axes) + 1:
                raise ValueError(f"{split} does not fit {self.mesh}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole tensor."""
        return tuple(split.length for split in self.splits)

    @property
    def axes(self) -> frozenset[str]:
        """Axes that divide some dim."""
        return frozenset(axis for split in self.splits for axis in split.axes)

    @property
    def spatial(self) -> frozenset[str]:
        """Axes that divide the second dim or a later one."""
        return frozenset(axis for split in self.splits[1:] for axis in split.axes)

    @property
    def copied(self) -> frozenset[str]:
        """Axes along which ranks hold copies."""
        return frozenset(self.mesh.axes) - self.axes

    def box(self, rank: int) -> Box:
        """What a rank holds."""
        found = []
        for split in self.splits:
            place = self.mesh.place(rank, split.axes)
            found.append((split.cuts[place], split.cuts[place + 1]))
        return tuple(found)

    def boxes(self) -> list[Box]:
        """What each rank holds."""
        return [self.box(rank) for rank in range(self.mesh.size)]


CHANNEL_AXES = ("cout", "cin")
VECTOR_AXES = ("cout", "cin", "rows", "cols")


def everywhere(mesh: Mesh, shape: tuple[int, ...]) -> Layout:
    """Every rank holds everything."""
    return Layout(mesh, tuple(whole(length) for length in shape))


def maps(mesh: Mesh, shape: tuple[int, ...]) -> Layout:
    """Maps (C, H, W): channels over both channel axes, rows over rows, columns over columns."""
    channels, rows, columns = shape
    return Layout(
        mesh,
        (
            even(channels, mesh, CHANNEL_AXES),
            even(rows, mesh, ("rows",)),
            even(columns, mesh, ("cols",)),
        ),
    )


def vector(mesh: Mesh, features: int) -> Layout:
    """Features (F, 1, 1) over all axes."""
    return Layout(mesh, (even(features, mesh, VECTOR_AXES), whole(1), whole(1)))
