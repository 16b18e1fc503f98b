"""The loop nest of a convolution divided in seven ways, each as Spark jobs.

Every design turns the images of a problem, which lie in blocks where they were made, into blocks of
outputs. The weights are broadcast. *send* is what travels to the tasks, *map* what they compute,
*reduce* how partial sums are added.

1   iterate over blocks of (row_n, col_n) and of (kern_x, kern_y), one job each:
    send    the pixels that the block needs, one input channel a record, to every block of output
            channels
    map     on chan_n: partial[k] = sum over the block's (r, s) of w[k, c, r, s] x[c]
    reduce  on chan_n1: sum over c, and add to the outputs of the earlier kernel positions, where
            these lie
2   send    for every kernel position (r, s) the pixels that meet it: im2col, spread over the tasks
    map     partial[k, p, q] = sum over c of w[k, c, r, s] x[c, p + r, q + s]
    reduce  over (kern_x, kern_y)
2b  send    for every kern_x = r the rows that meet it, whole: once, and keep them where they arrive
    then iterate over kern_y = s, one job each: map as in 2, reduce over kern_x, and add to the
    outputs of the earlier kern_y, where these lie
3   send    tiles of R x C outputs with the input around them, so that pixels near the edges are
            sent more than once: about (1 + (kern_x - 1)/R)(1 + (kern_y - 1)/C) times for stride 1
rows-columns      the same with every image cut into as many tiles as there are slots
batch             every block of images stays where it is; nothing is sent
batch-channels    every block of images is sent once for each block of output channels

`sixfold.studies.lab.loopnest.literal` has 1, 2 and 2b as they are written, a record for every
number. Legend as in `sixfold.studies.convolution.geometry`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from sixfold.studies.convolution.geometry import Array, Geometry
from sixfold.studies.lab.blocks import Block, Range, add, even_ranges, place, ranges, timed
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of blocks; 0 stands for the whole extent of a loop."""

    iterate: tuple[int, int, int, int] = (8, 0, 0, 0)  # rows, columns, kern_x, kern_y of 1's jobs
    maps: int = 8  # output channels that a task of 1 and of batch-channels has
    tile: tuple[int, int] = (8, 8)  # R and C of 3
    grid: tuple[int, int] = (2, 1)  # in which rows-columns divides an image


@dataclass(frozen=True, kw_only=True)
class Meters:
    """What tasks add up while they work: Spark accumulators."""

    sent: Any  # elements of input that were cut out for tasks, copies included
    kernel_s: Any

    @classmethod
    def of(cls, context: Any) -> Meters:
        """Fresh ones."""
        return cls(sent=context.accumulator(0), kernel_s=context.accumulator(0.0))


def design1(cluster: Cluster, problem: Problem, sizes: Sizes, meters: Meters) -> Iterator[Any]:
    """One job for every block of rows, columns and kernel positions."""
    geometry = problem.geometry
    extents = (*geometry.out, *geometry.kernel)
    cuts = [ranges(extent, size) for extent, size in zip(extents, sizes.iterate, strict=True)]
    maps = ranges(geometry.maps, sizes.maps)
    weights = cluster.broadcast(problem.weights())
    units = list(product(range(geometry.channels), maps))

    def partial(at: tuple[Range, ...], taps: tuple[Range, ...]) -> Any:
        """Outputs of a block of positions, under a block of the kernel."""
        down, right = (region(geometry, dim, at[dim], taps[dim]) for dim in (0, 1))

        def send(padded: Array) -> Iterator[Array]:
            for channel, _ in units:
                yield _cut(padded[:, channel : channel + 1], down, right, meters.sent)

        def work(first: int, number: int, piece: Array) -> Block:
            channel, (low, high) = units[number]
            part = weights.value[low:high, channel : channel + 1, slice(*taps[0]), slice(*taps[1])]
            corner = (first, low, at[0][0], at[1][0])
            return corner, convolve(piece, part, geometry, meters.kernel_s)

        return _reduced(cluster, _spread(cluster, problem, len(units), send, work))

    for rows, columns in product(*cuts[:2]):
        all_taps = product(*cuts[2:])
        yield from _accumulated(cluster, (partial((rows, columns), taps) for taps in all_taps))


def design2(cluster: Cluster, problem: Problem, _: Sizes, meters: Meters) -> Iterator[Any]:
    """One job with two shuffles: of the replicated input, and of the partial sums."""
    geometry = problem.geometry
    weights = cluster.broadcast(problem.weights())
    taps = list(product(*map(range, geometry.kernel)))

    def send(padded: Array) -> Iterator[Array]:
        for r, s in taps:
            plane = _met(_met(padded, geometry, 0, r), geometry, 1, s)
            yield _sent(plane, meters.sent)

    def work(first: int, number: int, plane: Array) -> Block:
        r, s = taps[number]
        return (first, 0, 0, 0), _tap_product(weights.value[:, :, r, s], plane, meters.kernel_s)

    yield _reduced(cluster, _spread(cluster, problem, len(taps), send, work))


def design2b(cluster: Cluster, problem: Problem, _: Sizes, meters: Meters) -> Iterator[Any]:
    """One job for every column of the kernel, on input that was replicated along rows once."""
    geometry = problem.geometry
    kernel_rows, kernel_columns = geometry.kernel
    weights = cluster.broadcast(problem.weights())

    def send(padded: Array) -> Iterator[Array]:
        for r in range(kernel_rows):
            yield _sent(_met(padded, geometry, 0, r), meters.sent)

    def partial(s: int) -> Any:
        def work(item: tuple[int, int, Array]) -> Block:
            first, r, band = item
            plane = np.ascontiguousarray(_met(band, geometry, 1, s))
            return (first, 0, 0, 0), _tap_product(weights.value[:, :, r, s], plane, meters.kernel_s)

        return _reduced(cluster, bands.map(work))

    bands = _spread(cluster, problem, kernel_rows, send, lambda *item: item)
    yield from _accumulated(cluster, map(partial, range(kernel_columns)))


def design3(cluster: Cluster, problem: Problem, sizes: Sizes, meters: Meters) -> Iterator[Any]:
    """One job: a task has tiles of blocks of images."""
    cuts = (ranges(*pair) for pair in zip(problem.geometry.out, sizes.tile, strict=True))
    yield _tiled(cluster, problem, list(product(*cuts)), meters)


def by_rows_and_columns(
    cluster: Cluster, problem: Problem, sizes: Sizes, meters: Meters
) -> Iterator[Any]:
    """One job: every image is cut into as many parts as the grid has, for all images alike."""
    cuts = (even_ranges(*pair) for pair in zip(problem.geometry.out, sizes.grid, strict=True))
    yield _tiled(cluster, problem, list(product(*cuts)), meters)


def by_batch(cluster: Cluster, problem: Problem, _: Sizes, meters: Meters) -> Iterator[Any]:
    """One job, one stage: a task has blocks of images."""
    weights, geometry = cluster.broadcast(problem.weights()), problem.geometry

    def work(block: int) -> Block:
        meters.sent.add(problem.images(block).size)
        outputs = convolve(problem.padded(block), weights.value, geometry, meters.kernel_s)
        return (problem.bounds(block)[0], 0, 0, 0), outputs

    yield cluster.numbers(problem.blocks).map(work)


def by_batch_and_channels(
    cluster: Cluster, problem: Problem, sizes: Sizes, meters: Meters
) -> Iterator[Any]:
    """One job: a task has a block of images and a block of output channels."""
    weights, geometry = cluster.broadcast(problem.weights()), problem.geometry
    maps = ranges(geometry.maps, sizes.maps)

    def send(padded: Array) -> Iterator[Array]:
        for _ in maps:
            meters.sent.add(geometry.crop(padded).size)
            yield padded

    def work(first: int, number: int, padded: Array) -> Block:
        low, high = maps[number]
        outputs = convolve(padded, weights.value[low:high], geometry, meters.kernel_s)
        return (first, low, 0, 0), outputs

    yield _spread(cluster, problem, len(maps), send, work)


class Entry(NamedTuple):
    """A design by its name."""

    what: str
    # Yields RDDs of blocks of outputs; together they hold every output once.
    run: Callable[[Cluster, Problem, Sizes, Meters], Iterator[Any]]


DESIGNS = {
    "1": Entry(
        "iterate over blocks of rows, columns and kernel; map on chan_n; reduce on chan_n1", design1
    ),
    "2": Entry(
        "replicate the input for every kernel position; map over all loops; reduce over kern_x, "
        "kern_y, chan_n1",
        design2,
    ),
    "2b": Entry("replicate along rows for every kern_x; iterate over kern_y", design2b),
    "3": Entry("tiles of R x C outputs, with the input around them", design3),
    "batch": Entry("divide the images", by_batch),
    "batch-channels": Entry("divide images and output channels", by_batch_and_channels),
    "rows-columns": Entry(
        "divide every image's rows and columns among the slots", by_rows_and_columns
    ),
}
"""The designs, by the names that `--designs` takes."""


def _tiled(
    cluster: Cluster, problem: Problem, tiles: list[tuple[Range, ...]], meters: Meters
) -> Any:
    weights, geometry = cluster.broadcast(problem.weights()), problem.geometry

    def send(padded: Array) -> Iterator[Array]:
        for tile in tiles:
            down, right = (
                region(geometry, dim, tile[dim], (0, geometry.kernel[dim])) for dim in (0, 1)
            )
            yield _cut(padded, down, right, meters.sent)

    def work(first: int, number: int, piece: Array) -> Block:
        rows, columns = tiles[number]
        outputs = convolve(piece, weights.value, geometry, meters.kernel_s)
        return (first, 0, rows[0], columns[0]), outputs

    return _spread(cluster, problem, len(tiles), send, work)


def _spread(
    cluster: Cluster,
    problem: Problem,
    count: int,
    send: Callable[[Array], Iterable[Array]],
    work: Callable[[int, int, Array], Any],
) -> Any:
    """An RDD of what `work` makes of the `count` pieces that `send` cuts from padded images.

    `work` is given the first image of a block, the number of the piece, and the piece.
    """

    def numbered(block: int) -> Iterator[tuple[int, tuple[int, int, Array]]]:
        first = problem.bounds(block)[0]
        for number, piece in enumerate(send(problem.padded(block))):
            yield block * count + number, (first, number, piece)

    units = cluster.numbers(problem.blocks).flatMap(numbered)
    return units.partitionBy(cluster.partitions, int).map(lambda unit: work(*unit[1]))


def _reduced(cluster: Cluster, blocks: Any) -> Any:
    return blocks.reduceByKey(add, cluster.partitions, place)


def _accumulated(cluster: Cluster, partials: Iterable[Any]) -> Iterator[Any]:
    """The sum of RDDs of blocks, all but the last added by a job of its own.

    They are partitioned alike, so that adding moves nothing; sums stay where they are.
    """
    total: Any = None
    kept: Any = None
    for partial in partials:
        if total is not None:
            level = type(total.getStorageLevel())  # pyspark's class; here it is not imported
            total.persist(level(True, True, False, False))  # memory and disk
            total.foreach(_nothing)
            if kept is not None:
                kept.unpersist()
            kept = total
            partial = _reduced(cluster, total.union(partial))
        total = partial
    yield total
    if kept is not None:
        kept.unpersist()


def _nothing(_: object) -> None:
    pass


def region(geometry: Geometry, dim: int, outputs: Range, taps: Range) -> slice:
    """Rows (dim 0) or columns (dim 1) of the padded image that outputs need for some taps.

    >>> region(Geometry.of((1, 1, 32, 32), (1, 1, 5, 5), padding=2), 0, (8, 16), (0, 5))
    slice(8, 20, None)
    """
    stride, dilation = geometry.stride[dim], geometry.dilation[dim]
    low = outputs[0] * stride + taps[0] * dilation
    return slice(low, (outputs[1] - 1) * stride + (taps[1] - 1) * dilation + 1)


def _met(padded: Array, geometry: Geometry, dim: int, tap: int) -> Array:
    """Rows (dim 0) or columns (dim 1) that meet a tap, one for every output position."""
    seen = region(geometry, dim, (0, geometry.out[dim]), (tap, tap + 1))
    seen = slice(seen.start, seen.stop, geometry.stride[dim])
    return padded[:, :, seen] if dim == 0 else padded[..., seen]


def _cut(padded: Array, rows: slice, columns: slice, sent: Any) -> Array:
    return _sent(padded[:, :, rows, columns], sent)


def _sent(piece: Array, sent: Any) -> Array:
    """A copy of a piece, counted as sent."""
    sent.add(piece.size)
    return np.ascontiguousarray(piece)


def convolve(pixels: Array, weights: Array, geometry: Geometry, kernel_s: Any) -> Array:
    """Outputs of padded pixels (n, c, rows, columns) under weights (k, c, r, s), on one thread."""
    with timed(kernel_s), torch.inference_mode():
        outputs: Array = torch.nn.functional.conv2d(
            torch.from_numpy(pixels),
            torch.from_numpy(np.ascontiguousarray(weights)),
            stride=geometry.stride,
            dilation=geometry.dilation,
        ).numpy()
    return outputs


def _tap_product(weights: Array, plane: Array, kernel_s: Any) -> Array:
    """What one kernel position adds to the outputs: weights (K, C) times plane (n, C, P, Q)."""
    with timed(kernel_s):
        images, channels, rows, columns = plane.shape
        flat = plane.reshape(images, channels, rows * columns)
        found: Array = (weights @ flat).reshape(images, len(weights), rows, columns)
    return found
