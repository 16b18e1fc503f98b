"""A SparkContext to work with: the one that is active, or one of our own with its own JVM."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark import SparkContext

from sixfold.core.errors import RunError, UserError, raise_problems
from sixfold.distributed.engines.engine import LOOPBACK
from sixfold.distributed.engines.scratch import scratch_folder
from sixfold.distributed.engines.spark_checks import (
    check,
    task_slots,
    too_few_slots,
)
from sixfold.distributed.engines.spark_job import Job
from sixfold.distributed.engines.spark_master import Master, parse_master, parse_settings
from sixfold.distributed.engines.spark_package import Carrier
from sixfold.distributed.engines.spark_reach import reach
from sixfold.distributed.engines.spark_start import Start
from sixfold.distributed.process_group.faults import TAIL_LINES, explain_status

FIRST_EXECUTOR_S = 20
"""For the first executor to register, unless `FIRST_EXECUTOR` says otherwise; measured 3 s on an
idle host, 12 s on a very busy one."""

FIRST_EXECUTOR = "spark.scheduler.maxRegisteredResourcesWaitingTime"
"""Spark's own setting for how long to wait for executors."""

NEXT_EXECUTOR_S = 8.0  # for one more executor, after the last that registered

SETTLED_S = 2.0
"""Without any new executor, after which a cluster of unknown size is taken to be complete."""

_FORWARD_S = 0.5


@dataclass(kw_only=True)
class Session:
    """A SparkContext, and how to be rid of it."""

    context: SparkContext
    master: Master  # where it runs
    startup_s: float = 0.0  # seconds that starting it took
    log: Path | None = None  # file to which its JVM writes; None if it is not ours
    process: subprocess.Popen[bytes] | None = None  # its JVM, if that was started here
    # what undoes its start; None if it was not started here, and does not end with `close`
    cleanup: contextlib.ExitStack | None = None
    _forwarded_bytes: int = 0

    @property
    def carrier(self) -> Carrier:
        """Who brings files to the executors."""
        carrier: Carrier = self.context
        return carrier

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the Python workers; those with others are other processes."""
        variables: dict[str, str] = self.context.environment
        return variables

    def setting(self, key: str, default: str) -> str:
        """A Spark setting as it is in force."""
        return str(self.context.getConf().get(key, default))

    def driver_host(self) -> tuple[str, str]:
        """The address to listen on, and the one by which executors reach it."""
        if self.master.on_this_host:
            return LOOPBACK, LOOPBACK
        host = self.setting("spark.driver.host", LOOPBACK)
        return self.setting("spark.driver.bindAddress", host), host

    def slots(self) -> int:
        """How many tasks can run at a time now, busy slots included."""
        scala = self.context._jsc.sc()
        profile = scala.resourceProfileManager().defaultResourceProfile()
        return int(scala.maxNumConcurrentTasks(profile))

    def all_slots(self) -> int:
        """How many tasks can run at a time, once no more executors register."""
        self.wait_for_slots(1)
        most = self.most_slots()
        slots = self._await(most or sys.maxsize, NEXT_EXECUTOR_S if most else SETTLED_S)
        if slots == 0:
            raise UserError(
                f"{self.master.url} has no executor yet, and allocates them as they are needed "
                "(spark.dynamicAllocation.enabled): say how many with --workers N or MIN:MAX"
            )
        return slots

    @property
    def allocates(self) -> bool:
        """Whether executors come and go as they are needed."""
        wished = self.setting("spark.dynamicAllocation.enabled", "").strip().lower() == "true"
        return wished and self.master.kind != "local"

    def wait_for_slots(self, size: int) -> None:
        """Return once `size` tasks can run at a time; if there are fewer, refuse with the count.

        Where executors are allocated as tasks wait for them, nothing is to be waited for.
        """
        self.check_alive()
        most = self.most_slots()
        if self.allocates and (most is None or size <= most):
            return
        can_be = most is None or size <= most
        slots = self._await(size, NEXT_EXECUTOR_S) if can_be else self.slots()
        if slots < size:
            raise UserError(self._too_few(size, slots))

    def _await(self, size: int, next_s: float) -> int:
        """How many slots there are, once they are `size` or no other came for so long."""
        slots, changed = self.slots(), time.monotonic()
        limit_s = next_s if slots else self._first_executor_s()
        useless_since: float | None = None  # since when there are executors, and no slots
        while slots < size and time.monotonic() - changed <= limit_s:
            self.check_alive()
            # An executor is listed a moment before its slots count.
            if slots or not self._executor_cores():
                useless_since = None
            elif (
                time.monotonic() - (useless_since := useless_since or time.monotonic()) > SETTLED_S
            ):
                break
            time.sleep(0.05)
            before, slots = slots, self.slots()
            if slots != before:
                changed, limit_s = time.monotonic(), next_s
        return slots

    def most_slots(self) -> int | None:
        """How many slots there are once all executors have come; None if nobody knows before."""
        return task_slots(self.master, dict(self.context.getConf().getAll()))

    def _first_executor_s(self) -> float:
        conf = self.context._jsc.sc().conf()
        return float(conf.getTimeAsSeconds(FIRST_EXECUTOR, f"{FIRST_EXECUTOR_S}s"))

    def _executor_cores(self) -> list[int]:
        """The cores of every executor that has registered."""
        found = self.context._jsc.sc().statusStore().executorList(True)
        executors = [found.apply(index) for index in range(found.size())]
        return [int(each.totalCores()) for each in executors if each.id() != "driver"]

    def _too_few(self, size: int, slots: int) -> str:
        url, most = self.master.url, self.most_slots()
        settings = dict(self.context.getConf().getAll())
        if most is not None and size > most:
            return too_few_slots(self.master, settings, size, most)
        if slots == 0 and not self._executor_cores():
            return (
                f"no executor of {url} has registered within {self._first_executor_s():g} s "
                f"({FIRST_EXECUTOR}): check on its web page that it has workers with free cores "
                f"and at least {self.setting('spark.executor.memory', '1g')} of free memory "
                "(spark.executor.memory), and that they can connect to this host, "
                f"{self.driver_host()[1]} (spark.driver.host)"
            )
        if most is not None:
            return f"{url} should have {most} task slots, and only {slots} have come up"
        return too_few_slots(self.master, settings, size, slots)

    def check_alive(self, patience_s: float = 0.0) -> None:
        """Raise a `RunError`, with the last lines of a JVM of ours, if Spark is no longer there.

        `patience_s` is for a JVM whose connections have broken, to end.
        """
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(patience_s)
                what = f"the JVM of Spark's driver was lost: {explain_status(status)}"
                raise RunError("\n".join([what, *self._log_lines()[-TAIL_LINES:]]))
        scala = getattr(self.context._jsc, "sc", None)
        if scala is None or scala().isStopped():
            errors = [line for line in self._log_lines() if " ERROR " in line]
            raise RunError("\n".join(["Spark has ended the application", *errors[-3:]]))

    def _log_lines(self) -> list[str]:
        return [] if self.log is None else self.log.read_text(errors="replace").splitlines()

    @contextmanager
    def forwarding_log(self, path: Path | None) -> Iterator[None]:
        """Append what our own JVM has written, and writes meanwhile, to a file."""
        if self.log is None or path is None:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(
            target=self._forward, args=(self.log, path, ended), daemon=True, name="sixfold-jvm-log"
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _forward(self, source: Path, path: Path, ended: threading.Event) -> None:
        with source.open("rb") as reading, path.open("ab", buffering=0) as writing:
            reading.seek(self._forwarded_bytes)
            last = False
            while not last:
                last = ended.wait(_FORWARD_S)
                while (line := reading.readline()).endswith(b"\n") or (last and line):
                    writing.write(b"[spark] " + line)
                    self._forwarded_bytes += len(line)
                reading.seek(self._forwarded_bytes)

    def start(
        self,
        action: Callable[[], object],
        title: str,
        on_end: Callable[[Job], None] = lambda _: None,
    ) -> Job:
        """Start a job, shown under its title on Spark's page."""
        return Job(self.context, action, title, on_end)

    def map_tasks(
        self, count: int, function: Callable[[Iterable[Any]], Iterable[Any]]
    ) -> list[Any]:
        """Run a function in so many tasks; what they yield, which is plain data."""
        tasks = self.context.parallelize(range(count), count)
        found: list[Any] = tasks.mapPartitions(function).collect()
        return found

    def close(self) -> None:
        """End the session if it is ours; harmless if called twice."""
        if self.cleanup is not None:
            self.cleanup.close()


def open_session(
    master: str | None = None, spark_conf: Iterable[str] = (), ranks: int = 1
) -> Session:
    """The active SparkContext, or a new one; a `UserError` if these settings allow none."""
    active = SparkContext._active_spark_context
    if active is not None:
        return _adopt(active, master, parse_settings(spark_conf))
    parsed, settings = check(master, spark_conf, ranks)
    reached = reach(parsed) if parsed is not None else None
    began = time.monotonic()
    with contextlib.ExitStack() as cleanup:
        folder = cleanup.enter_context(scratch_folder())
        start = Start(parsed, settings, reached, folder / "jvm.txt")
        context = start.run(cleanup)
        return Session(
            context=context,
            master=parsed or parse_master(context.master),
            startup_s=time.monotonic() - began,
            log=start.log,
            process=start.process,
            cleanup=cleanup.pop_all(),
        )


_DEFAULT_PYTHON = "python3"
"""Of SparkContext, where nobody has chosen one."""


def _adopt(active: SparkContext, master: str | None, settings: Mapping[str, str]) -> Session:
    """Use the active session, which cannot be given other settings any more."""
    problems = []
    if master is not None and parse_master(master).url != parse_master(active.master).url:
        problems.append(
            f"a Spark session with master {active.master} is active in this process, so --master "
            f"{master} cannot be used: leave it out, or stop that session first"
        )
    conf = active.getConf()
    for key, value in settings.items():
        if conf.get(key) != value:
            problems.append(
                f"a Spark session is active in this process, in which {key} is "
                f"{conf.get(key) or 'not set'}: {value!r} cannot be set any more"
            )
    raise_problems(problems)
    given = parse_master(active.master)
    is_chosen = active.pythonExec != _DEFAULT_PYTHON or "PYSPARK_PYTHON" in os.environ
    if given.on_this_host and not is_chosen:
        # The first of that name on $PATH may have none of our packages.
        active.pythonExec = sys.executable
    return Session(context=active, master=given)
