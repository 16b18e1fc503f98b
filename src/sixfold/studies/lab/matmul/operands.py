"""The product C = A B that a study computes: both factors made from their index, anywhere.

A (m, k) lies in blocks of rows in the workers, as the columns of im2col do where the images are.
B (k, n) is small in the products of a network (its weights) and can be had by everyone.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator, Philox

from sixfold.studies.convolution.geometry import Array

_RIGHT = 1 << 62
"""The index from which B is drawn; no block of A has it."""

KEPT_BLOCKS = 256
"""Blocks of A that a process keeps."""

SAMPLES = 16
"""Elements of a block of C that are compared with the definition."""

Corner = tuple[int, int]
Block = tuple[Corner, Array]
"""Where a block of C begins (row, column), and the block."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """C (m, n) = A (m, k) B (k, n)."""

    m: int
    k: int
    n: int
    block_rows: int  # rows of A in a block; the last block may be smaller
    seed: int = 0
    dtype: str = "float32"  # "float32" or "float64"

    @property
    def flops(self) -> int:
        """Operations: a multiplication and an addition for every point."""
        return 2 * self.m * self.k * self.n

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.dtype).itemsize

    @property
    def blocks(self) -> int:
        """How many blocks of rows A has."""
        return -(-self.m // self.block_rows)

    @property
    def name(self) -> str:
        """Its sizes.

        >>> Product(m=4, k=3, n=2, block_rows=2).name
        '4x3x2'
        """
        return f"{self.m}x{self.k}x{self.n}"

    def bounds(self, block: int) -> tuple[int, int]:
        """The first row of a block of A, and the one behind its last."""
        return block * self.block_rows, min((block + 1) * self.block_rows, self.m)

    def left(self, block: int) -> Array:
        """(rows, k): a block of rows of A; not to be written to."""
        return _left(self, block)

    def right(self) -> Array:
        """(k, n): B."""
        return _draw(self, _RIGHT, (self.k, self.n))

    def whole_left(self) -> Array:
        """(m, k): A."""
        return np.concatenate([self.left(block) for block in range(self.blocks)])


def _draw(product: Product, index: int, shape: tuple[int, int]) -> Array:
    """A matrix in [-0.5, 0.5) from (seed, index)."""
    generator = Generator(Philox(key=[product.seed, index]))
    values: Array = generator.random(shape, dtype=np.float32) - np.float32(0.5)
    return values.astype(product.dtype, copy=False)


@functools.lru_cache(maxsize=KEPT_BLOCKS)
def _left(product: Product, block: int) -> Array:
    first, last = product.bounds(block)
    return _draw(product, block, (last - first, product.k))


def take_samples(block: Block) -> tuple[Corner, int, list[tuple[int, int, float]]]:
    """What a task tells of a block of C that stays where it is: corner, size, some elements."""
    (row, column), values = block
    generator = Generator(Philox(key=[row, column]))
    places = generator.integers(0, values.size, min(SAMPLES, values.size))
    found = []
    for flat in places:
        i, j = divmod(int(flat), values.shape[1])
        found.append((row + i, column + j, float(values[i, j])))
    return (row, column), int(values.size), found


def largest_error(
    product: Product, told: Iterable[tuple[Corner, int, list[tuple[int, int, float]]]]
) -> float:
    """The largest error of samples, as a part of the usual sum of absolute values.

    Returns:
        Infinity if blocks are missing or there are too many.
    """
    told = list(told)
    whole = sum(size for _, size, _ in told) == product.m * product.n
    if not whole or len({corner for corner, _, _ in told}) != len(told):
        return float("inf")
    right = product.right().astype(np.float64)
    largest = 0.0
    for _, _, samples in told:
        for i, j, value in samples:
            row = product.left(i // product.block_rows)[i % product.block_rows]
            largest = max(largest, abs(value - float(row.astype(np.float64) @ right[:, j])))
    # Values lie in [-0.5, 0.5), so that the absolute value of a product is 1/16 on the average.
    return largest / (product.k / 16)


def multiply(left: Array, right: Array) -> Array:
    """`left @ right` by torch's kernel."""
    with torch.inference_mode():
        product: Array = torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    return product


def timed_product(left: Array, right: Array, kernel_s: Any) -> Array:
    """`multiply`; the time is added to an accumulator."""
    began = time.perf_counter()
    product = multiply(left, right)
    kernel_s.add(time.perf_counter() - began)
    return product


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of a product."""

    inner: int  # parts of k, for the outer product and the panels of blocks
    columns: int  # parts of n, for blocks


def place_corner(corner: tuple[int, int]) -> int:
    """A number for a block of C, by which blocks are spread; the same on every host."""
    return corner[0] * 31 + corner[1]
