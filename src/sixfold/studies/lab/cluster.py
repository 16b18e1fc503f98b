"""A Spark session to try divisions of the work on, with a meter on what its jobs cost.

Costs come from Spark's status store, which is that behind its web page and is filled whether or not
the page is served. The listener bus feeds it, so the bus is drained before the store is asked.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import pickle
import re
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sixfold.core.errors import RunError, SixfoldError
from sixfold.distributed.engines import open_engine

# Of a session of our own, before the user's. The status store, from which costs are read, forgets
# jobs and stages beyond the last so many. A Python worker spills what it reduces to the disk once
# its memory passes a limit, 512 MB by default: with torch in it, always.
SETTINGS = (
    "spark.task.maxFailures=4",
    "spark.driver.memory=2g",
    "spark.python.worker.memory=4g",
    "spark.ui.retainedJobs=20000",
    "spark.ui.retainedStages=20000",
)
MOST_TASKS = 4000  # of a stage that are asked for one by one
_WARM_JOBS, _EMPTY_JOBS = 5, 15

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one or more jobs have cost; costs can be added."""

    wall_s: float = 0.0  # from the first call until the last result
    jobs: int = 0
    stages: int = 0  # that ran; those that Spark skipped are not counted
    tasks: int = 0  # that ended well
    shuffle_bytes: int = 0  # written for shuffles, as they lie on the disk (serialised, compressed)
    remote_bytes: int = 0  # of these, read by another executor over a socket
    result_bytes: int = 0  # of tasks' results, sent to the driver
    broadcast_bytes: int = 0  # serialised, once; each executor fetches them once
    run_s: float = 0.0  # time that tasks ran, summed over tasks, Python and waiting for it included
    # Scheduler delay, summed over tasks: what of a task's time was neither its start, nor its run,
    # nor the return of its result.
    delay_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Cost(**{name: mine[name] + theirs[name] for name in mine})


class Cluster:
    """Spark, ready to run jobs of the laboratory."""

    def __init__(self, engine: Any, partitions: int | None = None) -> None:
        self.engine = engine  # for process groups, the long-lived jobs
        self.context: Any = engine.session.context  # SparkContext, for jobs
        self.slots = int(engine.slots())  # tasks that run at a time
        self.partitions = partitions or self.slots  # of shuffles
        # Begins the names of job groups: unlike an id, no other cluster of the session can have it.
        self._name = f"sixfold-lab-{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._broadcast_bytes = 0
        engine.pool(_import_torch, range(2 * self.slots), workers=self.slots)  # ships our code

    def measured(self, what: str, action: Callable[[], Result]) -> tuple[Result, Cost]:
        """Run jobs and read off what they cost; a `RunError` with Spark's reason if one failed."""
        group = f"{self._name}-{next(self._numbers)}"
        self.context.setJobGroup(group, f"sixfold lab: {what}")
        self._broadcast_bytes = 0
        began = time.perf_counter()
        try:
            result = action()
        except SixfoldError:
            raise
        except Exception as error:
            if not hasattr(error, "java_exception"):
                raise
            self.engine.session.check_alive(0.5)
            raise RunError(f"{what}: {_reason(error)}") from error
        cost = Cost(wall_s=time.perf_counter() - began, broadcast_bytes=self._broadcast_bytes)
        return result, cost + _jobs_cost(self.context, group)

    def broadcast(self, value: Any) -> Any:
        """Hand a value to all executors, each of which fetches it once."""
        self._broadcast_bytes += len(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
        return self.context.broadcast(value)

    def numbers(self, count: int, partitions: int | None = None) -> Any:
        """An RDD of 0 to count - 1, in contiguous partitions."""
        return self.context.parallelize(range(count), max(1, partitions or self.partitions))

    def empty_job_s(self) -> float:
        """Median time of a job that does nothing in as many tasks as there are slots."""
        times = []
        for _ in range(_WARM_JOBS + _EMPTY_JOBS):
            began = time.perf_counter()
            self.numbers(self.slots, self.slots).foreach(_nothing)
            times.append(time.perf_counter() - began)
        return statistics.median(times[_WARM_JOBS:])


@contextmanager
def open_cluster(
    master: str | None, spark_conf: Sequence[str], partitions: int | None
) -> Iterator[Cluster]:
    """A cluster with a session of its own; a `UserError` within seconds if there is no Spark."""
    engine = open_engine("spark", master=master, spark_conf=[*SETTINGS, *spark_conf])
    try:
        yield Cluster(engine, partitions)
    finally:
        engine.close()


def _jobs_cost(context: Any, group: str) -> Cost:
    scala = context._jsc.sc()
    scala.listenerBus().waitUntilEmpty()
    store, tracker = scala.statusStore(), context.statusTracker()
    cost = Cost()
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


def _reason(error: Any) -> str:
    """Why a job failed: the exception of the task's Python, or else what Spark says."""
    text = str(error.java_exception.toString())
    for line in reversed(text.partition("Traceback (most recent call last)")[2].splitlines()):
        if re.match(r"[A-Za-z_][\w.]*(: |$)", line):
            return line
    from sixfold.distributed.engines.spark_job import explain

    return explain(error)


def _nothing(_: object) -> None:
    pass


def _import_torch(_: int) -> None:
    """Let a Python worker import torch now, and use one thread.

    Spark has a worker collect garbage after every task; torch's 190,000 objects, of which none
    ever is garbage, would cost it 60 ms each time, so they are put aside.
    """
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
