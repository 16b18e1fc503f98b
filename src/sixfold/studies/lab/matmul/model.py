"""How long each way should take: jobs, bytes that move, and work, from measured rates.

    T = jobs + bytes broadcast / broadcast rate + bytes shuffled / shuffle rate
      + work / slots,    work = sum over products of max(flops / peak, bytes touched / memory rate)

    row split        broadcast k n                  shuffled 0
    outer product    broadcast k n                  shuffled m k + parts m n
    blocks           broadcast 0                    shuffled columns m k + blocks k n

(in elements; `parts` of k, `columns` of n, `blocks` of m). What is not in it: contention for the
machine's caches and memory, imbalance of the last tasks, and garbage collection.
"""

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sixfold.distributed.process_group.ambient import one_thread
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.matmul.operands import Parts, Product, multiply

PEAK_SIZE = 768  # side of the square product that measures the peak: 7 MB, past the first caches
MEMORY_BYTES = 64 << 20
SHUFFLE_BLOCK_BYTES = 8 << 20
# Of two shuffles: the slope between their times is the rate, without what a job costs.
SHUFFLE_BLOCKS = (4, 32)
BROADCAST_BYTES = (1 << 20, 33 << 20)
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the cluster and its workers can do, measured."""

    job_s: float  # a job that does nothing
    stage_s: float  # one more stage in a job, its shuffle empty
    peak_flops: float  # operations a second of one slot, all slots busy
    memory_bytes_s: float  # bytes a second that one slot reads and writes, all slots busy
    alone_flops: float  # operations a second of one thread of the driver, the slots idle
    alone_bytes_s: float  # bytes a second that it reads and writes
    shuffle_bytes_s: float  # bytes a second through a shuffle, over all slots
    broadcast_bytes_s: float  # bytes a second of a broadcast, until every slot has it


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A predicted time by its parts."""

    jobs_s: float  # starting the job and its stages
    broadcast_s: float  # handing out B
    shuffle_s: float  # moving factors and partial sums
    kernel_s: float  # multiplying, on all slots

    @property
    def total_s(self) -> float:
        """Their sum."""
        return self.jobs_s + self.broadcast_s + self.shuffle_s + self.kernel_s


def predict(way: str, product: Product, parts: Parts, rates: Rates, slots: int) -> Prediction:
    """The time of a way to divide a product."""
    m, k, n, size = product.m, product.k, product.n, product.itemsize
    inner, columns = min(parts.inner, k), min(parts.columns, n)
    broadcast = 0 if way == "block" else k * n
    shuffled = {
        "row": 0,
        "outer": m * k + inner * m * n,
        "block": columns * m * k + product.blocks * k * n,
    }[way]
    stages = {"row": 0, "outer": 2, "block": 1}[way]
    pieces = {"row": (1, 1), "outer": (inner, 1), "block": (inner, columns)}[way]
    units = product.blocks if way != "outer" else inner  # what can run at the same time
    return Prediction(
        jobs_s=rates.job_s + stages * rates.stage_s,
        broadcast_s=broadcast * size / rates.broadcast_bytes_s,
        shuffle_s=shuffled * size / rates.shuffle_bytes_s,
        kernel_s=kernel_s(product, *pieces, rates.peak_flops, rates.memory_bytes_s)
        / min(slots, units),
    )


def kernel_s(product: Product, inner: int, columns: int, flops: float, bytes_s: float) -> float:
    """Time of all local products on one thread, at so many operations and bytes a second.

    Every one of the `inner` parts of k writes a partial result; each of the `columns` parts of n
    reads A again.
    """
    m, k, n = product.m, product.k, product.n
    touched = (columns * m * k + product.blocks * k * n + 2 * inner * m * n) * product.itemsize
    return max(product.flops / flops, touched / bytes_s)


def alone_s(product: Product, rates: Rates) -> float:
    """Time of the product on one thread, without Spark."""
    return kernel_s(product, 1, 1, rates.alone_flops, rates.alone_bytes_s)


def crossover(way: str, parts: Parts, rates: Rates, slots: int, block_rows: int) -> float | None:
    """The n from which n x n x n pays on all slots, by the model; None if never below 100,000."""
    low, high = 8, 100_000

    def gain(n: int) -> float:
        product = Product(m=n, k=n, n=n, block_rows=min(block_rows, -(-n // (2 * slots))))
        return alone_s(product, rates) - predict(way, product, parts, rates, slots).total_s

    if gain(high) <= 0:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if gain(middle) > 0 else (middle, high)
    return float(high)


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
