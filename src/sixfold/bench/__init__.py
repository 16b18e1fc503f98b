"""Benchmarks: each measures Sixfold and its peers in the same run.

Nothing is imported here but what starting one needs, so that the command line's help stays fast.
"""

from __future__ import annotations

from collections.abc import Callable

from sixfold.bench.options import BenchConfig

__all__ = ["NAMES", "BenchConfig", "run"]

NAMES = {
    "train": "images/s of training, beside PyTorch eager and TorchDistributor with DDP",
    "allreduce": "sums over the ranks of this host, beside gloo",
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
    from sixfold.bench.options import misplaced, parts_problems
    from sixfold.errors import UserError

    if name not in NAMES:
        raise UserError(f"unknown benchmark {name!r}: choose {', '.join(NAMES)}")
    found = misplaced(name, options) if name == "train" else parts_problems(name, options)
    if found:
        raise UserError(found)
    if name == "train":
        from sixfold.bench.train import run_train_bench

        run_train_bench(options.bench, show=show)
    elif name == "allreduce":
        from sixfold.bench.allreduce import run_allreduce_bench

        run_allreduce_bench(options.bench, options.parts, show=show)
    return 0
