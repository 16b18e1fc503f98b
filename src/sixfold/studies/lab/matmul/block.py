"""Blocks of C, after SUMMA: every task owns blocks of C and is sent the panels that they need.

R. van de Geijn, J. Watts, "SUMMA: scalable universal matrix multiplication algorithm", 1997:

    C[I, J] = sum over panels K of A[I, K] B[K, J]

Sent: A[I, K] to every J, B[K, J] to every I; nothing is reduced. It departs from the paper in
that panels come through one shuffle, as they are sorted by Spark, not by a broadcast for every K
along rows and columns of a grid of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product as pairs
from typing import Any

import numpy as np

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.loopnest.blocks import even_ranges
from sixfold.studies.lab.matmul.operands import Block, Parts, Product, timed_product

Panel = tuple[str, int, Array]
"""Which factor it is of, its number along k, and the numbers."""


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
        for place, total in _multiplied(items, kernel_s).items():
            block, column = divmod(place, len(columns))
            yield (product.bounds(block)[0], columns[column][0]), total

    left = cluster.numbers(product.blocks).flatMap(send_left)
    right = cluster.numbers(len(panels), len(panels)).flatMap(send_right)
    both = left.union(right).partitionBy(cluster.partitions, int)
    return both.mapPartitions(work)


def _multiplied(items: Iterable[tuple[int, Panel]], kernel_s: Any) -> dict[int, Array]:
    """Panels of A and B multiplied as soon as both are there, and added up by block of C."""
    waiting: dict[tuple[int, int, str], Array] = {}
    totals: dict[int, Array] = {}
    for place, (factor, number, panel) in items:
        partner = waiting.pop((place, number, "B" if factor == "A" else "A"), None)
        if partner is None:
            waiting[place, number, factor] = panel
            continue
        left, right = (panel, partner) if factor == "A" else (partner, panel)
        partial = timed_product(left, right, kernel_s)
        if place in totals:
            totals[place] += partial
        else:
            totals[place] = partial
    return totals
