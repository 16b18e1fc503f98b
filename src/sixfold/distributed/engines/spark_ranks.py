"""A process group on Spark, seen from the launcher: a job in a thread, and a loop that watches."""

from __future__ import annotations

import dataclasses
import functools
import time

from pyspark import cloudpickle

from sixfold.core.errors import RunError, SixfoldError, UserError
from sixfold.distributed.engines.engine import GroupCall, GroupResult
from sixfold.distributed.engines.rank_log import RankLog
from sixfold.distributed.engines.spark_job import END_S, Job, explain
from sixfold.distributed.engines.spark_session import Session
from sixfold.distributed.engines.spark_worker import PRINTED, RankTask
from sixfold.distributed.process_group import PlainData
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.generation import Patience
from sixfold.distributed.process_group.rendezvous import Rendezvous

SCHEDULE_S = 30.0
"""For Spark to give all ranks of a process group a slot, once the cluster has enough of them. It
takes 0.1 s, unless other jobs hold them, or a lost executor is not replaced."""

JOIN_S = 300.0
"""For ranks that Spark runs to join: Python may have to import torch from a slow network drive."""

GRACES_S = {"connection": 0.2, "peer": 1.0}

STOP_S = 2.0  # for ranks to end by themselves after Ctrl-C, before they are cut off; as on `local`

_WATCH_S = 1.0


class _NoRestartLeft(Exception):  # noqa: N818  not an error of anybody
    """A generation has begun that may not."""


class RanksRun:
    """One call of `run_ranks`; to be used in a `with`."""

    def __init__(
        self,
        session: Session,
        call: GroupCall,
        log: RankLog,
        patience: Patience,
        *,
        tls: bool = False,
    ) -> None:
        self._session = session
        self._call = call
        self._log = log
        self._job: Job | None = None
        self._joined_before = -1  # generation when the job was submitted
        self._stalled_since = time.monotonic()
        self._host, advertised = session.driver_host()
        self._rendezvous = Rendezvous(
            call.size,
            host=self._host,
            claim=self._begin,
            on_event=self._hear,
            patience=patience,
            tls=tls,
        )
        self._address = advertised, self._rendezvous.address[1]

    def run(self, archives: tuple[str, ...], began: float) -> GroupResult:
        """Run the process group to its end."""
        rendezvous = self._rendezvous
        task = RankTask(
            function=cloudpickle.dumps(self._call.function),
            archives=archives,
            address=self._address,
            secret=rendezvous.secret,
            size=self._call.size,
        )
        try:
            self._watch(task)
        except KeyboardInterrupt:
            self._wind_down()
            raise
        except _NoRestartLeft:
            raise self._error(rendezvous.last_fault, self._call.max_restarts) from None
        if self._job is not None:
            self._job.end(patience_s=END_S)
        first_line, met_at = rendezvous.first_met or (time.monotonic(), time.monotonic())
        return GroupResult(
            results=rendezvous.now.results,
            restarts=rendezvous.restarts,
            startup_s=met_at - began,
            engine_s=first_line - began,
        )

    def __enter__(self) -> RanksRun:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._rendezvous.close()  # with it, all ranks that are left
        if self._job is not None:
            self._job.end(patience_s=0.0)

    def _watch(self, task: RankTask) -> None:
        """Return when all ranks have handed over their results."""
        rendezvous = self._rendezvous
        while True:
            if self._job is None:
                self._submit(task)
            rendezvous.poll(_WATCH_S)
            if rendezvous.now.finished:
                return
            fault, is_last = rendezvous.now.fault, rendezvous.restarts >= self._call.max_restarts
            if fault is not None and (is_last or not fault.retryable):
                if fault.retryable:
                    self._session.check_alive(0.5)  # or else all ranks died with the JVM
                raise self._error(fault, rendezvous.restarts)
            self._check_job()

    def _submit(self, task: RankTask) -> None:
        self._joined_before = self._rendezvous.now.number
        self._stalled_since = time.monotonic()
        self._job = self._session.start(
            functools.partial(self._session.run_barrier, self._call.size, task),
            f"sixfold: {self._call.size} ranks",
        )

    def _begin(self) -> int:
        """Called when the first rank of a generation joins."""
        restarts = self._rendezvous.restarts
        if restarts > self._call.max_restarts:
            raise _NoRestartLeft
        return restarts if self._call.claim is None else self._call.claim()

    def _hear(self, rank: int, event: PlainData) -> None:
        if PRINTED in event:
            self._log.feed(rank, str(event[PRINTED]).encode(errors="replace"))
        elif self._call.on_event is not None:
            self._call.on_event(rank, event)

    def _error(self, fault: Fault | None, restarts: int) -> SixfoldError:
        if fault is None:
            cause = "Spark started its stage again and gave no reason"
            fault = Fault(kind="lost", rank=0, host=self._host, cause=cause)
        return fault.with_log(self._log.tail(fault.rank)).exception(restarts)

    def _check_job(self) -> None:
        """Submit again what Spark has given up; give up what Spark does not get started."""
        rendezvous, job = self._rendezvous, self._job
        if job is not None and not job.running:
            if job.error is not None:
                self._session.check_alive(0.5)
                cancelled = "SPARK_JOB_CANCELLED" in str(job.error)  # by somebody else
                if cancelled or rendezvous.now.number == self._joined_before:
                    raise _failed(job.error)
            if rendezvous.now.fault is None:
                rendezvous.poll(max(GRACES_S.values()))  # why, may be on its way
            if rendezvous.now.fault is None and not rendezvous.now.finished:
                why = f": {explain(job.error)}" if job.error is not None else ""
                raise RunError(f"Spark ended the job of the ranks before they had ended{why}")
            self._job = None
        missing = self._call.size - len(rendezvous.now.members)
        if missing == 0 and rendezvous.now.fault is None:
            self._stalled_since = time.monotonic()
        elif job is not None and time.monotonic() - self._stalled_since > SCHEDULE_S:
            self._give_up(job, missing)

    def _give_up(self, job: Job, missing: int) -> None:
        """Raise if Spark cannot start the ranks; or let it try for longer."""
        rendezvous = self._rendezvous
        stalled_s = time.monotonic() - self._stalled_since
        active, slots = job.active_tasks(), self._session.slots()
        if active and stalled_s < JOIN_S:
            return
        if active:
            why = f"{missing} of {self._call.size} ranks have not joined within {stalled_s:.0f} s"
        else:
            why = (
                f"Spark has not started the {self._call.size} ranks within {stalled_s:.0f} s: "
                f"{self._session.master.url} has {slots} task slots, and other jobs of this "
                "application may hold them"
            )
        if (fault := rendezvous.now.fault) is not None:
            lost = dataclasses.replace(fault, cause=f"{fault.cause}; then {why}")
            raise self._error(lost, rendezvous.restarts)
        raise RunError(why) if active else UserError(f"{why}: end them, or use fewer --workers")

    def _wind_down(self) -> None:
        """After Ctrl-C: ask the ranks to stop; what is left then is cut off."""
        self._rendezvous.stop()
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline and not self._rendezvous.now.finished:
            if self._rendezvous.now.fault is not None or not self._rendezvous.now.members:
                return
            self._rendezvous.poll(0.1)


def _failed(error: Exception) -> SixfoldError:
    """The error for a job that cannot be cured by starting it again."""
    reason = explain(error)
    if "SPARK-24819" in reason or "BARRIER" in reason.upper():
        return UserError(f"Spark cannot start the ranks together: {reason}")
    return RunError(f"Spark could not run the ranks: {reason}")
