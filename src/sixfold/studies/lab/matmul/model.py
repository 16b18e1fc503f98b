"""How long each way should take: jobs, bytes that move, and work, from measured rates.

    T = jobs + bytes broadcast / broadcast rate + bytes shuffled / shuffle rate
      + work / slots,    work = sum over products of max(flops / peak, bytes touched / memory rate)

    row split        broadcast k n                  shuffled 0
    outer product    broadcast k n                  shuffled m k + parts m n
    blocks           broadcast 0                    shuffled columns m k + blocks k n

(in elements; `parts` of k, `columns` of n, `blocks` of m). What is not in it: contention for the
machine's caches and memory, imbalance of the last tasks, and garbage collection.
"""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.studies.lab.matmul.operands import Parts, Product


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
    """The size from which dividing a square product pays, by the model.

    Returns:
        n for which n x n x n on all slots takes as long as on one without Spark; None if it
        never does below 100,000.
    """
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
