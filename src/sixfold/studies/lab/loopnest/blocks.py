"""Blocks of the loop nest: which pixels a block of outputs needs, and what it is computed with.

Legend as in `sixfold.studies.convolution.geometry`. A range is (first, behind the last).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from sixfold.studies.convolution.geometry import Array, Geometry
from sixfold.studies.lab.problem import Problem

Range = tuple[int, int]

Corner = tuple[int, int, int, int]
"""Where a block of outputs begins: n, k, p, q."""

Block = tuple[Corner, Array]
"""A block of outputs, (n, k, p, q)."""


@dataclass(frozen=True, kw_only=True)
class Meters:
    """What tasks add up while they work: Spark accumulators."""

    sent: Any  # elements of input that were cut out for tasks, copies included
    kernel_s: Any

    @classmethod
    def of(cls, context: Any) -> Meters:
        """Fresh ones."""
        return cls(sent=context.accumulator(0), kernel_s=context.accumulator(0.0))


def ranges(extent: int, size: int) -> list[Range]:
    """An extent cut into runs of `size`, of which the last may be shorter; 0 for one run.

    >>> ranges(10, 4), ranges(3, 0)
    ([(0, 4), (4, 8), (8, 10)], [(0, 3)])
    """
    size = size or extent
    return [(first, min(first + size, extent)) for first in range(0, extent, size)]


def even_ranges(extent: int, parts: int) -> list[Range]:
    """An extent cut into at most `parts` runs of nearly equal length.

    >>> even_ranges(10, 3), even_ranges(2, 3)
    ([(0, 3), (3, 6), (6, 10)], [(0, 1), (1, 2)])
    """
    parts = min(parts, extent)
    edges = [extent * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def region(geometry: Geometry, dim: int, outputs: Range, taps: Range) -> slice:
    """Rows (dim 0) or columns (dim 1) of the padded image that outputs need for some taps.

    >>> region(Geometry.of((1, 1, 32, 32), (1, 1, 5, 5), padding=2), 0, (8, 16), (0, 5))
    slice(8, 20, None)
    """
    stride, dilation = geometry.stride[dim], geometry.dilation[dim]
    low = outputs[0] * stride + taps[0] * dilation
    high = (outputs[1] - 1) * stride + (taps[1] - 1) * dilation + 1
    return slice(low, high)


def cut(padded: Array, rows: slice, columns: slice, sent: Any) -> Array:
    """A copy of a region of padded images, counted as sent."""
    piece: Array = np.ascontiguousarray(padded[:, :, rows, columns])
    sent.add(piece.size)
    return piece


def convolve(pixels: Array, weights: Array, geometry: Geometry, kernel_s: Any) -> Array:
    """Outputs of a region of padded images under some of the weights, on one thread.

    Args:
        pixels: (n, c, rows, columns), no more than the outputs need.
        weights: (k, c, r, s).
        geometry: for stride and dilation.
        kernel_s: accumulates the time.
    """
    began = time.perf_counter()
    with torch.inference_mode():
        outputs = torch.nn.functional.conv2d(
            torch.from_numpy(pixels),
            torch.from_numpy(np.ascontiguousarray(weights)),
            stride=geometry.stride,
            dilation=geometry.dilation,
        )
    result: Array = outputs.numpy()
    kernel_s.add(time.perf_counter() - began)
    return result


def add(total: Array, other: Array) -> Array:
    """`total += other`; both belong to the reduction, which holds no other reference to them."""
    total += other
    return total


def place_corner(corner: Corner) -> int:
    """A number for a corner, by which finished blocks are spread; the same on every host."""
    n, k, p, q = corner
    return ((n * 31 + k) * 31 + p) * 31 + q


def source(cluster: Any, problem: Problem) -> Any:
    """An RDD of (number, padded images) of every block of images, where they are made."""
    return cluster.numbers(problem.blocks).map(_Padded(problem))


@dataclass(frozen=True)
class _Padded:
    problem: Problem

    def __call__(self, block: int) -> tuple[int, Array]:
        return block, self.problem.padded(block)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of blocks; 0 stands for the whole extent of a loop."""

    # design 1: rows, columns, kern_x and kern_y that one job covers
    iterate: tuple[int, int, int, int] = (8, 0, 0, 0)
    maps: int = 8  # output channels that one task of design 1 and of batch x channels has
    tile: tuple[int, int] = (8, 8)  # R and C of design 3
    # rows and columns of the grid in which rows-columns divides an image
    grid: tuple[int, int] = (2, 1)
