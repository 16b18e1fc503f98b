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

    def __init__(self, context: SparkContext, action: Callable[[], object], title: str) -> None:
        """Submit it."""
        # why it failed, once it has ended; None if it has not failed
        self.error: Exception | None = None
        self._context = context
        self._group = f"sixfold-{secrets.token_hex(8)}"
        self._thread = threading.Thread(
            target=self._work, args=(action, title), daemon=True, name="sixfold-spark-job"
        )
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
            for job in tracker.getJobIdsForGroup(self._group)
            if (info := tracker.getJobInfo(job)) is not None
            for stage in info.stageIds
        }
        found = [tracker.getStageInfo(stage) for stage in stages]
        return sum(stage.numActiveTasks for stage in found if stage is not None)

    def cancel(self) -> None:
        """Ask Spark to end it."""
        with contextlib.suppress(Exception):  # py4j's complaints about a JVM that is gone
            self._context.cancelJobGroup(self._group)

    def end(self, *, patience_s: float) -> None:
        """Wait until it has ended, and cancel it if it does not."""
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self.cancel()
            self._thread.join(END_S)

    def _work(self, action: Callable[[], object], title: str) -> None:
        try:
            self._context.setJobGroup(self._group, title, interruptOnCancel=True)
            action()
        except Exception as error:  # reported by the thread that watches
            self.error = error


def explain(error: BaseException) -> str:
    """The most telling line of an error that py4j brings from Spark."""
    java = getattr(error, "java_exception", None)
    text = str(java.toString()) if java is not None else f"{type(error).__name__}: {error}"
    for pattern in (r"\[PYTHON_VERSION_MISMATCH\].*", r"Cannot run program.*", r"\[SPARK-\d+\].*"):
        if found := re.search(pattern, text):
            return found[0].strip()
    return text.strip().partition("\n")[0]
