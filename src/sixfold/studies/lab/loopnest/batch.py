"""Division by the batch, alone and with output channels.

    batch            every block of images stays where it is; nothing is sent
    batch x channels every block of images is sent once for each block of output channels

The weights are broadcast. No sum is divided, so nothing is reduced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.loopnest.blocks import Block, Meters, Sizes, convolve, ranges, source
from sixfold.studies.lab.problem import Problem


def by_batch(cluster: Cluster, problem: Problem, _: Sizes, meters: Meters) -> Iterator[Any]:
    """One job, one stage: a task has blocks of images."""
    weights, geometry = cluster.broadcast(problem.weights()), problem.geometry

    def work(item: tuple[int, Array]) -> Block:
        block, padded = item
        meters.sent.add(problem.images(block).size)
        outputs = convolve(padded, weights.value, geometry, meters.kernel_s)
        return (problem.bounds(block)[0], 0, 0, 0), outputs

    yield source(cluster, problem).map(work)


def by_batch_and_channels(
    cluster: Cluster, problem: Problem, sizes: Sizes, meters: Meters
) -> Iterator[Any]:
    """One job: a task has a block of images and a block of output channels."""
    weights, geometry = cluster.broadcast(problem.weights()), problem.geometry
    maps = ranges(geometry.maps, sizes.maps)

    def replicate(item: tuple[int, Array]) -> Iterator[tuple[int, tuple[int, int, Array]]]:
        block, padded = item
        images = problem.images(block)
        for number in range(len(maps)):
            meters.sent.add(images.size)
            yield block * len(maps) + number, (block, number, padded)

    def work(item: tuple[int, tuple[int, int, Array]]) -> Block:
        block, number, padded = item[1]
        first, last = maps[number]
        outputs = convolve(padded, weights.value[first:last], geometry, meters.kernel_s)
        return (problem.bounds(block)[0], first, 0, 0), outputs

    units = source(cluster, problem).flatMap(replicate)
    yield units.partitionBy(cluster.partitions, int).map(work)
