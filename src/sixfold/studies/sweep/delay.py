"""What Spark adds to a job: figures of every job, and the laws of its delay.

Two outcomes. The *job* is what the driver waits for, its own part (closures, broadcasts, reading
results) included; since tasks do next to nothing, all of it is overhead. The *delay* is the
scheduler delay of a task, mean over the tasks of a job, from Spark's own events.

Two laws of each kind of job, over n workers, m tasks and `size` bytes moved:

    Ernest          T = a + b size/n + c log n + d n                   where m = n
    load/overhead   T = job + task m + wave ceil(m/n) + byte size

The second says where the time goes: what any job costs, what the driver spends on each task one
after another, what each round of tasks costs, and what a byte costs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.core.run_directory import typed
from sixfold.studies.sweep.delay_plan import KINDS
from sixfold.studies.sweep.events import TASK_PARTS
from sixfold.studies.sweep.fits import ERNEST, FittedLaw, Law, Setting, Spread, fit

LEAST_DELAY_S = 0.5e-3
"""Half of an event's millisecond: a mean delay below it is taken as this, so that relative errors
have something to relate to."""

LOAD = Law(
    name="load/overhead",
    formula="T = job + task m + wave ceil(m/n) + byte size",
    features={
        "job_s": lambda _: 1.0,
        "task_s": lambda at: at["m"],
        "wave_s": lambda at: float(math.ceil(at["m"] / at["n"])),
        "byte_s": lambda at: at["size"],
    },
)


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """One run of a job."""

    wall_s: float  # that the driver waited
    delay_s: float  # scheduler delay of a task


@dataclass(frozen=True, kw_only=True)
class DelayPoint:
    """A job that was measured in one session."""

    workers: int  # n
    kind: str  # of its payload
    tasks: int  # m
    payload_bytes: int  # as the setting says
    moved_bytes: int  # in all
    wall_s: Spread  # that the driver waited
    job_s: Spread  # from submission to completion
    launch_wait_s: float  # from a stage's submission to its first launch
    delay_s: Spread  # scheduler delay of a task
    longest_delay_s: float
    parts: dict[str, float]  # mean seconds of a task, by `TASK_PARTS`
    shuffled_bytes: int
    result_bytes: int
    tasks_run: int
    runs: list[JobRun]

    @property
    def setting(self) -> Setting:
        """What the laws' features are made of."""
        n, m, size = float(self.workers), float(self.tasks), float(self.moved_bytes)
        return {"n": n, "m": m, "size": size}

    def samples(self, outcome: str) -> list[float]:
        """Times of all runs that a law is fitted to."""
        if outcome == "job":
            return [run.wall_s for run in self.runs]
        return [max(run.delay_s, LEAST_DELAY_S) for run in self.runs]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A Spark session that was measured."""

    workers: int
    master: str
    session_s: float  # that it took to start


@dataclass(frozen=True, kw_only=True)
class DelayResult:
    """What a sweep over Spark's delays has measured."""

    what: str = "delay"
    sessions: list[Session]
    points: list[DelayPoint]
    laws: list[FittedLaw]

    def overhead_s(self, kind: str, setting: Setting) -> float:
        """Seconds that Spark adds to a job of some kind, by its law; a KeyError if not measured.

        The setting is `n` workers, `m` tasks, `size` bytes.
        """
        wanted = LOAD.name, "job", kind
        for law in self.laws:
            if (law.law, law.outcome, law.kind) == wanted:
                return sum(law.value(name) * made(setting) for name, made in LOAD.features.items())
        raise KeyError(kind)


def delay_result(found: Sequence[Mapping[str, Any]], draws: int) -> DelayResult:
    """The figures of a sweep over delays, from what `measure_session` has returned."""
    points = [_point(session["workers"], one) for session in found for one in session["points"]]
    laws: list[FittedLaw] = []
    for kind in KINDS:
        # Every kind is measured against jobs that move nothing.
        own = [point for point in points if point.kind in (kind, "empty")]
        if any(point.kind == kind for point in own):
            laws += _laws(kind, own, draws)
    sessions = [typed(Session, session) for session in found]
    return DelayResult(sessions=sessions, points=points, laws=laws)


def _point(workers: int, point: Mapping[str, Any]) -> DelayPoint:
    runs = point["runs"]

    def of(name: str) -> list[float]:
        return [run[name] for run in runs]

    delays = [run["parts"]["scheduler_delay"] for run in runs]
    return DelayPoint(
        workers=workers,
        **{name: point[name] for name in ("kind", "tasks", "payload_bytes", "moved_bytes")},
        wall_s=Spread.of(of("wall_s")),
        job_s=Spread.of(of("job_s")),
        launch_wait_s=float(np.mean(of("launch_wait_s"))),
        delay_s=Spread.of(delays),
        longest_delay_s=max(of("longest_delay_s")),
        parts={name: float(np.mean([run["parts"][name] for run in runs])) for name in TASK_PARTS},
        shuffled_bytes=int(np.median(of("shuffled_bytes"))),
        result_bytes=int(np.median(of("result_bytes"))),
        tasks_run=int(np.median(of("tasks_run"))),
        runs=[
            JobRun(wall_s=wall_s, delay_s=delay_s)
            for wall_s, delay_s in zip(of("wall_s"), delays, strict=True)
        ],
    )


def _laws(kind: str, own: Sequence[DelayPoint], draws: int) -> Iterator[FittedLaw]:
    square = [point for point in own if point.tasks == point.workers]
    for outcome in ("job", "delay"):
        yield _fitted(kind, outcome, LOAD, own, draws)
        if len({point.workers for point in square}) > 1:
            yield _fitted(kind, outcome, ERNEST, square, draws)


def _fitted(kind: str, outcome: str, law: Law, own: Sequence[DelayPoint], draws: int) -> FittedLaw:
    settings, samples = [one.setting for one in own], [one.samples(outcome) for one in own]
    names = ("kind", "workers", "tasks", "moved_bytes")
    places = [{name: getattr(point, name) for name in names} for point in own]
    made = fit(law, settings, samples, draws=draws)
    return made.fitted(settings, samples, places, kind=kind, outcome=outcome)
