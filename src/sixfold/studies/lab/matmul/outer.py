"""Outer product: the sum over k is divided.

    C = sum over parts K of A[:, K] B[K, :]

Sent: the columns of A to the part that has them, A once in all; a partial C of every part, added
up by blocks of rows. B is broadcast, and each part takes its rows of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.loopnest.blocks import add, even_ranges
from sixfold.studies.lab.matmul.operands import Block, Parts, Product, place_corner, timed_product


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
        first, last = runs[part]
        partial = timed_product(piece, right.value[first:last], kernel_s)
        return (product.bounds(block)[0], 0), partial

    pieces = cluster.numbers(product.blocks).flatMap(send)
    partials = pieces.partitionBy(len(runs), int).map(work)
    return partials.reduceByKey(add, cluster.partitions, place_corner)
