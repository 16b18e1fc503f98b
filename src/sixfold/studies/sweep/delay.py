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

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.studies.sweep.delay_plan import KINDS
from sixfold.studies.sweep.events import TASK_PARTS
from sixfold.studies.sweep.fits import ERNEST, Fit, Law, fit
from sixfold.studies.sweep.scaling import spread

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
class DelayPoint:
    """A job that was measured in one session."""

    workers: int  # n
    tasks: int  # m
    kind: str  # of its payload
    moved_bytes: int  # in all
    wall_s: tuple[float, ...]  # that the driver waited, each repeat
    delay_s: tuple[float, ...]  # scheduler delay of a task, each repeat

    @property
    def setting(self) -> dict[str, float]:
        """What the laws' features are made of."""
        return {
            "n": float(self.workers),
            "m": float(self.tasks),
            "size": float(self.moved_bytes),
        }


def delay_result(found: Sequence[Mapping[str, Any]], draws: int) -> dict[str, Any]:
    """The figures of a sweep over delays."""
    rows = [_row(session["workers"], point) for session in found for point in session["points"]]
    points = [_point(row) for row in rows]
    laws = []
    for kind in KINDS:
        # Every kind is measured against jobs that move nothing.
        own = [point for point in points if point.kind in (kind, "empty")]
        if any(point.kind == kind for point in own):
            laws += _laws(kind, own, draws)
    return {
        "what": "delay",
        "sessions": [
            {name: session[name] for name in ("workers", "master", "session_s")}
            for session in found
        ],
        "points": rows,
        "laws": laws,
    }


def _row(workers: int, point: Mapping[str, Any]) -> dict[str, Any]:
    runs = point["runs"]
    return {
        "workers": workers,
        **{name: point[name] for name in ("kind", "tasks", "payload_bytes", "moved_bytes")},
        "wall_s": spread([run["wall_s"] for run in runs]),
        "job_s": spread([run["job_s"] for run in runs]),
        "launch_wait_s": float(np.mean([run["launch_wait_s"] for run in runs])),
        "delay_s": spread([run["parts"]["scheduler_delay"] for run in runs]),
        "longest_delay_s": max(run["longest_delay_s"] for run in runs),
        "parts": {
            name: float(np.mean([run["parts"][name] for run in runs])) for name in TASK_PARTS
        },
        "shuffled_bytes": int(np.median([run["shuffled_bytes"] for run in runs])),
        "result_bytes": int(np.median([run["result_bytes"] for run in runs])),
        "tasks_run": int(np.median([run["tasks_run"] for run in runs])),
        "runs": [
            {"wall_s": run["wall_s"], "delay_s": run["parts"]["scheduler_delay"]} for run in runs
        ],
    }


def _point(row: Mapping[str, Any]) -> DelayPoint:
    return DelayPoint(
        workers=row["workers"],
        tasks=row["tasks"],
        kind=row["kind"],
        moved_bytes=row["moved_bytes"],
        wall_s=tuple(run["wall_s"] for run in row["runs"]),
        delay_s=tuple(max(run["delay_s"], LEAST_DELAY_S) for run in row["runs"]),
    )


def _laws(kind: str, own: Sequence[DelayPoint], draws: int) -> list[dict[str, Any]]:
    found = []
    for outcome in ("job", "delay"):
        found.append(_told(kind, outcome, LOAD, own, draws))
        square = [point for point in own if point.tasks == point.workers]
        if len({point.workers for point in square}) > 1:
            found.append(_told(kind, outcome, ERNEST, square, draws))
    return found


def _told(
    kind: str, outcome: str, law: Law, own: Sequence[DelayPoint], draws: int
) -> dict[str, Any]:
    settings = [point.setting for point in own]
    samples = [point.wall_s if outcome == "job" else point.delay_s for point in own]
    made: Fit = fit(law, settings, samples, draws=draws)
    rows = []
    for number, (point, sample) in enumerate(zip(own, samples, strict=True)):
        ends = made.interval(point.setting)
        measured = float(np.median(sample))
        rows.append(
            {
                "kind": point.kind,
                "workers": point.workers,
                "tasks": point.tasks,
                "moved_bytes": point.moved_bytes,
                "measured_s": spread(sample),
                "predicted_s": made.predict(point.setting),
                "low_s": None if ends is None else ends[0],
                "high_s": None if ends is None else ends[1],
                "held_out_s": (1 + float(made.held_out[number])) * measured
                if len(made.held_out)
                else None,
            }
        )
    return {
        **made.plain(),
        "kind": kind,
        "outcome": outcome,
        "exact": len(own) <= len(made.coefficients),
        "points": rows,
    }


def overhead_s(laws: Sequence[Mapping[str, Any]], kind: str, setting: Mapping[str, float]) -> float:
    """Seconds that Spark adds to a job, by the load/overhead law of its kind.

    Args:
        laws: as in `delay_result`.
        kind: of the payload.
        setting: `n` workers, `m` tasks, `size` bytes.

    Raises:
        KeyError: if jobs of that kind were not measured.
    """
    law = next(
        (
            law
            for law in laws
            if (law["law"], law["outcome"], law["kind"]) == (LOAD.name, "job", kind)
        ),
        None,
    )
    if law is None:
        raise KeyError(kind)
    values: dict[str, float] = {one["name"]: one["value"] for one in law["coefficients"]}
    return sum(values[name] * feature(setting) for name, feature in LOAD.features.items())
