"""Design 2b: replicate the input along one spatial axis only, and iterate over the other.

send     for every kern_x = r the rows that meet it, whole: once, kern_x times the input, and
         keep them where they arrive
for each kern_y = s:                                        one job each
    map      partial[k, p, q] = sum over c of w[k, c, r, s] x[c, p + r, q + s]
    reduce   over (kern_x, chan_n1): sum of the partials
    add      to the outputs of the earlier kern_y, where these lie
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.loopnest.accumulate import Accumulated
from sixfold.studies.lab.loopnest.blocks import (
    Corner,
    Meters,
    Sizes,
    add,
    place_corner,
    region,
    source,
)
from sixfold.studies.lab.loopnest.design2 import tap_product
from sixfold.studies.lab.problem import Problem

Unit = tuple[int, tuple[int, int, Array]]


def design2b(cluster: Cluster, problem: Problem, _: Sizes, meters: Meters) -> Iterator[Any]:
    """One job for every column of the kernel, on input that was replicated along rows once."""
    geometry = problem.geometry
    kernel_rows, kernel_columns = geometry.kernel
    weights = cluster.broadcast(problem.weights())

    def replicate(item: tuple[int, Array]) -> Iterator[Unit]:
        block, padded = item
        for r in range(kernel_rows):
            rows = region(geometry, 0, (0, geometry.out[0]), (r, r + 1))
            band = np.ascontiguousarray(padded[:, :, rows][:, :, :: geometry.stride[0]])
            meters.sent.add(band.size)
            yield block * kernel_rows + r, (block, r, band)

    def work(s: int) -> Any:
        columns = region(geometry, 1, (0, geometry.out[1]), (s, s + 1))

        def one(item: Unit) -> tuple[Corner, Array]:
            block, r, band = item[1]
            plane = np.ascontiguousarray(band[:, :, :, columns][..., :: geometry.stride[1]])
            corner = (problem.bounds(block)[0], 0, 0, 0)
            return corner, tap_product(weights.value[:, :, r, s], plane, meters.kernel_s)

        return one

    units = source(cluster, problem).flatMap(replicate)
    bands = units.partitionBy(cluster.partitions, int)
    outputs = Accumulated(cluster.partitions)
    for s in range(kernel_columns):
        partials = bands.map(work(s))
        blocks = partials.reduceByKey(add, cluster.partitions, place_corner)
        outputs.add(blocks, last=s == kernel_columns - 1)
    yield outputs.total
    outputs.forget()
