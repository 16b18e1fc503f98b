"""The product C = A B that a study computes, and three ways to divide it on Spark.

A (m, k) lies in blocks of rows in the workers, as the columns of im2col do where the images are.
B (k, n) is small in the products of a network (its weights) and can be had by everyone.

    row     C[rows] = A[rows] B: B goes to everyone, once to each executor, and A stays where it
            lies; nothing is shuffled or reduced
    outer   C = sum over parts K of A[:, K] B[K, :]: the columns of A go to the part that has them,
            A once in all; B is broadcast, and each part takes its rows of it; a partial C of every
            part is added up by blocks of rows
    block   C[I, J] = sum over panels K of A[I, K] B[K, J], after R. van de Geijn, J. Watts,
            "SUMMA: scalable universal matrix multiplication algorithm", 1997: every task owns
            blocks of C; A[I, K] is sent to every J, B[K, J] to every I; nothing is reduced. Departs
            from the paper: panels come through one shuffle, as they are sorted by Spark, not by a
            broadcast for every K along rows and columns of a grid of processes.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product as pairs
from typing import Any

import numpy as np
import torch

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.blocks import (
    Block,
    Range,
    Sampled,
    add,
    all_there,
    even_ranges,
    place,
    timed,
)
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.problem import WEIGHTS, Operands

KEPT_BLOCKS = 256  # blocks of A that a process keeps


@dataclass(frozen=True, kw_only=True)
class Product(Operands):
    """C (m, n) = A (m, k) B (k, n)."""

    m: int
    k: int
    n: int
    block_rows: int  # rows of A in a block; the last block may be smaller

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
        """Its sizes."""
        return f"{self.m}x{self.k}x{self.n}"

    def bounds(self, block: int) -> Range:
        """The rows of a block of A."""
        return block * self.block_rows, min((block + 1) * self.block_rows, self.m)

    def left(self, block: int) -> Array:
        """(rows, k): a block of rows of A; not to be written to."""
        return _left(self, block)

    def right(self) -> Array:
        """(k, n): B."""
        return self.draw(WEIGHTS, (self.k, self.n))


@functools.lru_cache(maxsize=KEPT_BLOCKS)
def _left(product: Product, block: int) -> Array:
    first, last = product.bounds(block)
    return product.draw(block, (last - first, product.k))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of a product."""

    inner: int  # parts of k, for the outer product and the panels of blocks
    columns: int  # parts of n, for blocks


def largest_error(product: Product, sampled: Sequence[Sampled]) -> float:
    """The largest error, in the usual sum of absolute values; infinite if blocks are missing."""
    if not all_there(sampled, product.m * product.n):
        return float("inf")
    right = product.right().astype(np.float64)
    largest = 0.0
    for (i, j), value in (sample for block in sampled for sample in block.samples):
        row = product.left(i // product.block_rows)[i % product.block_rows]
        largest = max(largest, abs(value - float(row.astype(np.float64) @ right[:, j])))
    # Values lie in [-0.5, 0.5), so that the absolute value of a product is 1/16 on the average.
    return largest / (product.k / 16)


def multiply(left: Array, right: Array) -> Array:
    """`left @ right` by torch's kernel."""
    with torch.inference_mode():
        product: Array = torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    return product


def row_split(cluster: Cluster, product: Product, _: Parts, kernel_s: Any) -> Any:
    """An RDD of blocks of C, a block of rows each."""
    right = cluster.broadcast(product.right())

    def work(block: int) -> Block:
        rows = product.left(block)
        with timed(kernel_s):
            return (product.bounds(block)[0], 0), multiply(rows, right.value)

    return cluster.numbers(product.blocks).map(work)


def outer_product(cluster: Cluster, product: Product, parts: Parts, kernel_s: Any) -> Any:
    """An RDD of blocks of C, a block of rows each."""
    right = cluster.broadcast(product.right())
    runs = even_ranges(product.k, parts.inner)

    def send(block: int) -> Iterator[tuple[int, tuple[int, Array]]]:
        rows = product.left(block)
        for part, (first, last) in enumerate(runs):
            yield part, (block, np.ascontiguousarray(rows[:, first:last]))

    def work(item: tuple[int, tuple[int, Array]]) -> Block:
        part, (block, piece) = item
        own = right.value[slice(*runs[part])]
        with timed(kernel_s):
            return (product.bounds(block)[0], 0), multiply(piece, own)

    pieces = cluster.numbers(product.blocks).flatMap(send)
    partials = pieces.partitionBy(len(runs), int).map(work)
    return partials.reduceByKey(add, cluster.partitions, place)


Panel = tuple[str, int, Array]  # which factor it is of, its number along k, and the numbers


def block_product(cluster: Cluster, product: Product, parts: Parts, kernel_s: Any) -> Any:
    """An RDD of blocks of C: a block of A's rows by a run of B's columns."""
    columns, panels = even_ranges(product.n, parts.columns), even_ranges(product.k, parts.inner)

    def send_left(block: int) -> Iterator[tuple[int, Panel]]:
        rows = product.left(block)
        for number, (first, last) in enumerate(panels):
            panel = np.ascontiguousarray(rows[:, first:last])
            for column in range(len(columns)):
                yield block * len(columns) + column, ("A", number, panel)

    def send_right(number: int) -> Iterator[tuple[int, Panel]]:
        right = product.right()[slice(*panels[number])]
        for block, column in pairs(range(product.blocks), range(len(columns))):
            panel = np.ascontiguousarray(right[:, slice(*columns[column])])
            yield block * len(columns) + column, ("B", number, panel)

    def work(items: Iterable[tuple[int, Panel]]) -> Iterator[Block]:
        for at, total in _multiplied(items, kernel_s).items():
            block, column = divmod(at, len(columns))
            yield (product.bounds(block)[0], columns[column][0]), total

    left = cluster.numbers(product.blocks).flatMap(send_left)
    right = cluster.numbers(len(panels), len(panels)).flatMap(send_right)
    return left.union(right).partitionBy(cluster.partitions, int).mapPartitions(work)


def _multiplied(items: Iterable[tuple[int, Panel]], kernel_s: Any) -> dict[int, Array]:
    """Panels of A and B multiplied as soon as both are there, and added up by block of C."""
    waiting: dict[tuple[int, int, str], Array] = {}
    totals: dict[int, Array] = {}
    for at, (factor, number, panel) in items:
        partner = waiting.pop((at, number, "B" if factor == "A" else "A"), None)
        if partner is None:
            waiting[at, number, factor] = panel
            continue
        left, right = (panel, partner) if factor == "A" else (partner, panel)
        with timed(kernel_s):
            partial = multiply(left, right)
        totals[at] = add(totals[at], partial) if at in totals else partial
    return totals


WAYS: dict[str, Callable[[Cluster, Product, Parts, Any], Any]] = {
    "row": row_split,
    "outer": outer_product,
    "block": block_product,
}
"""The ways, by the names that `--ways` takes."""
