"""Designs 1, 2 and 2b as they are written, step by step and number by number.

A job for every step of an iteration, a record for every number: the slow, obvious references. At
full size they take hours.

    1   for every (row_n, col_n, kern_x, kern_y): a job. Map on chan_n: from every input channel
        c, for every k, the vector over the images w[k, c, r, s] x[:, c, i, j]. Reduce on chan_n1:
        their sum over c. The driver adds it to y[:, k, p, q].
    2   a record for every (n, c, p, q, r, s) holds one pixel: the input replicated. Map on all six
        loops: one product a record. Reduce over (c, r, s).
    2b  a record for every (n, c, p, r, column) holds one pixel: replicated along rows only. For
        every (col_n, kern_y): a job that maps to products and reduces over (c, r). The driver adds
        the sums to y[:, :, :, q].

Legend as in `sixfold.studies.convolution.geometry`.
"""

import operator
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.blocks import place
from sixfold.studies.lab.cluster import Cluster, Cost
from sixfold.studies.lab.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Literal:
    """What the literal form of a design did."""

    cost: Cost  # of its jobs
    records: int  # products that were made, one a record
    outputs: Array  # what it computed, in the shape of the outputs
    wanted: Array  # what that should be


def jobs_of_design1(problem: Problem) -> int:
    """How many jobs design 1 takes: P Q R S."""
    return prod(problem.geometry.out) * prod(problem.geometry.kernel)


def jobs_of_design2b(problem: Problem) -> int:
    """How many jobs design 2b takes: Q S."""
    return problem.geometry.out[1] * problem.geometry.kernel[1]


def literal1(cluster: Cluster, problem: Problem, limit: int) -> Literal:
    """Design 1, or as many of its jobs as `limit` allows, drawn at random.

    The outputs are compared with the same sums made directly over the same steps.
    """
    geometry = problem.geometry
    images, weights = geometry.pad(problem.all_images()), problem.weights()
    steps = list(product(*map(range, (*geometry.out, *geometry.kernel))))
    if len(steps) > limit:
        steps = sorted(random.Random(problem.seed).sample(steps, limit))
    outputs = np.zeros(geometry.output_shape, problem.dtype)
    wanted = np.zeros(geometry.output_shape, problem.dtype)
    total = Cost()
    held = cluster.broadcast(weights)
    for p, q, r, s in steps:
        i, j = _pixel(problem, p, q, r, s)
        sums, cost = cluster.measured(
            "design 1, literally", partial(_job1, cluster, problem, held, (r, s, i, j))
        )
        total += cost
        for k, vector in sums:
            outputs[:, k, p, q] += vector
        wanted[:, :, p, q] += images[:, :, i, j] @ weights[:, :, r, s].T
    records = len(steps) * geometry.batch * geometry.maps * geometry.channels
    return Literal(cost=total, records=records, outputs=outputs, wanted=wanted)


def _job1(
    cluster: Cluster, problem: Problem, weights: Any, at: tuple[int, int, int, int]
) -> list[tuple[int, Array]]:
    """The sums of one step, for every output channel a vector over the images."""
    r, s, i, j = at

    def pixels(channel: int) -> tuple[int, Array]:
        rows, columns = problem.geometry.padding
        y, x = i - rows, j - columns
        height, width = problem.geometry.size
        if not (0 <= y < height and 0 <= x < width):
            return channel, np.zeros(problem.geometry.batch, problem.dtype)
        blocks = [problem.images(b)[:, channel, y, x] for b in range(problem.blocks)]
        return channel, np.concatenate(blocks)

    def on_maps(item: tuple[int, Array]) -> Iterator[tuple[int, Array]]:
        channel, vector = item
        for k in range(problem.geometry.maps):
            yield k, weights.value[k, channel, r, s] * vector

    channels = cluster.numbers(problem.geometry.channels).map(pixels)
    sums = channels.flatMap(on_maps).reduceByKey(operator.add, cluster.partitions)
    found: list[tuple[int, Array]] = sums.collect()
    return found


def literal2(cluster: Cluster, problem: Problem, wanted: Array) -> Literal:
    """Design 2 over the whole problem; every number is a record."""
    geometry = problem.geometry
    weights = cluster.broadcast(problem.weights())
    steps = list(product(*map(range, (*geometry.out, *geometry.kernel))))

    def replicate(block: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        padded, first = problem.padded(block), problem.bounds(block)[0]
        unit = 0
        for n, c in product(range(len(padded)), range(geometry.channels)):
            for p, q, r, s in steps:
                i, j = _pixel(problem, p, q, r, s)
                yield unit, (first + n, c, p, q, r, s, padded[n, c, i, j].item())
                unit += 1

    def on_all_loops(item: tuple[int, Any]) -> Iterator[tuple[tuple[int, ...], float]]:
        n, c, p, q, r, s, pixel = item[1]
        for k in range(geometry.maps):
            yield (n, k, p, q), weights.value[k, c, r, s].item() * pixel

    def action() -> list[tuple[tuple[int, ...], float]]:
        units = cluster.numbers(problem.blocks).flatMap(replicate)
        products = units.partitionBy(cluster.partitions, int).flatMap(on_all_loops)
        return _sums(cluster, products)

    sums, cost = cluster.measured("design 2, literally", action)
    return _filled(problem, sums, cost, wanted)


def literal2b(cluster: Cluster, problem: Problem, wanted: Array) -> Literal:
    """Design 2b over the whole problem; every number is a record."""
    geometry = problem.geometry
    weights = cluster.broadcast(problem.weights())

    def replicate(block: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        padded, first = problem.padded(block), problem.bounds(block)[0]
        unit = 0
        for n, c in product(range(len(padded)), range(geometry.channels)):
            for p, r in product(range(geometry.out[0]), range(geometry.kernel[0])):
                i, _ = _pixel(problem, p, 0, r, 0)
                for j, pixel in enumerate(padded[n, c, i].tolist()):
                    yield unit, (first + n, c, p, r, j, pixel)
                    unit += 1

    bands = cluster.numbers(problem.blocks).flatMap(replicate)
    bands = bands.partitionBy(cluster.partitions, int)
    total, found = Cost(), []
    for q, s in product(range(geometry.out[1]), range(geometry.kernel[1])):
        _, column = _pixel(problem, 0, q, 0, s)
        sums, cost = cluster.measured(
            "design 2b, literally",
            partial(_job2b, cluster, geometry.maps, bands, weights, s, column),
        )
        total += cost
        found += [((n, k, p, q), value) for (n, k, p), value in sums]
    return _filled(problem, found, total, wanted)


def _job2b(
    cluster: Cluster, maps: int, bands: Any, weights: Any, s: int, column: int
) -> list[tuple[tuple[int, int, int], float]]:
    """The sums over chan_n1 and kern_x for one column of the output and one of the kernel."""

    def on_loops(item: tuple[int, Any]) -> Iterator[tuple[tuple[int, ...], float]]:
        n, c, p, r, j, pixel = item[1]
        if j == column:
            for k in range(maps):
                yield (n, k, p), weights.value[k, c, r, s].item() * pixel

    return _sums(cluster, bands.flatMap(on_loops))


def _sums(cluster: Cluster, products: Any) -> list[Any]:
    found: list[Any] = products.reduceByKey(operator.add, cluster.partitions, place).collect()
    return found


def _filled(problem: Problem, sums: list[Any], cost: Cost, wanted: Array) -> Literal:
    """The driver adds every sum to its output."""
    outputs = np.zeros(problem.geometry.output_shape)
    for (n, k, p, q), value in sums:
        outputs[n, k, p, q] += value
    return Literal(cost=cost, records=problem.multiply_adds, outputs=outputs, wanted=wanted)


def _pixel(problem: Problem, p: int, q: int, r: int, s: int) -> tuple[int, int]:
    """The pixel of the padded image that meets kernel position (r, s) at output (p, q)."""
    (down, right), (row_step, column_step) = problem.geometry.stride, problem.geometry.dilation
    return p * down + r * row_step, q * right + s * column_step
