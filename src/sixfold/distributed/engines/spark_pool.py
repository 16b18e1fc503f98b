"""A pool on Spark: a job of one task for every item, so many at a time.

A job fails as a whole when its task is lost; the item is submitted again here, which works on every
master (`local[N]` never repeats a task). A result is accepted only from the job that ended well.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Generic

from pyspark import cloudpickle

from sixfold.core.errors import RunError
from sixfold.distributed.engines.engine import Item, ItemQueue, PoolCall, Result
from sixfold.distributed.engines.rank_log import RankLog
from sixfold.distributed.engines.spark_job import Job, explain
from sixfold.distributed.engines.spark_session import Session
from sixfold.distributed.engines.spark_worker import ItemTask, UserCode
from sixfold.distributed.process_group.faults import Fault

NO_EXECUTOR_S = 60.0  # for a lost executor to be replaced, when there is no other

_IDLE_S = 0.02


class PoolRun(Generic[Item, Result]):
    """One call of `pool`; to be used in a `with`."""

    def __init__(
        self,
        session: Session,
        call: PoolCall[Item, Result],
        code: UserCode,
        log: RankLog,
    ) -> None:
        self._session = session
        self._call = call
        self._function = cloudpickle.dumps(call.function)
        self._code = code
        self._log = log
        # Spark may repeat a task by itself before it tells of its loss.
        self._tries_per_job = (
            1
            if session.master.kind == "local"
            else max(int(session.setting("spark.task.maxFailures", "4")), 1)
        )
        self._items = list(call.items)
        self._tries_left = [call.retries + 1] * len(self._items)
        self._queue = ItemQueue(len(self._items), call.after)
        self._running: dict[int, tuple[Job, list[Any]]] = {}
        self._results: dict[int, Result] = {}
        self._alive_at = time.monotonic()

    def run(self) -> list[Result]:
        """Run all items, so many at a time."""
        while len(self._results) < len(self._items):
            workers = self._call.workers
            while len(self._running) < workers and (ready := self._queue.take()) is not None:
                self._submit(ready)
            ended = [index for index, (job, _) in self._running.items() if not job.running]
            for index in ended:
                if self._accept(index):
                    more = self._call.on_done(index, self._results[index]) or ()
                    self._items.extend(more)
                    self._tries_left += [self._call.retries + 1] * len(more)
                    self._queue.add(len(more))
            if not ended:
                self._check_executors()
                time.sleep(_IDLE_S)
        return [self._results[index] for index in range(len(self._items))]

    def __enter__(self) -> PoolRun[Item, Result]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for job, _ in self._running.values():
            job.kill()
        for job, _ in self._running.values():
            job.end(patience_s=0.0)

    def _submit(self, index: int) -> None:
        task = ItemTask(
            function=self._function,
            code=self._code,
            item=cloudpickle.dumps(self._items[index]),
            index=index,
            tries=self._tries_left[index],
        )
        outcome: list[Any] = []

        def action() -> None:
            outcome.extend(self._session.map_tasks(1, task))

        title = f"sixfold: item {index} of {len(self._items)}"
        self._running[index] = self._session.start(action, title), outcome

    def _accept(self, index: int) -> bool:
        """Take in what became of an item's job; whether it was a result."""
        job, outcome = self._running.pop(index)
        cause = "its Python worker or its executor was lost"
        if job.error is None:
            self._log.feed(index, outcome[0]["printed"].encode(errors="replace"))
            if "fault" in outcome[0]:
                fault = Fault.from_plain(outcome[0]["fault"])
                raise fault.with_log(self._log.tail(index)).exception()
            if "value" in outcome[0]:
                self._results[index] = outcome[0]["value"]
                self._queue.done(index)
                return True
        else:
            self._session.check_alive(0.5)
            cause = f"{cause}: {explain(job.error)}"
        self._tries_left[index] -= min(self._tries_per_job, self._tries_left[index])
        if self._tries_left[index] == 0:
            host = socket.gethostname()
            raise Fault(kind="lost", rank=index, host=host, cause=cause).exception()
        self._queue.put_back(index)
        return False

    def _check_executors(self) -> None:
        now = time.monotonic()
        if now - self._alive_at < 1.0:
            return
        if self._session.slots() > 0:
            self._alive_at = now
        elif now - self._alive_at > NO_EXECUTOR_S:
            raise RunError(
                f"{self._session.master.url} has had no executor for {NO_EXECUTOR_S:g} s"
            )
