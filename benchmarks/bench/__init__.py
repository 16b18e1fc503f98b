"""Benchmarks: each measures Sixfold and its peers in the same run.

Nothing is imported here but what starting one needs, so that the command line's help stays fast.
"""

from __future__ import annotations

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
    _start(name, options, show)
    return 0


def _start(name: str, options: BenchConfig, show: Callable[[str], None]) -> None:
    """Import what a benchmark needs, and run it."""
    if name == "train":
        from benchmarks.bench.networks import run_networks_bench

        run_networks_bench(options.bench, options.parts, show=show)
    elif name == "scaling":
        from benchmarks.bench.scaling import run_scaling_bench

        run_scaling_bench(options.bench, show=show)
    elif name == "kernels":
        from benchmarks.bench.kernels import run_kernels_bench

        run_kernels_bench(options.bench, options.parts, show=show)
    elif name == "allreduce":
        from benchmarks.bench.allreduce import run_allreduce_bench

        run_allreduce_bench(options.bench, options.parts, show=show)
    elif name == "input":
        from benchmarks.bench.input import run_input_bench

        run_input_bench(options.bench, options.parts, show=show)
    elif name == "tune":
        from benchmarks.bench.tune import run_tune_bench

        run_tune_bench(options.bench, options.parts, show=show)
    else:
        from benchmarks.bench.startup import run_startup_bench

        run_startup_bench(options.bench, show=show)
