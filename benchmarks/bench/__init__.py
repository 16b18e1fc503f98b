"""Benchmarks: each measures Sixfold and its peers in the same run.

Nothing is imported here but what starting one needs, so that the command line's help stays fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from benchmarks.bench.options import BenchConfig

__all__ = ["NAMES", "BenchConfig", "run"]

NAMES = {
    "train": "images/s of training, beside PyTorch and DistributedDataParallel",
    "scaling": "several workers beside one, and beside as many independent runs; memory",
    "kernels": "layers forward and backward, beside PyTorch and the machine's limit",
    "allreduce": "sums over the ranks of this host, beside gloo",
    "input": "loading of images, beside torch's DataLoader and beside training",
    "startup": "help and first step, beside torchrun",
    "tune": "micro-batches of a network on this machine, for `sixfold train --tuning`",
}
"""Benchmark -> what it measures."""


def run(name: str, options: BenchConfig, *, show: Callable[[str], None]) -> int:
    """Run a benchmark.

    Args:
        name: one of `NAMES`.
        options: settings of all benchmarks.
        show: is given lines for a person to read: progress, then the table.

    Returns:
        The exit code: 0.

    Raises:
        UserError: if there is no such benchmark, or its settings make no sense.
        RunError: if Sixfold itself could not be measured. A peer that cannot be is reported.
    """
    from benchmarks.bench.options import parts_problems
    from sixfold.core.errors import UserError
    from sixfold.training.worker import FIRST_TIMED_STEP

    if name not in NAMES:
        raise UserError(f"unknown benchmark {name!r}: choose {', '.join(NAMES)}")
    found = parts_problems(name, options, FIRST_TIMED_STEP)
    if found:
        raise UserError(found)
    module = importlib.import_module(f"benchmarks.bench.{name}")
    benchmark = getattr(module, f"run_{name}_bench")
    if name == "train":
        peers = [peer.strip() for peer in options.parts.peers.split(",") if peer.strip()]
        benchmark(options.bench, show=show, peers=peers)
    elif name in ("scaling", "startup"):
        benchmark(options.bench, show=show)
    else:
        benchmark(options.bench, options.parts, show=show)
    return 0
