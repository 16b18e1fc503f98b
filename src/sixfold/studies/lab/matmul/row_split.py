"""Row split with broadcast: B goes to everyone, A stays where it lies.

    C[rows] = A[rows] B

Sent: B, once to each executor. Nothing is shuffled or reduced.
"""

from __future__ import annotations

from typing import Any

from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.matmul.operands import Block, Parts, Product, timed_product


def row_split(cluster: Cluster, product: Product, _: Parts, kernel_s: Any) -> Any:
    """An RDD of blocks of C, a block of rows each."""
    right = cluster.broadcast(product.right())

    def work(block: int) -> Block:
        rows = timed_product(product.left(block), right.value, kernel_s)
        return (product.bounds(block)[0], 0), rows

    return cluster.numbers(product.blocks).map(work)
