"""A Spark session to try divisions of the work on, with a meter on its jobs."""

from __future__ import annotations

import gc
import itertools
import pickle
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sixfold.core.errors import RunError, SixfoldError
from sixfold.distributed.engines import open_engine
from sixfold.studies.lab.cost import Cost, read_cost

SETTINGS = (
    "spark.task.maxFailures=4",
    "spark.driver.memory=2g",
    "spark.python.worker.memory=4g",
    "spark.ui.retainedJobs=20000",
    "spark.ui.retainedStages=20000",
)
"""Settings of a session of our own, before the user's. The status store, from which costs are
read, forgets jobs and stages beyond the last so many. A Python worker spills what it reduces to
the disk once its memory passes a limit, 512 MB by default: with torch in it, always."""

_WARM_JOBS, _EMPTY_JOBS = 5, 15

Result = TypeVar("Result")


class Cluster:
    """Spark, ready to run jobs of the laboratory."""

    def __init__(self, engine: Any, partitions: int | None = None) -> None:
        self.engine = engine  # for process groups, the long-lived jobs
        self.context: Any = engine.session.context  # SparkContext, for jobs
        self.slots = int(engine.slots())  # tasks that run at a time
        self.partitions = partitions or self.slots  # of shuffles
        self._numbers = itertools.count()
        self._broadcast_bytes = 0
        engine.pool(_import_torch, range(2 * self.slots), workers=self.slots)  # ships our code

    @property
    def master(self) -> str:
        """URL of the master."""
        return str(self.context.master)

    def measured(self, what: str, action: Callable[[], Result]) -> tuple[Result, Cost]:
        """Run jobs, and read off what they have cost.

        Raises:
            RunError: if a job failed, with Spark's reason.
        """
        group = f"sixfold-lab-{id(self)}-{next(self._numbers)}"
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
        wall_s = time.perf_counter() - began
        cost = read_cost(self.context, group, wall_s)
        return result, cost + Cost(broadcast_bytes=self._broadcast_bytes)

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
    """A cluster with a session of its own, ended at the end.

    Raises:
        UserError: if there is no Spark to be had, told within seconds.
    """
    engine = open_engine("spark", master=master, spark_conf=[*SETTINGS, *spark_conf])
    try:
        yield Cluster(engine, partitions)
    finally:
        engine.close()


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
