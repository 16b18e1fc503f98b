"""The rates that the model needs, measured on the cluster itself."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sixfold.distributed.process_group.ambient import one_thread
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.matmul.model import Rates
from sixfold.studies.lab.matmul.operands import multiply

PEAK_SIZE = 768
"""Side of the square product by which the peak is measured: 7 MB, past the first caches."""

MEMORY_BYTES = 64 << 20
SHUFFLE_BLOCK_BYTES = 8 << 20
SHUFFLE_BLOCKS = (4, 32)
"""Blocks of two shuffles: the slope between their times is the rate, without what a job costs."""

BROADCAST_BYTES = (1 << 20, 33 << 20)
REPEATS = 3


def calibrate(cluster: Cluster) -> Rates:
    """Measure the rates; about fifteen seconds."""
    job_s = cluster.empty_job_s()
    shuffles = [_median(partial(_shuffle, cluster, count)) for count in SHUFFLE_BLOCKS]
    few, many = SHUFFLE_BLOCKS
    shuffled = (many - few) * SHUFFLE_BLOCK_BYTES
    small, large = BROADCAST_BYTES
    casts = [_median(partial(_broadcast, cluster, size)) for size in BROADCAST_BYTES]
    return Rates(
        job_s=job_s,
        stage_s=max(_median(partial(_shuffle, cluster, 0)) - job_s, 0.0),
        peak_flops=2 * PEAK_SIZE**3 / _busy_s(cluster, _multiply_once),
        memory_bytes_s=2 * MEMORY_BYTES / _busy_s(cluster, _copy_once),
        alone_flops=2 * PEAK_SIZE**3 / _alone_s(_multiply_once),
        alone_bytes_s=2 * MEMORY_BYTES / _alone_s(_copy_once),
        shuffle_bytes_s=_rate(shuffled, shuffles[1] - shuffles[0], shuffles[1]),
        broadcast_bytes_s=_rate(large - small, casts[1] - casts[0], casts[1]),
    )


def _rate(count: int, difference_s: float, whole_s: float) -> float:
    """Bytes a second from a difference of times; from the longer one where noise ate it."""
    return count / (difference_s if difference_s > 0.1 * whole_s else whole_s)


def _median(action: Callable[[], None]) -> float:
    times = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _shuffle(cluster: Cluster, blocks: int) -> None:
    """Blocks of random numbers, made in tasks, to other tasks that touch them."""

    def make(number: int) -> tuple[int, object]:
        return number, _random(number % 4, SHUFFLE_BLOCK_BYTES)

    def touch(item: tuple[int, object]) -> int:
        return item[0]

    made = cluster.numbers(blocks).map(make)
    made.partitionBy(cluster.partitions, int).map(touch).count()


def _broadcast(cluster: Cluster, size: int) -> None:
    value = cluster.broadcast(_random(0, size))

    def touch(_: int) -> int:
        return int(value.value.size)

    cluster.numbers(cluster.slots, cluster.slots).map(touch).count()


@functools.lru_cache(maxsize=16)
def _random(seed: int, size: int) -> NDArray[np.float32]:
    """Random numbers of so many bytes, kept: making them is not what is measured."""
    return np.random.default_rng(seed).random(size // 4, dtype=np.float32)


def _busy_s(cluster: Cluster, once: Callable[[], float]) -> float:
    """Median time of something that every slot does at the same time, again and again."""

    def work(_: int) -> list[float]:
        return [once() for _ in range(8)]

    times = cluster.numbers(cluster.slots, cluster.slots).flatMap(work).collect()
    return float(statistics.median(times))


def _alone_s(once: Callable[[], float]) -> float:
    """Median time of something on one thread of this process, while the slots are idle."""
    with one_thread():
        return statistics.median(once() for _ in range(8))


def _multiply_once() -> float:
    left = np.ones((PEAK_SIZE, PEAK_SIZE), np.float32)
    began = time.perf_counter()
    multiply(left, left)
    return time.perf_counter() - began


def _copy_once() -> float:
    source = np.ones(MEMORY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    target[:] = 0
    began = time.perf_counter()
    np.copyto(target, source)
    return time.perf_counter() - began
