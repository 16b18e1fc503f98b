"""`sixfold prepare` with 1 and 2 workers, taken in turns, and the rate of loading what it made.

python benchmarks/preparation.py cifar10:/data/cifar
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

import sixfold
from sixfold.data import BatchMaker, open_data, parse_augment
from sixfold.data.config import DataConfig, PreparationConfig, PrepareConfig
from sixfold.distributed.config import EngineConfig

SHARD = 31
"""Images of a logical shard of a batch of 1,000 or 2,000."""


def prepare(data: str, folder: Path, workers: int) -> float:
    """Images per second of the whole command."""
    made = sixfold.prepare(
        PrepareConfig(
            preparation=PreparationConfig(source=data, destination=str(folder)),
            engine=EngineConfig(workers=workers),
        )
    )
    return float(made["images_per_s"])


def load(folder: Path, batches: int = 2000) -> float:
    """Images per second that one thread reads, augments and normalises."""
    data = open_data(DataConfig(data=f"shards:{folder}"))
    maker, augment = BatchMaker(data), parse_augment("crop:4,flip")
    random = np.random.default_rng(0)
    picks = [random.integers(0, len(data.train), SHARD) for _ in range(batches)]
    begin = time.perf_counter()
    for number, indices in enumerate(picks):
        maker(data.train, indices, augment=augment, key=number)
    return batches * SHARD / (time.perf_counter() - begin)


def main() -> None:
    """Measure in turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    loads = []
    for _ in range(options.repeats):
        for workers, found in rates.items():
            with tempfile.TemporaryDirectory() as folder:
                found.append(prepare(options.data, Path(folder), workers))
                loads.append(load(Path(folder)))
    for workers, found in rates.items():
        print(f"prepare, {workers} workers: {median(found):8,.0f} images/s", found)
    print(f"loading, one thread: {median(loads):8,.0f} images/s")


if __name__ == "__main__":
    main()
