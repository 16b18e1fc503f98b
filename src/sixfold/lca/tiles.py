"""The positions of an image divided over processes, by rows and columns.

A grid of b x r x c ranks: b groups share out the elements of the batch; the r x c ranks of a group
divide the positions of each of their elements. Before every time step a rank gets from its
neighbours the activations around its own (the *halo*, taps - 1 wide); from them it computes all of
the residual that its positions see, some of which its neighbours compute too: one exchange a step,
and every number by the same kernels from the same inputs as in one process. Readings are sums of
integers and maxima, which have no order.

    exact: the same bits for any grid as long as a tile has more than one position (kernels give a
    single position other bits; such grids are refused), in float32 and float64; tests hold it for
    the geometries of `tests/lca`, on the kernels of this machine's library.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sixfold.core.errors import UserError
from sixfold.distributed.collectives import all_gather
from sixfold.distributed.logical_shards import shard_bounds
from sixfold.distributed.process_group import Communicator
from sixfold.lca.phases import Phases
from sixfold.training.strategies.model_parallel.grid import Grid, Mesh


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The positions that one rank of a group computes."""

    rows: tuple[int, int]  # first and one-past-last row of positions
    columns: tuple[int, int]
    taps: tuple[int, int]  # of the geometry
    skip: tuple[int, int]  # of the geometry's phases
    whole: tuple[int, int]  # (U, V), rows and columns of the whole image's grid of phases

    @property
    def positions(self) -> tuple[int, int]:
        """Rows and columns of positions in the tile."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def halo(self) -> tuple[int, int]:
        """Positions around the tile that its own depend on, by axis."""
        return self.taps[0] - 1, self.taps[1] - 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the residual that the tile's positions see."""
        (p, q), (th, tw) = self.positions, self.taps
        return p + th - 1, q + tw - 1

    def cut(self, grids: Tensor) -> Tensor:
        """The tile's part of images by phase (n, c, U, V); zeros where they have no place."""
        (u, v), (qh, qw) = self.grid, self.skip
        found = grids.new_zeros(*grids.shape[:2], u, v)
        # Place i of the tile is place rows[0] + i of the canvas, and that less `skip` of the grid.
        top, left = self.rows[0] - qh, self.columns[0] - qw
        rows = slice(max(top, 0), min(top + u, self.whole[0]))
        columns = slice(max(left, 0), min(left + v, self.whole[1]))
        found[
            :, :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ] = grids[:, :, rows, columns]
        return found

    def mask(self, whole: Tensor | None, channels: int, dtype: torch.dtype) -> Tensor:
        """1 where the tile's residual counts, (1, c, u, v)."""
        full = torch.ones(1, channels, *self.whole, dtype=dtype) if whole is None else whole
        return self.cut(full.to(dtype))

    def owned(self) -> tuple[slice, slice]:
        """Rows and columns of the tile's grid that no other counts; the last reach to the end."""
        found = []
        for axis, last in enumerate((self.rows[1], self.columns[1])):
            beyond = self.taps[axis] - 1
            ends = last == self.whole[axis] + 2 * self.skip[axis] - beyond
            found.append(slice(0, self.positions[axis] + (beyond if ends else 0)))
        return found[0], found[1]


class Tiles:
    """A rank's tile of the (r, c) that divide an image, and its exchanges with its group."""

    def __init__(self, group: Communicator, shape: tuple[int, int], phases: Phases) -> None:
        self.group, self.shape, self.phases = group, shape, phases
        self.positions = phases.geometry.positions
        self.tile = self._tile(group.rank)

    def _tile(self, rank: int) -> Tile:
        row, column = divmod(rank, self.shape[1])
        return Tile(
            rows=shard_bounds(self.positions[0], self.shape[0], row),
            columns=shard_bounds(self.positions[1], self.shape[1], column),
            taps=self.phases.geometry.taps,
            skip=self.phases.skip,
            whole=self.phases.grid,
        )

    def fill_halo(self, padded: Tensor) -> None:
        """Put the neighbours' activations around this rank's own, (W, K, p + 2 halo, ...)."""
        sends, receives, places = {}, {}, {}
        for rank in range(self.group.size):
            if rank == self.group.rank:
                continue
            out = self._overlap(self.tile, self._tile(rank))
            into = self._overlap(self._tile(rank), self.tile)
            if out is not None:
                sends[rank] = np.ascontiguousarray(self._window(padded, out).numpy())
            if into is not None:
                places[rank] = self._window(padded, into)
                receives[rank] = np.empty(places[rank].shape, places[rank].numpy().dtype)
        self.group.exchange(sends, receives)
        for rank, values in receives.items():
            places[rank].copy_(torch.from_numpy(values))

    def _overlap(
        self, source: Tile, target: Tile
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Positions of `source` that lie in the halo of `target`: rows and columns."""
        found = []
        for own, other, halo in zip(
            (source.rows, source.columns), (target.rows, target.columns), target.halo, strict=True
        ):
            low, high = max(own[0], other[0] - halo), min(own[1], other[1] + halo)
            if low >= high:
                return None
            found.append((low, high))
        return found[0], found[1]

    def _window(self, padded: Tensor, positions: tuple[tuple[int, int], tuple[int, int]]) -> Tensor:
        """The part of this rank's padded code that holds some positions."""
        (top, bottom), (left, right) = positions
        row = self.tile.rows[0] - self.tile.halo[0]
        column = self.tile.columns[0] - self.tile.halo[1]
        return padded[:, :, top - row : bottom - row, left - column : right - column]

    def combine(self, sums: Tensor, tops: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (integers) and maxima over all tiles, from those of this rank's."""
        all_sums = np.sum(all_gather(self.group, sums.numpy()), 0)
        all_tops = np.max(all_gather(self.group, tops.numpy()), 0)
        return torch.from_numpy(all_sums), torch.from_numpy(all_tops)

    def join(self, codes: Tensor) -> Tensor:
        """Whole codes (n, K, P, Q) from the tiles' (n, K, p, q), on every rank of the group."""
        others = [rank for rank in range(self.group.size) if rank != self.group.rank]
        shape = codes.shape[:2]
        received = {
            rank: np.empty((*shape, *self._tile(rank).positions), codes.numpy().dtype)
            for rank in others
        }
        own = np.ascontiguousarray(codes.numpy())
        self.group.exchange(dict.fromkeys(others, own), received)
        whole = codes.new_zeros(*shape, *self.positions)
        for rank in range(self.group.size):
            tile = self._tile(rank)
            part = codes if rank == self.group.rank else torch.from_numpy(received[rank])
            whole[:, :, slice(*tile.rows), slice(*tile.columns)] = part
        return whole

    def part(self, code: Tensor) -> Tensor:
        """This rank's part of a whole code (K, P, Q)."""
        return code[:, slice(*self.tile.rows), slice(*self.tile.columns)]


def grid_of(text: str, workers: int) -> Grid:
    """Read `--grid`.

    >>> grid_of("auto", 3).batch, str(grid_of("1x2x2", 4))
    (3, 'rows=2,cols=2')
    """
    if text == "auto":
        return Grid(batch=workers)
    words = text.split("x")
    if len(words) != 3 or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UserError(f"--grid {text}: expected BATCHxROWSxCOLUMNS, such as 2x1x1, or auto")
    batch, rows, cols = map(int, words)
    grid = Grid(batch=batch, mesh=Mesh(rows=rows, cols=cols))
    if grid.size != workers:
        raise UserError(
            f"--grid {text}: has {grid.size} processes, but there are {workers} workers; use "
            f"--workers {grid.size}"
        )
    return grid


def grid_problems(mesh: Mesh, phases: Phases) -> list[str]:
    """Why a mesh of processes cannot divide a geometry; empty if it can."""
    (p, q), geometry = phases.geometry.positions, phases.geometry
    if mesh.size == 1:
        return []
    if geometry.dense:
        return ["--grid: a fully connected dictionary has one position; divide the batch alone"]
    if mesh.rows > p or mesh.cols > q:
        return [f"--grid: {p} x {q} positions cannot be divided into {mesh.rows} x {mesh.cols}"]
    # The smallest tile has the parts that are rounded down.
    if p // mesh.rows == 1 and q // mesh.cols == 1:
        return [
            f"--grid: {mesh.rows} x {mesh.cols} leaves a process a single position, whose products "
            "have other bits: use fewer rows or columns"
        ]
    return []
