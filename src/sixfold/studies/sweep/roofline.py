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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sixfold.studies.sweep.delay import DelayResult, Session


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


@dataclass(frozen=True, kw_only=True)
class DrawnRoof:
    """A ceiling with its values at the places of a panel."""

    name: str
    workers: int
    peak_flops: float
    overhead_s: float
    ridge_flops: float
    flops: list[float]


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


@dataclass(frozen=True, kw_only=True)
class Point(Placed):
    """The same beside its ceilings."""

    part_of_machine: float  # of the machine's roof
    spark_flops: float  # the ceiling of jobs of such tasks
    times_spark: float  # how many times that was reached
    # What would be left if every step, as fast as it was measured, were a job with its weights
    # broadcast and its gradients returned; where its bytes are known and such jobs were measured.
    job_per_step_flops: float | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The roofs of one number of workers, and the points beneath."""

    workers: int
    task_flops: list[float]  # places at which roofs are drawn
    roofs: list[DrawnRoof]
    points: list[Point]


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What the machine's roof is of."""

    processor: str
    cores: int


@dataclass(frozen=True, kw_only=True)
class RooflineResult:
    """The roofline of Spark."""

    what: str = "roofline"
    delay: str  # directory of the sweep over delays
    sessions: list[Session]
    machine: Processor
    precision: str
    panels: list[Panel]
    left_out: list[str]  # files that hold nothing which can be placed
    versions: dict[str, str]
    report: str


def roofs(
    delay: DelayResult, workers: int, peak_flops: float, sizes: Sequence[float]
) -> list[Roof]:
    """The machine's roof, and Spark's for jobs that move nothing and some numbers of bytes.

    `peak_flops` is that of one worker while all are busy.
    """
    at = {"n": float(workers), "m": float(workers)}
    overheads = {
        "machine": 0.0,
        "Spark job, nothing moved": delay.overhead_s("empty", {**at, "size": 0.0}),
    }
    for size in sizes:
        name = f"Spark job, {size / 2**20:g} MB shuffled"
        overheads[name] = delay.overhead_s("shuffle", {**at, "size": size})
    return [
        Roof(name=name, workers=workers, peak_flops=peak_flops, overhead_s=overhead_s)
        for name, overhead_s in overheads.items()
    ]


def job_per_step_s(delay: DelayResult, workers: int, size_bytes: float) -> float | None:
    """Seconds that a job adds to a step: weights broadcast, a gradient back from every task.

    None if broadcasts or results were not measured.
    """
    at = {"n": float(workers), "m": float(workers)}
    try:
        sent = delay.overhead_s("broadcast", {**at, "size": size_bytes})
        sent -= delay.overhead_s("broadcast", {**at, "size": 0.0})
        return sent + delay.overhead_s("result", {**at, "size": workers * size_bytes})
    except KeyError:
        return None


def place(placed: Placed, delay: DelayResult, roof: Roof, machine: Roof) -> Point:
    """A point beside its ceilings."""
    ceiling, per_step = roof.attainable_flops(placed.task_flops), None
    if placed.step_bytes:
        seconds = job_per_step_s(delay, placed.workers, placed.step_bytes)
        if seconds is not None:
            work = placed.workers * placed.task_flops
            per_step = work / (seconds + work / placed.flops)
    return Point(
        **vars(placed),
        part_of_machine=placed.flops / machine.attainable_flops(placed.task_flops),
        spark_flops=ceiling,
        times_spark=placed.flops / ceiling,
        job_per_step_flops=per_step,
    )


def panel(delay: DelayResult, workers: int, peak_flops: float, placed: Sequence[Placed]) -> Panel:
    """The roofs of one number of workers, and what was measured with so many."""
    shuffled = {float(job.moved_bytes) for job in delay.points if job.kind == "shuffle"}
    found = roofs(delay, workers, peak_flops, sorted(shuffled))
    at = curve_places(found, placed)
    return Panel(
        workers=workers,
        task_flops=at,
        roofs=[
            DrawnRoof(
                **vars(roof),
                ridge_flops=roof.ridge_flops,
                flops=[roof.attainable_flops(value) for value in at],
            )
            for roof in found
        ],
        points=[place(point, delay, found[1], found[0]) for point in placed],
    )


def curve_places(found: Sequence[Roof], placed: Sequence[Placed]) -> list[float]:
    """Operations a task at which roofs are drawn: from the least that matters to the most."""
    ridges = [roof.ridge_flops for roof in found if roof.overhead_s > 0]
    known = [*ridges, *(point.task_flops for point in placed if point.task_flops > 0)] or [1e9]
    low, high = np.log10(min(known)) - 1.0, np.log10(max([*known, 10 * max(ridges or [1e9])])) + 0.5
    return [float(value) for value in np.logspace(low, high, 80)]
