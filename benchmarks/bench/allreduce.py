"""The sum of a vector over the ranks of this host, beside gloo.

The ranks are those of the local engine. In the same processes they also form a process group of
gloo, over loopback. Both add the same vectors; they take turns. The result of ours is the same bits
whatever the number of ranks; gloo's is not.

The limit is one copy of the vector into memory and one out of it, by one core.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from benchmarks.bench.comparison import Comparison
from benchmarks.bench.options import PartsBenchConfig, TrainBenchConfig, parse_sizes, written_size
from benchmarks.bench.publish import Show, begin, publish
from sixfold.distributed.collectives import tree_all_reduce
from sixfold.distributed.engines import open_engine
from sixfold.distributed.logical_shards import Node
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread

SAMPLE_S = 0.15
"""About how long a sample lasts: some hundred sums of a middling vector."""


def run_allreduce_bench(
    config: TrainBenchConfig, parts: PartsBenchConfig, *, show: Show
) -> Comparison:
    """Measure, show the table, and write `allreduce.json` and `allreduce.html`."""
    place = begin("allreduce", config.out)
    sizes = parse_sizes(parts.sizes)
    found = Comparison(
        title=f"All-reduce of float32 between {config.workers} ranks of this host",
        unit="microseconds",
        form=",.0f",
        less_is_better=True,
        what={
            "sixfold": "sixfold.distributed.collectives.tree_all_reduce, local engine",
            "gloo": "torch.distributed.all_reduce, gloo over loopback, in the same processes",
        },
        limit_name="one copy in and one copy out by one core",
    )
    with tempfile.TemporaryDirectory(prefix="sixfold-bench-") as folder:
        store = str(Path(folder, "store"))
        measure = partial(measure_rank, sizes, config.repeats, store)
        with contextlib.closing(open_engine("local", preload=("torch",))) as engine:
            measured = engine.run_ranks(measure, config.workers).results[0]
    for row in measured:
        case = written_size(row["bytes"])
        found.extend("sixfold", case, row["sixfold"])
        found.extend("gloo", case, row["gloo"])
        found.limits[case] = statistics.median(row["limit"])
    publish(place, config, [found], show)
    return found


def measure_rank(
    sizes: list[int], repeats: int, store: str, comm: Communicator
) -> list[dict[str, Any]]:
    """What every rank does; rank 0's times count, all ranks begin and end a sample together.

    Args:
        sizes: bytes of the vectors.
        repeats: samples of each.
        store: file through which gloo's processes meet.
        comm: the process group.
    """
    with one_thread():
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{store}",
            rank=comm.rank,
            world_size=comm.size,
            timeout=timedelta(seconds=60),
        )
        try:
            return [_measure_size(size // 4, repeats, comm) for size in sizes]
        finally:
            distributed.destroy_process_group()


def _measure_size(length: int, repeats: int, comm: Communicator) -> dict[str, Any]:
    """Samples of one size, in microseconds a sum."""
    vector = torch.ones(length)
    own, out = vector.numpy(), np.empty(length, np.float32)
    node = Node(0, comm.rank)

    def ours() -> None:
        tree_all_reduce(comm, [(node, own)], comm.size, out=out)

    def gloo() -> None:
        distributed.all_reduce(vector)

    aside = np.empty_like(own)

    def copies() -> None:
        aside[:] = own
        out[:] = aside

    contenders: dict[str, Callable[[], None]] = {"sixfold": ours, "gloo": gloo, "limit": copies}
    times: dict[str, Any] = {name: [] for name in contenders}
    counts = {name: _count(comm, call) for name, call in contenders.items()}
    for _ in range(repeats):
        for name, call in contenders.items():
            vector.fill_(1.0)
            times[name].append(_sample(comm, call, counts[name]))
    return {"bytes": 4 * length, **times}


def _count(comm: Communicator, call: Callable[[], None]) -> int:
    """How many calls make a sample: rank 0 decides for all."""
    for _ in range(3):
        call()
    count = np.array([max(5, round(SAMPLE_S / (_sample(comm, call, 5) * 1e-6)))], np.int64)
    others = list(range(1, comm.size))
    if comm.rank == 0:
        comm.exchange(dict.fromkeys(others, count), {})
    else:
        comm.exchange({}, {0: count})
    return int(count[0])


def _sample(comm: Communicator, call: Callable[[], None], count: int) -> float:
    """Microseconds of the middle one of so many calls: another process breaks into few of them."""
    comm.barrier()
    times = [time.perf_counter()]
    for _ in range(count):
        call()
        times.append(time.perf_counter())
    return statistics.median(after - before for before, after in pairwise(times)) * 1e6
