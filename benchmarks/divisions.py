"""Dividing rows or channels beside dividing the batch: time and bytes of a step, on two ranks.

Every division runs in a process group of its own, all in one command. A step is timed on rank 0
from the moment its images are there, so data loading is left out; `busy_ms` is each rank's
processor time, which other work on the machine hardly alters. Bytes are counted at the exchanges.

python benchmarks/divisions.py --networks slide --batches 1 10 100 1000
python benchmarks/divisions.py --networks wide --batches 4 --workers 4 --grids rows=4 cout=4
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import resource
import time
from statistics import median
from typing import Any

import sixfold
from sixfold import data as datasets
from sixfold.distributed.engines import open_engine
from sixfold.distributed.process_group import Communicator
from sixfold.training.config import TrainConfig
from sixfold.training.strategies.registry import build_strategy

NETWORKS: dict[str, dict[str, Any]] = {
    "slide": {"model": "slide", "data": "synthetic:{n}x3x32x32"},
    "cells": {"model": "cells", "data": "synthetic:{n}x1x256x256"},
    "wide": {
        "model": "vgg16",
        "model_args": "form=imagenet,batch_norm=false",
        "data": "synthetic:{n}x3x64x64",
    },
}
PRELOAD = ("sixfold.training.worker", "torch._dynamo")
DIVISIONS = {"batch": "batch=2", "rows": "rows=2", "cout": "cout=2", "cin": "cin=2"}


def steps(config: TrainConfig, comm: Communicator) -> dict[str, Any]:
    """Make steps; their times, bytes a step and peak memory of this rank."""
    import torch

    torch.set_num_threads(1)
    data = datasets.open_data(config.data)
    strategy: Any = build_strategy(comm, config, data)
    times: list[float] = []
    busy: list[float] = []
    sent = 0
    with datasets.prefetch(strategy.shards(0), depth=64) as shards:
        for number in range(strategy.budget.total_steps):
            comm.barrier()
            before = comm.traffic.bytes_sent
            begin, worked = time.perf_counter(), time.thread_time()
            strategy.train_step(number, shards, 1e-3)
            times.append(time.perf_counter() - begin)
            busy.append(time.thread_time() - worked)
            sent = comm.traffic.bytes_sent - before
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held = sum(parameter.numel() for parameter in strategy.step.model.parameters())
    cold = len(times) // 4
    return {
        "step_s": median(times[cold:]),
        "least_s": min(times[cold:]),
        "busy_s": median(busy[cold:]),
        "sent_bytes": sent,
        "peak_mib": used,
        "parameters": held,
    }


def measure(network: str, grid: str, workers: int, batch: int, count: int) -> list[dict[str, Any]]:
    """Steps of one network under one division, rank by rank."""
    chosen = {key: value.format(n=max(2 * batch, 8)) for key, value in NETWORKS[network].items()}
    config = sixfold.configure(
        **chosen,
        batch_size=batch,
        steps=count,
        workers=workers,
        strategy="model_parallel",
        grid=grid,
    )
    with contextlib.closing(open_engine("local", preload=PRELOAD)) as engine:
        group = engine.run_ranks(functools.partial(steps, config), workers)
    found: list[dict[str, Any]] = group.results
    return found


def main() -> None:
    """Measure in turns and print one line each, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["slide"], choices=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 10, 100, 1000])
    parser.add_argument("--grids", nargs="+", default=list(DIVISIONS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-images", type=int, default=4000, help="about so many images a cell")
    options = parser.parse_args()
    for network in options.networks:
        for batch in options.batches:
            count = min(max(options.max_images // batch, 2), 120)
            for name in options.grids:
                grid = DIVISIONS.get(name, name)
                ranks = measure(network, grid, options.workers, batch, count)
                line = {
                    "network": network,
                    "B": batch,
                    "grid": grid,
                    "median_ms": round(1e3 * ranks[0]["step_s"], 3),
                    "least_ms": round(1e3 * ranks[0]["least_s"], 3),
                    "busy_ms": [round(1e3 * rank["busy_s"], 3) for rank in ranks],
                    "sent_bytes": [rank["sent_bytes"] for rank in ranks],
                    "peak_mib": [round(rank["peak_mib"]) for rank in ranks],
                    "parameters": [rank["parameters"] for rank in ranks],
                }
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
