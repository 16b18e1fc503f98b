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

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.activations.halves import Frame, Halves, halves_of
from sixfold.studies.lab.activations.stores import Store, decode, encode
from sixfold.studies.lab.blocks import Partial, folded, timed, total_of
from sixfold.studies.lab.cluster import Cluster, Cost
from sixfold.studies.lab.problem import Problem


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
    forward: Cost  # of the forward stage
    backward: Cost  # of the backward stage
    chunks: int = 1  # in how many parts the step was made


def same_worker(cluster: Cluster, problem: Problem, meters: Meters) -> Passed:
    """Forward and backward of a shard in one task."""
    halves = halves_of(problem)
    weights = cluster.broadcast(halves.weights)

    def both(here: Halves, index: int) -> Array:
        shard = here.shard(index)
        with timed(meters.kernel_s):
            return here.backward(*here.forward(shard))

    def work(shards: Iterable[int]) -> Iterator[Partial]:
        here = _loaded(problem, weights)
        yield from folded((index, both(here, index)) for index in shards)

    partials, cost = cluster.measured(
        "forward and backward", _spread(cluster, range(halves.count)).mapPartitions(work).collect
    )
    return Passed(gradient=total_of(halves.count, partials), forward=Cost(), backward=cost)


def through_store(cluster: Cluster, problem: Problem, store: Store, meters: Meters) -> Passed:
    """A forward job and a backward job, which meet in a store."""
    halves = halves_of(problem)
    weights = cluster.broadcast(halves.weights)

    def forward(index: int) -> tuple[int, Frame]:
        value, frame = _forward(_loaded(problem, weights), index, meters)
        with timed(meters.store_s):
            store.put(f"shard-{index}", value)
        return index, frame

    def one(here: Halves, index: int, frame: Frame) -> Array:
        with timed(meters.store_s):
            value = store.get(f"shard-{index}")
        return _backward(here, value, frame, meters)

    def backward(items: Iterable[tuple[int, Frame]]) -> Iterator[Partial]:
        here = _loaded(problem, weights)
        yield from folded((index, one(here, index, frame)) for index, frame in items)

    shards = _spread(cluster, range(halves.count))
    try:
        frames, ahead = cluster.measured("forward", shards.map(forward).collect)
        partials, back = cluster.measured("backward", _sent_back(cluster, frames, backward))
    finally:
        for index in range(halves.count):
            store.delete(f"shard-{index}")
    return Passed(gradient=total_of(halves.count, partials), forward=ahead, backward=back)


def through_driver(cluster: Cluster, problem: Problem, limit_bytes: int, meters: Meters) -> Passed:
    """Forward jobs that return the activations, backward jobs that are sent them; in chunks."""
    halves = halves_of(problem)
    weights = cluster.broadcast(halves.weights)

    def forward(index: int) -> tuple[int, bytes, Frame]:
        return index, *_forward(_loaded(problem, weights), index, meters)

    def backward(items: Iterable[tuple[int, bytes, Frame]]) -> Iterator[Partial]:
        here = _loaded(problem, weights)
        yield from folded(
            (index, _backward(here, value, frame, meters)) for index, value, frame in items
        )

    a_shard = len(encode(halves.forward(halves.shard(0))[0]))
    size = max(1, limit_bytes // a_shard)
    chunks = [range(k, min(k + size, halves.count)) for k in range(0, halves.count, size)]
    ahead, back = Cost(), Cost()
    held: list[list[Any]] = []
    for chunk in chunks:
        values, cost = cluster.measured("forward", _spread(cluster, chunk).map(forward).collect)
        held.append(values)
        ahead += cost
    partials: list[Partial] = []
    for number in range(len(chunks)):
        values, held[number] = held[number], []
        found, cost = cluster.measured("backward", _sent_back(cluster, values, backward))
        partials += found
        back += cost
    gradient = total_of(halves.count, partials)
    return Passed(gradient=gradient, forward=ahead, backward=back, chunks=len(chunks))


def _spread(cluster: Cluster, items: Sequence[Any]) -> Any:
    """An RDD of contiguous runs."""
    return cluster.context.parallelize(items, min(cluster.partitions, len(items)))


def _sent_back(
    cluster: Cluster, values: Sequence[Any], backward: Callable[[Iterable[Any]], Iterator[Partial]]
) -> Callable[[], list[Partial]]:
    """A job over what the driver has of every shard."""

    def action() -> list[Partial]:
        partials: list[Partial] = _spread(cluster, values).mapPartitions(backward).collect()
        return partials

    return action


def serial(halves: Halves) -> tuple[float, float, Array]:
    """Seconds of forward of all shards, then backward of all, in this process; (P,) gradient."""
    began = time.perf_counter()
    kept = [halves.forward(halves.shard(index)) for index in range(halves.count)]
    middle = time.perf_counter()
    partials = list(folded((index, halves.backward(*one)) for index, one in enumerate(kept)))
    return middle - began, time.perf_counter() - middle, total_of(halves.count, partials)


def of_a_step(halves: Halves) -> Array:
    """(P,) the same gradient, as `Step` computes it for training."""
    step = halves.step
    shards = [halves.shard(index) for index in range(halves.count)]
    ((_, total),) = step.partials(0, shards)
    gradient: Array = np.array(total[: step.state.sections[0]])
    step.release()
    return gradient


def _loaded(problem: Problem, weights: Any) -> Halves:
    halves = halves_of(problem)
    halves.load(weights.value)
    return halves


def _forward(halves: Halves, index: int, meters: Meters) -> tuple[bytes, Frame]:
    shard = halves.shard(index)
    with timed(meters.kernel_s):
        tensors, frame = halves.forward(shard)
    with timed(meters.store_s):
        value = encode(tensors)
    meters.kept_bytes.add(len(value))
    return value, frame


def _backward(halves: Halves, value: bytes, frame: Frame, meters: Meters) -> Array:
    with timed(meters.store_s):
        tensors = decode(value)
    with timed(meters.kernel_s):
        return halves.backward(tensors, frame)
