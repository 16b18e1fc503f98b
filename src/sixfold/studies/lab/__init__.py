"""Laboratory: ways to divide the work that training does not use, as real Spark jobs, measured.

Nothing is imported here but what starting a study needs, so that the command line's help stays
fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["NAMES", "run"]

NAMES = {
    "loopnest": "the convolution's loops divided in seven ways, beside the long-lived job",
    "matmul": "matrix products divided in three ways, and a model of when dividing pays",
    "activations": "forward and backward as two stages, with the activations kept in between",
    "job-per-step": "SGD with one Spark job for every step, beside the long-lived job",
}
"""Study -> what it measures."""


def run(name: str, config: Any, *, show: Callable[[str], None]) -> int:
    """Run a study.

    Args:
        name: one of `NAMES`.
        config: its settings, of the class that `sixfold.studies.lab.config` has for it.
        show: is given lines for a person to read: progress, then tables and verdict.

    Returns:
        The exit code: 0, or 1 if a result was wrong.

    Raises:
        UserError: if the settings make no sense, or there is no Spark to be had.
        RunError: if a job failed.
    """
    from sixfold.studies.lab.studies import run_study

    return run_study(name, config, show=show)
