"""What some Spark jobs have cost, as Spark's own status store tells it.

The store is that behind Spark's web page; it is filled whether or not the page is served. It is
fed by the listener bus, so the bus is drained before it is asked.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

MOST_TASKS = 4000
"""Tasks of a stage that are asked for one by one."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one or more jobs have cost; costs can be added."""

    wall_s: float = 0.0  # time from the first call until the last result
    jobs: int = 0  # Spark jobs
    stages: int = 0  # stages that ran; those that Spark skipped are not counted
    tasks: int = 0  # tasks that ended well
    shuffle_bytes: int = 0  # written for shuffles, as they lie on the disk (serialised, compressed)
    remote_bytes: int = 0  # of these, read by another executor over a socket
    result_bytes: int = 0  # of tasks' results, sent to the driver
    # of broadcast values, serialised, once; each executor fetches them once
    broadcast_bytes: int = 0
    run_s: float = 0.0  # time that tasks ran, summed over tasks, Python and waiting for it included
    # scheduler delay, summed over tasks: what of a task's time was neither its start, nor its run,
    # nor the return of its result
    delay_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """The cost of both.

        >>> (Cost(jobs=1, wall_s=2.0) + Cost(jobs=2)).jobs
        3
        """
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Cost(**{name: mine[name] + theirs[name] for name in mine})


def read_cost(context: Any, group: str, wall_s: float) -> Cost:
    """What the jobs of a job group have cost."""
    scala = context._jsc.sc()
    scala.listenerBus().waitUntilEmpty()
    store, tracker = scala.statusStore(), context.statusTracker()
    cost = Cost(wall_s=wall_s)
    for job in sorted(tracker.getJobIdsForGroup(group)):
        info = tracker.getJobInfo(job)
        cost += Cost(jobs=1)
        for number in info.stageIds if info is not None else ():
            cost += _stage_cost(store, number)
    return cost


def _stage_cost(store: Any, number: int) -> Cost:
    """What a stage has cost, in its last attempt."""
    stage = store.lastStageAttempt(number)
    done = int(stage.numCompleteTasks())
    if not done:  # skipped, because its output was there
        return Cost()
    tasks = store.taskList(number, stage.attemptId(), MOST_TASKS)
    count = int(tasks.size())
    delay_ms = sum(float(tasks.apply(k).schedulerDelay()) for k in range(count))
    return Cost(
        stages=1,
        tasks=done,
        shuffle_bytes=int(stage.shuffleWriteBytes()),
        remote_bytes=int(stage.shuffleRemoteBytesRead()),
        result_bytes=int(stage.resultSize()),
        run_s=float(stage.executorRunTime()) / 1000,
        delay_s=delay_ms / 1000 * (done / count if count else 1.0),
    )
