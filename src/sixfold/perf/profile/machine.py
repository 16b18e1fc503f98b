"""The limits of this machine, measured: how fast a core multiplies matrices and copies memory.

A limit is what the best of several short measurements reaches, since whatever else runs on the
machine only takes away from it. Every rate is taken on one core alone and on all cores at once,
each with a thread of its own that computes with one thread, as a rank does: all cores share
caches and memory, and some processors lower their clock when all are busy.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import torch

from sixfold.core.processor import processor_name
from sixfold.distributed.process_group.ambient import cores
from sixfold.perf.profile.limits import Cache, CopyRate, Machine, ProductRate

WINDOW_S = 0.1  # length of one measurement
WINDOWS = 3  # measurements of each rate; the best counts
PRODUCT_SIZE = 1024
"""Rows and columns of the matrices: 4 MB each in float32, enough for the full rate of the blocked
products of oneDNN and MKL."""
LONGEST_PRODUCT_S = 0.1
"""Of matrices so large; where it takes longer, as in bfloat16 without instructions for it, smaller
ones are taken, which the plain loops behind it multiply at the same rate."""
SMALLEST_PRODUCT = 128

PRECISIONS = ("float32", "bfloat16", "float64")
COPY_BYTES = (32 << 10, 512 << 10, 4 << 20, 64 << 20)
"""Sizes of the copied arrays: within the first cache, the second, the last, and beyond most."""

_CPU = Path("/sys/devices/system/cpu/cpu0/cache")


def measure_machine(
    *, window_s: float = WINDOW_S, precisions: tuple[str, ...] = PRECISIONS
) -> Machine:
    """Measure this machine; takes about 5 s."""
    count = cores()
    products, copies = [], []
    for precision in precisions:
        make = partial(_product, precision, _product_size(precision))
        one, together = (_best(make, n, window_s) for n in (1, count))
        products.append(
            ProductRate(precision=precision, one_core_flops=one, all_cores_flops=together)
        )
    for size in COPY_BYTES:
        one, together = (_best(partial(_copy, size), n, window_s) for n in (1, count))
        copies.append(CopyRate(array_bytes=size, one_core_bytes=one, all_cores_bytes=together))
    return Machine(
        processor=processor_name(),
        cores=count,
        memory_bytes=psutil.virtual_memory().total,
        caches=read_caches(),
        products=tuple(products),
        copies=tuple(copies),
        torch=torch.__version__,
        measured_at=time.time(),
    )


def read_caches(folder: Path = _CPU) -> tuple[Cache, ...]:
    """Caches of the first core as the kernel tells them; empty where it does not."""
    found = []
    for index in sorted(folder.glob("index*")):
        with suppress(OSError, ValueError):
            level, kind, size, shared = (
                (index / name).read_text().strip()
                for name in ("level", "type", "size", "shared_cpu_list")
            )
            cache = Cache(
                level=int(level), kind=kind, size_bytes=_size(size), shared_by=_count(shared)
            )
            found.append(cache)
    return tuple(found)


Work = Callable[[], float]  # does a piece of work and returns how much it was


def _product_size(precision: str) -> int:
    """Rows and columns of matrices that are not multiplied for too long."""
    work = _product(precision, SMALLEST_PRODUCT)
    work()
    begin = time.thread_time()
    work()
    took_s, size = time.thread_time() - begin, PRODUCT_SIZE
    while size > SMALLEST_PRODUCT and took_s * (size / SMALLEST_PRODUCT) ** 3 > LONGEST_PRODUCT_S:
        size //= 2
    return size


def _product(precision: str, size: int) -> Work:
    dtype = getattr(torch, precision)
    a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)

    def work() -> float:
        torch.mm(a, b, out=out)
        return 2.0 * size**3

    return work


def _copy(array_bytes: int) -> Work:
    source = torch.ones(array_bytes // 4)
    target = torch.zeros_like(source)
    times = max((4 << 20) // array_bytes, 1)
    sources, targets = [source] * times, [target] * times

    def work() -> float:
        # One call for many copies: Python's part of it must not hold the other threads up.
        torch._foreach_copy_(targets, sources)
        return 2.0 * array_bytes * times

    return work


def _best(make: Callable[[], Work], threads: int, window_s: float) -> float:
    works = [make() for _ in range(threads)]
    return max(_rate(works, window_s) for _ in range(WINDOWS))


def _rate(works: list[Work], window_s: float) -> float:
    """Work a second of one window, in seconds of each thread's own processor time.

    Waiting for a processor is not counted: somebody else's work says nothing of the machine.
    """
    rates = [0.0] * len(works)
    start = threading.Barrier(len(works))

    def run(number: int) -> None:
        torch.set_num_threads(1)  # of this thread alone
        work = works[number]
        work()
        start.wait()
        done, spent, begin = 0.0, 0.0, time.thread_time()
        end = time.perf_counter() + window_s
        while time.perf_counter() < end or spent <= 0:
            done += work()
            spent = time.thread_time() - begin
        rates[number] = done / spent

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def _size(text: str) -> int:
    """A size as the kernel writes it.

    >>> _size("48K"), _size("2M")
    (49152, 2097152)
    """
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:])
    return int(text[:-1]) * factor if factor else int(text)


def _count(listed: str) -> int:
    """How many processors a list of the kernel names.

    >>> _count("0-3,8,10-11")
    7
    """
    ends = [part.split("-") for part in listed.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)
