"""Ways to keep activations between forward and backward, each as Spark jobs.

    same worker    forward and backward of a shard in one task: nothing is kept
    driver         forward jobs bring the activations to the driver, backward jobs take them back;
                   in chunks that fit Spark's limit for results
    a store        a forward job writes every shard's activations, a backward job reads them

Gradients come back to the driver as partial sums of the fixed tree over the shards
(`sixfold.distributed.logical_shards`), so their total has the bits of a serial step, whatever ran
where.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.distributed.logical_shards import Node, TreeFold
from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.activations.halves import Frame, Halves, halves_of
from sixfold.studies.lab.activations.stores import Store, decode, encode
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.cost import Cost
from sixfold.studies.lab.problem import Problem

Partial = tuple[Node, Array]
"""A node of the tree over the shards, and the sum of the gradients below it."""


@dataclass(frozen=True, kw_only=True)
class Meters:
    """What tasks add up: Spark accumulators."""

    kernel_s: Any
    store_s: Any  # time in which activations were encoded and kept, or fetched and decoded
    kept_bytes: Any  # activations

    @classmethod
    def of(cls, context: Any) -> Meters:
        """Fresh ones."""
        made = (context.accumulator(0.0), context.accumulator(0.0), context.accumulator(0))
        return cls(kernel_s=made[0], store_s=made[1], kept_bytes=made[2])


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A step in two stages."""

    gradient: Array  # (P,) the sum over all images
    forward: Cost  # cost of the forward stage
    backward: Cost  # cost of the backward stage


def same_worker(cluster: Cluster, problem: Problem, meters: Meters) -> Passed:
    """Forward and backward of a shard in one task."""
    halves = halves_of(problem)
    weights = cluster.broadcast(halves.weights)

    def work(shards: Iterable[int]) -> Iterator[Partial]:
        here = _loaded(problem, weights)
        yield from _folded((index, _both(here, index, meters)) for index in shards)

    partials, cost = cluster.measured(
        "forward and backward", _shards(cluster, halves.count).mapPartitions(work).collect
    )
    return Passed(gradient=_total(halves.count, partials), forward=Cost(), backward=cost)


def through_store(cluster: Cluster, problem: Problem, store: Store, meters: Meters) -> Passed:
    """A forward job and a backward job, which meet in a store."""
    halves = halves_of(problem)
    weights = cluster.broadcast(halves.weights)

    def forward(index: int) -> tuple[int, Frame]:
        value, frame = _forward(_loaded(problem, weights), index, meters)
        _timed(meters, lambda: store.put(f"shard-{index}", value))
        return index, frame

    def backward(items: Iterable[tuple[int, Frame]]) -> Iterator[Partial]:
        here = _loaded(problem, weights)

        def one(index: int, frame: Frame) -> Array:
            value = _timed(meters, lambda: store.get(f"shard-{index}"))
            return _backward(here, value, frame, meters)

        yield from _folded((index, one(index, frame)) for index, frame in items)

    shards = _shards(cluster, halves.count)
    try:
        frames, ahead = cluster.measured("forward", shards.map(forward).collect)
        partials, back = cluster.measured("backward", _sent_back(cluster, frames, backward))
    finally:
        for index in range(halves.count):
            store.delete(f"shard-{index}")
    return Passed(gradient=_total(halves.count, partials), forward=ahead, backward=back)


def through_driver(
    cluster: Cluster, problem: Problem, limit_bytes: int, meters: Meters
) -> tuple[Passed, int]:
    """Forward jobs that return the activations, backward jobs that are sent them.

    Returns:
        The step, and in how many chunks it was made.
    """
    halves = halves_of(problem)
    weights = cluster.broadcast(halves.weights)

    def forward(index: int) -> tuple[int, bytes, Frame]:
        return index, *_forward(_loaded(problem, weights), index, meters)

    def backward(items: Iterable[tuple[int, bytes, Frame]]) -> Iterator[Partial]:
        here = _loaded(problem, weights)
        yield from _folded(
            (index, _backward(here, value, frame, meters)) for index, value, frame in items
        )

    a_shard = len(encode(halves.forward(halves.shard(0))[0]))
    size = max(1, limit_bytes // a_shard)
    chunks = [range(k, min(k + size, halves.count)) for k in range(0, halves.count, size)]
    ahead, back = Cost(), Cost()
    held: list[list[Any]] = []
    for chunk in chunks:
        values, cost = cluster.measured("forward", _part(cluster, chunk).map(forward).collect)
        held.append(values)
        ahead += cost
    partials: list[Partial] = []
    for number in range(len(chunks)):
        values, held[number] = held[number], []
        found, cost = cluster.measured("backward", _sent_back(cluster, values, backward))
        partials += found
        back += cost
    gradient = _total(halves.count, partials)
    return Passed(gradient=gradient, forward=ahead, backward=back), len(chunks)


def _sent_back(
    cluster: Cluster,
    values: Sequence[Any],
    backward: Callable[[Iterable[Any]], Iterator[Partial]],
) -> Callable[[], list[Partial]]:
    """A job over what the driver has of every shard."""

    def action() -> list[Partial]:
        items = cluster.context.parallelize(values, min(cluster.partitions, len(values)))
        partials: list[Partial] = items.mapPartitions(backward).collect()
        return partials

    return action


def serial(halves: Halves) -> tuple[float, float, Array]:
    """Forward of all shards, then backward of all, in this process.

    Returns:
        Seconds of each, and the (P,) gradient.
    """
    began = time.perf_counter()
    kept = [halves.forward(halves.shard(index)) for index in range(halves.count)]
    middle = time.perf_counter()
    partials = list(_folded((index, halves.backward(*one)) for index, one in enumerate(kept)))
    return middle - began, time.perf_counter() - middle, _total(halves.count, partials)


def of_a_step(halves: Halves) -> Array:
    """(P,) the same gradient, as `Step` computes it for training."""
    step = halves.step
    shards = [halves.shard(index) for index in range(halves.count)]
    ((_, total),) = step.partials(0, shards)
    length = step.state.sections[0]
    gradient: Array = np.array(total[:length])
    step.release()
    return gradient


def _loaded(problem: Problem, weights: Any) -> Halves:
    """The network in a worker, with the step's weights."""
    halves = halves_of(problem)
    halves.load(weights.value)
    return halves


def _both(halves: Halves, index: int, meters: Meters) -> Array:
    shard = halves.shard(index)
    began = time.perf_counter()
    gradient = halves.backward(*halves.forward(shard))
    meters.kernel_s.add(time.perf_counter() - began)
    return gradient


def _forward(halves: Halves, index: int, meters: Meters) -> tuple[bytes, Frame]:
    shard = halves.shard(index)
    began = time.perf_counter()
    tensors, frame = halves.forward(shard)
    meters.kernel_s.add(time.perf_counter() - began)
    value: bytes = _timed(meters, lambda: encode(tensors))
    meters.kept_bytes.add(len(value))
    return value, frame


def _backward(halves: Halves, value: bytes, frame: Frame, meters: Meters) -> Array:
    tensors = _timed(meters, lambda: decode(value))
    began = time.perf_counter()
    gradient = halves.backward(tensors, frame)
    meters.kernel_s.add(time.perf_counter() - began)
    return gradient


def _timed(meters: Meters, action: Callable[[], Any]) -> Any:
    """The result of something that keeps or fetches activations, with its time."""
    began = time.perf_counter()
    result = action()
    meters.store_s.add(time.perf_counter() - began)
    return result


def _shards(cluster: Cluster, count: int) -> Any:
    """An RDD of the numbers of all shards, contiguous runs of them."""
    return _part(cluster, range(count))


def _part(cluster: Cluster, shards: range) -> Any:
    return cluster.context.parallelize(shards, min(cluster.partitions, len(shards)))


def _folded(gradients: Iterable[tuple[int, Array]]) -> Iterator[Partial]:
    """Gradients of shards in order, added as far as the tree allows."""
    fold: TreeFold[Array] = TreeFold(_add)
    for index, gradient in gradients:
        fold.push(Node(0, index), gradient)
    yield from fold.nodes


def _total(count: int, partials: Iterable[Partial]) -> Array:
    """The root of the tree; partial sums come in order."""
    fold: TreeFold[Array] = TreeFold(_add)
    for node, value in partials:
        fold.push(Node(*node), value)
    return fold.root(count)


def _add(left: Array, right: Array) -> Array:
    left += right
    return left
