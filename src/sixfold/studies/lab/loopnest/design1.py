"""Design 1: iterate over (row_n, col_n, kern_x, kern_y); map on chan_n; reduce on chan_n1.

Taken literally, every position of the output and of the kernel is a Spark job in which chan_n x
chan_n1 products are made and added over chan_n1 (`sixfold.studies.lab.loopnest.literal`). Here a
job covers a block of rows, columns and kernel positions:

    for each block of (row_n, col_n):
        for each block of (kern_x, kern_y):                   one job each
            send    the pixels that the block needs, one input channel a record, to every block
                    of output channels
            map     on chan_n:  partial[k] = sum over the block's (r, s) of w[k, c, r, s] x[c]
            reduce  on chan_n1: sum over c of the partials
            add     to the outputs of the earlier kernel positions, where these lie
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.loopnest.accumulate import Accumulated
from sixfold.studies.lab.loopnest.blocks import (
    Corner,
    Meters,
    Range,
    Sizes,
    add,
    convolve,
    cut,
    place_corner,
    ranges,
    region,
    source,
)
from sixfold.studies.lab.problem import Problem

Unit = tuple[int, tuple[int, int, int, Array]]


def design1(cluster: Cluster, problem: Problem, sizes: Sizes, meters: Meters) -> Iterator[Any]:
    """One job for every block of rows, columns and kernel positions."""
    geometry = problem.geometry
    (rows, columns), (kernel_rows, kernel_columns) = geometry.out, geometry.kernel
    row_size, column_size, r_size, s_size = sizes.iterate
    weights = cluster.broadcast(problem.weights())
    taps = list(product(ranges(kernel_rows, r_size), ranges(kernel_columns, s_size)))
    for place in product(ranges(rows, row_size), ranges(columns, column_size)):
        outputs = Accumulated(cluster.partitions)
        for number, tap in enumerate(taps):
            partial = _job(cluster, problem, sizes, meters, weights, place, tap)
            outputs.add(partial, last=number == len(taps) - 1)
        yield outputs.total
        outputs.forget()


def _job(
    cluster: Cluster,
    problem: Problem,
    sizes: Sizes,
    meters: Meters,
    weights: Any,
    place: tuple[Range, Range],
    tap: tuple[Range, Range],
) -> Any:
    """Outputs of a block of positions, under a block of the kernel."""
    geometry = problem.geometry
    maps = ranges(geometry.maps, sizes.maps)
    down, right = (region(geometry, dim, place[dim], tap[dim]) for dim in (0, 1))
    (r0, r1), (s0, s1) = tap
    corner_p, corner_q = place[0][0], place[1][0]

    def send(item: tuple[int, Array]) -> Iterator[Unit]:
        block, padded = item
        for channel, number in product(range(geometry.channels), range(len(maps))):
            piece = cut(padded[:, channel : channel + 1], down, right, meters.sent)
            unit = (block * geometry.channels + channel) * len(maps) + number
            yield unit, (block, channel, number, piece)

    def work(item: Unit) -> tuple[Corner, Array]:
        block, channel, number, piece = item[1]
        first, last = maps[number]
        part = weights.value[first:last, channel : channel + 1, r0:r1, s0:s1]
        corner = (problem.bounds(block)[0], first, corner_p, corner_q)
        return corner, convolve(piece, part, geometry, meters.kernel_s)

    units = source(cluster, problem).flatMap(send)
    partials = units.partitionBy(cluster.partitions, int).map(work)
    return partials.reduceByKey(add, cluster.partitions, place_corner)
