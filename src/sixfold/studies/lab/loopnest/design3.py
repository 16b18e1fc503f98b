"""Design 3: tiles of R x C outputs; and the division of rows and columns among the slots.

A tile of outputs needs the input under it and around it, so that pixels near the tiles' edges are
sent more than once: about (1 + (kern_x - 1)/R)(1 + (kern_y - 1)/C) times for stride 1. Tiles at
the right and bottom edge are as small as what is left. The weights are broadcast; nothing is
reduced.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.loopnest.blocks import (
    Block,
    Meters,
    Range,
    Sizes,
    convolve,
    cut,
    even_ranges,
    ranges,
    region,
    source,
)
from sixfold.studies.lab.problem import Problem


def design3(cluster: Cluster, problem: Problem, sizes: Sizes, meters: Meters) -> Iterator[Any]:
    """One job: a task has tiles of blocks of images."""
    rows, columns = problem.geometry.out
    tiles = product(ranges(rows, sizes.tile[0]), ranges(columns, sizes.tile[1]))
    yield _tiled(cluster, problem, list(tiles), meters)


def by_rows_and_columns(
    cluster: Cluster, problem: Problem, sizes: Sizes, meters: Meters
) -> Iterator[Any]:
    """One job: every image is cut into as many parts as the grid has, for all images alike."""
    rows, columns = problem.geometry.out
    parts = product(even_ranges(rows, sizes.grid[0]), even_ranges(columns, sizes.grid[1]))
    yield _tiled(cluster, problem, list(parts), meters)


def _tiled(
    cluster: Cluster, problem: Problem, tiles: list[tuple[Range, Range]], meters: Meters
) -> Any:
    weights, geometry = cluster.broadcast(problem.weights()), problem.geometry
    kernel_rows, kernel_columns = geometry.kernel

    def cut_tiles(item: tuple[int, Array]) -> Iterator[tuple[int, tuple[int, int, Array]]]:
        block, padded = item
        for number, (rows, columns) in enumerate(tiles):
            down = region(geometry, 0, rows, (0, kernel_rows))
            right = region(geometry, 1, columns, (0, kernel_columns))
            piece = cut(padded, down, right, meters.sent)
            yield block * len(tiles) + number, (block, number, piece)

    def work(item: tuple[int, tuple[int, int, Array]]) -> Block:
        block, number, piece = item[1]
        outputs = convolve(piece, weights.value, geometry, meters.kernel_s)
        rows, columns = tiles[number]
        return (problem.bounds(block)[0], 0, rows[0], columns[0]), outputs

    units = source(cluster, problem).flatMap(cut_tiles)
    return units.partitionBy(cluster.partitions, int).map(work)
