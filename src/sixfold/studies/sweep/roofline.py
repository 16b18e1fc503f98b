"""The roofline of Spark: the ceiling that jobs put over what a machine can compute.

A job of m = n tasks of w floating-point operations each, on n workers whose cores reach `peak`
operations a second while n of them are busy, and which moves `size` bytes, takes at least

    T(w) = overhead(n, n, size) + w / peak

so that it reaches no more than

    F(w) = n w / T(w)   ->  n peak for large tasks,  n w / overhead for small ones.

On logarithmic axes that is a roof with a slanted part, as S. Williams, A. Waterman, D. Patterson,
"Roofline", CACM 2009, have for memory, with operations a task in the place of operations a byte.
The ridge is the task of which half the time is overhead: w = peak overhead. `overhead` is the
load/overhead law that `sixfold sweep delay` has fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.studies.sweep.delay import overhead_s


@dataclass(frozen=True, kw_only=True)
class Roof:
    """A ceiling over tasks that compute."""

    name: str
    workers: int  # n
    peak_flops: float  # of one worker while n are busy, operations a second
    overhead_s: float  # of a job; 0: the machine's own roof

    def attainable_flops(self, task_flops: float) -> float:
        """Operations a second of all workers together, in jobs of such tasks.

        >>> roof = Roof(name="", workers=2, peak_flops=1e9, overhead_s=1.0)
        >>> roof.attainable_flops(1e9), roof.ridge_flops
        (1000000000.0, 1000000000.0)
        """
        return self.workers * task_flops / (self.overhead_s + task_flops / self.peak_flops)

    @property
    def ridge_flops(self) -> float:
        """Operations of the task of which half the time is overhead."""
        return self.peak_flops * self.overhead_s

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "workers": self.workers,
            "peak_flops": self.peak_flops,
            "overhead_s": self.overhead_s,
            "ridge_flops": self.ridge_flops,
        }


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Something that was measured, as a place on the roofline."""

    name: str
    group: str  # what it belongs to: a colour
    workers: int  # n
    task_flops: float  # operations of one task: of a rank in a step, or of a task of a job
    flops: float  # operations a second that all workers reached together
    step_bytes: float = 0.0  # that a step would have to move if each were a job; 0 if not known
    jobs: bool = False  # whether each task was one of a Spark job, so that the ceiling holds for it


def roofs(
    delay: Mapping[str, Any], workers: int, peak_flops: float, sizes: Sequence[float]
) -> list[Roof]:
    """The machine's roof, and Spark's for jobs that move nothing and so many bytes.

    Args:
        delay: result of a sweep over delays.
        workers: n.
        peak_flops: of one worker while n are busy.
        sizes: bytes that are shuffled, each with a roof of its own.
    """
    at = {"n": float(workers), "m": float(workers)}
    found = [
        Roof(name="machine", workers=workers, peak_flops=peak_flops, overhead_s=0.0),
        Roof(
            name="Spark job, nothing moved",
            workers=workers,
            peak_flops=peak_flops,
            overhead_s=overhead_s(delay["laws"], "empty", {**at, "size": 0.0}),
        ),
    ]
    for size in sizes:
        found.append(
            Roof(
                name=f"Spark job, {size / 2**20:g} MB shuffled",
                workers=workers,
                peak_flops=peak_flops,
                overhead_s=overhead_s(delay["laws"], "shuffle", {**at, "size": size}),
            )
        )
    return found


def job_per_step_s(delay: Mapping[str, Any], workers: int, size_bytes: float) -> float | None:
    """Overhead of a step that is a job: weights broadcast, a gradient back from every task.

    Args:
        delay: result of a sweep over delays.
        workers: n, with a task for each.
        size_bytes: of the weights, and of a gradient.

    Returns:
        Seconds; None if broadcasts or results were not measured.
    """
    at = {"n": float(workers), "m": float(workers)}
    try:
        sent = overhead_s(delay["laws"], "broadcast", {**at, "size": size_bytes})
        sent -= overhead_s(delay["laws"], "broadcast", {**at, "size": 0.0})
        return sent + overhead_s(delay["laws"], "result", {**at, "size": workers * size_bytes})
    except KeyError:
        return None


def place(placed: Placed, delay: Mapping[str, Any], roof: Roof, machine: Roof) -> dict[str, Any]:
    """A point beside its ceilings.

    Returns:
        `part_of_machine`: of the machine's roof; `spark_flops`: the ceiling of jobs of such tasks;
        `times_spark`: how many times that was reached; `job_per_step_flops`: what would be left
        if every step, as fast as it was measured, were a job with its weights broadcast and its
        gradients returned; where its bytes are known and these jobs were measured.
    """
    ceiling = roof.attainable_flops(placed.task_flops)
    found: dict[str, Any] = {
        "name": placed.name,
        "group": placed.group,
        "workers": placed.workers,
        "task_flops": placed.task_flops,
        "flops": placed.flops,
        "jobs": placed.jobs,
        "part_of_machine": placed.flops / machine.attainable_flops(placed.task_flops),
        "spark_flops": ceiling,
        "times_spark": placed.flops / ceiling,
    }
    if placed.step_bytes:
        seconds = job_per_step_s(delay, placed.workers, placed.step_bytes)
        if seconds is not None:
            work = placed.workers * placed.task_flops
            found["job_per_step_flops"] = work / (seconds + work / placed.flops)
    return found


def curve_places(roofs_: Sequence[Roof], placed: Sequence[Placed]) -> list[float]:
    """Operations a task at which roofs are drawn: from the least that matters to the most."""
    ridges = [roof.ridge_flops for roof in roofs_ if roof.overhead_s > 0]
    known = [*ridges, *(point.task_flops for point in placed if point.task_flops > 0)] or [1e9]
    low, high = np.log10(min(known)) - 1.0, np.log10(max([*known, 10 * max(ridges or [1e9])])) + 0.5
    return [float(value) for value in np.logspace(low, high, 80)]
