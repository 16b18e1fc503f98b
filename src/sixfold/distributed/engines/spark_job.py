"""A Spark job in a thread of its own, which can be watched and cancelled."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from collections.abc import Callable

from pyspark import SparkContext

END_S = 10.0
"""For a job to end after it was cancelled, or its ranks have ended; on an idle host 0.2 s."""


class Job:
    """A Spark job in a thread of its own."""

    def __init__(
        self,
        context: SparkContext,
        action: Callable[[], object],
        title: str,
        on_end: Callable[[Job], None] = lambda _: None,
    ) -> None:
        """Submit it; `on_end` is called in its thread."""
        # why it failed, once it has ended; None if it has not failed
        self.error: Exception | None = None
        self.is_unwanted = False  # it was cancelled here
        self._context = context
        self._tag = f"sixfold-{secrets.token_hex(8)}"
        # Who cancels the caller's jobs, as the button of a notebook does, means this one too.
        self._group = context.getLocalProperty("spark.jobGroup.id") or self._tag
        self._tags = {*context.getJobTags(), self._tag}
        self._begin(action, title, on_end)

    def _begin(
        self, action: Callable[[], object], title: str, on_end: Callable[[Job], None]
    ) -> None:
        def work() -> None:
            try:
                self._work(action, title)
            except Exception as error:  # reported by the thread that watches
                self.error = error
            on_end(self)

        self._thread = threading.Thread(target=work, daemon=True, name="sixfold-spark-job")
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def active_tasks(self) -> int:
        """How many of its tasks Spark is running."""
        tracker = self._context.statusTracker()
        stages = {
            stage
            for job in self._context._jsc.sc().statusTracker().getJobIdsForTag(self._tag)
            if (info := tracker.getJobInfo(job)) is not None
            for stage in info.stageIds
        }
        found = [tracker.getStageInfo(stage) for stage in stages]
        return sum(stage.numActiveTasks for stage in found if stage is not None)

    def kill(self, number: int = 0) -> None:  # noqa: ARG002 - as a process is killed elsewhere
        """Ask Spark to end it; harmless after its end."""
        if self.running and not self.is_unwanted:
            self.is_unwanted = True
            self._cancel()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _cancel(self) -> None:
        with contextlib.suppress(Exception):  # py4j's complaints about a JVM that is gone
            self._context.cancelJobsWithTag(self._tag)

    def end(self, *, patience_s: float) -> None:
        """Wait until it has ended, and cancel it if it does not."""
        if not self.wait(patience_s):
            self.kill()
            self.wait(END_S)

    def _work(self, action: Callable[[], object], title: str) -> None:
        self._context.setJobGroup(self._group, title, interruptOnCancel=True)
        for tag in self._tags:
            self._context.addJobTag(tag)
        action()


def explain(error: BaseException) -> str:
    r"""The most telling line of an error that py4j, or Spark Connect, brings from Spark.

    >>> explain(type("PythonException", (Exception,), {})("\n Traceback\nOSError: no room\n"))
    'OSError: no room'
    """
    java = getattr(error, "java_exception", None)
    text = str(java.toString()) if java is not None else f"{type(error).__name__}: {error}"
    for pattern in (r"\[PYTHON_VERSION_MISMATCH\].*", r"Cannot run program.*", r"\[SPARK-\d+\].*"):
        if found := re.search(pattern, text):
            return found[0].strip()
    if text.startswith("PythonException: "):  # of Connect: a traceback, and the JVM's below it
        lines = re.findall(r"^(?!java|org)[\w.]*(?:Error|Exception): .+", text, re.MULTILINE)
        return str(lines[-1]) if lines else "a Python worker failed"
    return text.strip().partition("\n")[0]


def explain_loss(error: BaseException) -> str:
    """The same in fewer words, where Spark says how a job's only task was lost.

    >>> explain_loss(Exception(
    ...     "Job aborted due to stage failure: Task 0 in stage 3.0 failed 1 times, most recent "
    ...     "failure: Lost task 0.0 in stage 3.0 (TID 3) (10.0.0.7 executor 2): "
    ...     "ExecutorLostFailure (executor 2 exited) Reason: exit code 137"
    ... ))
    'executor 2 on 10.0.0.7: ExecutorLostFailure (executor 2 exited) Reason: exit code 137'
    """
    text = explain(error)
    found = re.search(r"most recent failure: .*?\((\S+) executor (\S+)\): (.*)", text)
    if found is None:
        return text
    host, executor, why = found.groups()
    return f"executor {executor} on {host}: {why.removeprefix('org.apache.spark.SparkException: ')}"


def is_cancelled(error: BaseException) -> bool:
    """Whether a job ended because somebody has cancelled it."""
    return any(word in str(error) for word in ("SPARK_JOB_CANCELLED", "OPERATION_CANCELED"))


def is_in_vain(error: BaseException) -> bool:
    """Whether jobs are not to be submitted again: one was cancelled, or the session is closed."""
    closed = ("NO_ACTIVE_SESSION", "SESSION_CLOSED", "SESSION_NOT_FOUND")
    return is_cancelled(error) or any(word in str(error) for word in closed)
