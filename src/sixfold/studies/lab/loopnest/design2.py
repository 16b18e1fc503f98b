"""Design 2: replicate the input kern_x * kern_y times; map over all six loops; reduce.

    send    for every kernel position (r, s) the pixels that meet it, for all output positions:
            im2col, spread over the tasks
    map     partial[k, p, q] = sum over c of w[k, c, r, s] x[c, p + r, q + s]
    reduce  over (kern_x, kern_y, chan_n1): sum of the partials

Taken literally every record is one number (`sixfold.studies.lab.loopnest.literal`); here it is the
plane of a block of images under one kernel position, and the sum over chan_n1 is made within the
map.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from sixfold.studies.convolution.geometry import Array, Geometry
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.loopnest.blocks import (
    Corner,
    Meters,
    Sizes,
    add,
    place_corner,
    region,
    source,
)
from sixfold.studies.lab.problem import Problem

Unit = tuple[int, tuple[int, int, int, Array]]


def design2(cluster: Cluster, problem: Problem, _: Sizes, meters: Meters) -> Iterator[Any]:
    """One job with two shuffles: of the replicated input, and of the partial sums."""
    geometry = problem.geometry
    weights = cluster.broadcast(problem.weights())
    taps = list(product(range(geometry.kernel[0]), range(geometry.kernel[1])))

    def replicate(item: tuple[int, Array]) -> Iterator[Unit]:
        block, padded = item
        for number, (r, s) in enumerate(taps):
            plane = seen(padded, geometry, r, s)
            meters.sent.add(plane.size)
            yield block * len(taps) + number, (block, r, s, plane)

    def work(item: Unit) -> tuple[Corner, Array]:
        block, r, s, plane = item[1]
        corner = (problem.bounds(block)[0], 0, 0, 0)
        return corner, tap_product(weights.value[:, :, r, s], plane, meters.kernel_s)

    units = source(cluster, problem).flatMap(replicate)
    partials = units.partitionBy(cluster.partitions, int).map(work)
    yield partials.reduceByKey(add, cluster.partitions, place_corner)


def seen(padded: Array, geometry: Geometry, r: int, s: int) -> Array:
    """The pixels that meet kernel position (r, s): one for every output position.

    Returns:
        (n, C, P, Q), contiguous.
    """
    rows = region(geometry, 0, (0, geometry.out[0]), (r, r + 1))
    columns = region(geometry, 1, (0, geometry.out[1]), (s, s + 1))
    down, right = geometry.stride
    plane: Array = np.ascontiguousarray(padded[:, :, rows, columns][:, :, ::down, ::right])
    return plane


def tap_product(weights: Array, plane: Array, kernel_s: Any) -> Array:
    """What one kernel position adds to the outputs: a sum over the input channels.

    Args:
        weights: (K, C) at this position.
        plane: (n, C, P, Q).
        kernel_s: accumulates the time.

    Returns:
        (n, K, P, Q).
    """
    began = time.perf_counter()
    images, channels, rows, columns = plane.shape
    flat = plane.reshape(images, channels, rows * columns)
    product_: Array = (weights @ flat).reshape(images, len(weights), rows, columns)
    kernel_s.add(time.perf_counter() - began)
    return product_
