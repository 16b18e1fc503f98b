"""From what a process group's ranks measured to the figures of a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sixfold.perf.plan.calibration import Machine, Network, Point
from sixfold.perf.plan.profiling_run import ProfilingCase
from sixfold.perf.plan.samples import spread_of

FEWEST = 8
"""Steps of a rehearsal from which a spread can be read."""
QUIET = 1.25
"""Where steps take longer than so many times their processor time, other programs make the spread
by the clock, and that of processor time is taken."""

Results = Sequence[dict[str, Any]]


def machine_of(
    results: Results, *, name: str, engine: str, slots: int, startup_s: float, job_s: float
) -> Machine:
    """The machine's figures.

    Args:
        results: of `calibrate_rank`, by rank.
        name: processor and engine.
        engine: on which they ran.
        slots: ranks that can compute at the same time.
        startup_s: until they had met.
        job_s: of an empty job.
    """
    hosts = len({found["host"] for found in results})
    return Machine(
        name=name,
        engine=engine,
        slots=slots,
        ranks=len(results),
        hosts=hosts,
        available_bytes=min(found["available_bytes"] for found in results),
        base_bytes=max(found["base_bytes"] for found in results),
        adding_bytes_per_s=float(np.median([found["adding_bytes_per_s"] for found in results])),
        startup_s=round(startup_s, 4),
        opening_s=round(max(found.get("opening_s", 0.0) for found in results), 4),
        job_s=round(job_s, 5),
        links=results[0]["links"],
    )


def network_of(results: Results, cases: Sequence[ProfilingCase]) -> Network:
    """The network's figures; scenes for which there was no time are left out."""
    points: list[Point] = []
    groups: list[list[float]] = []
    for number, case in enumerate(cases):
        played = [found["scenes"][number] for found in results if found["scenes"][number]]
        if not played:
            continue
        points.append(_point(case, played))
        for one in played:
            clock, processor, _ = np.asarray(one["steps_s"]).T
            if len(clock) >= FEWEST:
                quiet = float(np.median(clock)) < QUIET * float(np.median(processor))
                groups.append((clock if quiet else processor).tolist())
    first = results[0]
    return Network(
        payload_bytes=first.get("payload_bytes", 0),
        parameter_bytes=first.get("parameter_bytes", 0),
        slots=first.get("slots", 0),
        points=tuple(points),
        spread=spread_of(groups),
        server=first.get("server", {}),
        update_s=float(np.median([found.get("update_s", 0.0) for found in results])),
        shared_update_s=float(np.median([found.get("shared_update_s", 0.0) for found in results])),
    )


def _point(case: ProfilingCase, played: Results) -> Point:
    steps = np.asarray([np.median(one["steps_s"], axis=0) for one in played])
    # Parts of a tile differ, and the slowest counts; whole networks are all the same.
    clock_s, step_s, process_s = steps.max(axis=0) if case.mesh else np.median(steps, axis=0)
    exchanges = "exchanges"
    if case.merge:
        merges = np.median([np.median(one["merges_s"], axis=0) for one in played], axis=0)
        merges = np.maximum(merges - [clock_s, step_s, process_s], 0.0)
        clock_s, step_s, process_s = merges
        exchanges = "merge_exchanges"
    busiest = max(played, key=lambda one: sum(sum(e[0]) for e in one[exchanges]))
    return Point(
        mesh=case.mesh,
        merge=case.merge,
        samples=case.samples,
        shards=case.shards,
        concurrency=case.concurrency,
        step_s=float(step_s),
        behind_s=float(max(process_s - step_s, 0.0)),
        clock_s=float(clock_s),
        data_s=float(np.median([value for one in played for value in one["data_s"]])),
        update_s=float(np.median([value for one in played for value in one["update_s"]])),
        peak_bytes=max(one["peak_bytes"] for one in played),
        payload_bytes=max(one["payload_bytes"] for one in played),
        exchanges=tuple((tuple(sent), tuple(got)) for sent, got in busiest[exchanges]),
    )
