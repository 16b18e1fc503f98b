"""Images a second that one core augments, for every augmentation by itself.

python benchmarks/augmentation.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from sixfold.data import parse_augment
from sixfold.data.augmentation.mixing import combine, paste
from sixfold.data.augmentation.registry import AUGMENTATIONS
from sixfold.distributed.process_group.malloc import retain_freed_memory

SIZES = ((256, 32), (16, 224))
"""Images that are augmented together, and pixels a side."""
REPEATS = 9


def rate(name: str, count: int, side: int) -> float:
    """Images per second of processor time, the median of several batches."""
    augment = parse_augment(name)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
    normalised = pixels.astype(np.float32)

    def mixed(key: int) -> None:
        mix = augment.mix(count, (side, side), key)
        assert mix is not None
        paste(pixels, mix)
        combine(normalised, mix)

    work: Callable[[int], object] = mixed
    if not augment.mixes:
        work = lambda key: augment.apply(pixels, key)  # noqa: E731
    spent = []
    for key in range(REPEATS):
        begin = time.process_time()
        work(key)
        spent.append(time.process_time() - begin)
    return count / median(spent)


def main() -> None:
    """Print a line for each."""
    retain_freed_memory()  # as ranks do
    for name in AUGMENTATIONS:
        found = "  ".join(f"{side}x{side}: {rate(name, n, side):>9,.0f}" for n, side in SIZES)
        print(f"{name:<14}{found}")


if __name__ == "__main__":
    main()
