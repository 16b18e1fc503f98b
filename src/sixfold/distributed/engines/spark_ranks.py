"""The ranks of a process group as tasks of Spark, seen from the launcher.

Every rank is a job of its own, of one task: Spark ends a job, and with it all tasks of its stage,
when one of them is lost for good, and separate jobs keep a loss to itself. Jobs without a slot wait
in Spark's queue, where dynamic allocation sees that executors are wanted.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Collection

from sixfold.core.errors import RunError, UserError
from sixfold.distributed.engines.engine import GroupCall
from sixfold.distributed.engines.group_run import Process, Processes, wait_for
from sixfold.distributed.engines.spark_job import END_S, Job, explain_loss, is_in_vain
from sixfold.distributed.engines.spark_session import Session
from sixfold.distributed.engines.spark_worker import RankTask
from sixfold.distributed.process_group.membership import Place
from sixfold.distributed.process_group.rendezvous import Rendezvous
from sixfold.distributed.process_group.wire import Address

SCHEDULE_S = 30.0
"""For Spark to give enough ranks a slot, once the cluster has enough of them. It takes 0.1 s,
unless other jobs hold them, or a lost executor is not replaced."""

JOIN_S = 300.0
"""For ranks that Spark runs to join: Python may have to import torch from a slow network drive. And
for executors that have to be allocated first."""

GATHER_S = 10.0
"""Without another rank, after which the first view of a group that may change begins with those
that are there. An executor more takes up to 8 s, Python and torch in it 3 s."""


class SparkProcesses(Processes):
    """Jobs of one task each."""

    def __init__(
        self,
        session: Session,
        call: GroupCall,
        rendezvous: Rendezvous,
        address: Address,
        task_at: Callable[[Place], RankTask],
    ) -> None:
        self._session, self._call, self._rendezvous = session, call, rendezvous
        self._address, self._task_at = address, task_at
        self._jobs: dict[int, Job] = {}  # the newest of each slot
        self._counted = (-1, 0)  # the try of the group, and how many ranks it had at last
        self._since = time.monotonic()  # since when it has so many

    def start(self, place: Place) -> Process:
        """Submit a job."""
        task = self._task_at(dataclasses.replace(place, address=self._address))

        def action() -> None:
            if told := self._session.map_tasks(1, task):
                raise RunError(str(told[0]))

        title = f"sixfold: rank {place.rank} of {place.size}"
        job = self._session.start(action, title, functools.partial(self._ended, place))
        self._jobs[place.rank] = job
        return job

    def attend(self) -> None:
        """Raise if Spark has ended, or does not get ranks started; begin with few after a while."""
        for job in self._jobs.values():
            if job.error is not None and not job.is_unwanted and is_in_vain(job.error):
                self._session.check_alive(0.5)
                raise RunError(f"Spark could not run the ranks: {explain_loss(job.error)}")
        now, rendezvous = time.monotonic(), self._rendezvous
        counted = rendezvous.now.number, len(rendezvous.now.members)
        if counted != self._counted or rendezvous.now.fault is not None:
            self._counted, self._since = counted, now
        group, stalled_s = rendezvous.elastic, now - self._since
        if group is not None and group.membership.view.number == 0:
            ready = len(group.membership.ready)
            most = min(rendezvous.size, self._session.most_slots() or rendezvous.size)
            if ready >= group.membership.least and (ready >= most or stalled_s > GATHER_S):
                self._tell(
                    f"{ready} of {rendezvous.size} ranks have come: they begin, others join later"
                )
                group.begin()
        needed = rendezvous.size if group is None else group.membership.least
        if counted[1] < needed and stalled_s > SCHEDULE_S:
            self._give_up(needed, needed - counted[1], stalled_s)

    def end(self, processes: Collection[Process]) -> None:
        """Cancel what is left."""
        for process in processes:
            process.kill()
        wait_for(processes, END_S)

    def _ended(self, place: Place, job: Job) -> None:
        """A job has ended; called in its thread."""
        if job.is_unwanted:
            return  # it was given up, and why is known
        cause = "Spark ended its task" if job.error is None else explain_loss(job.error)
        self._rendezvous.died(place.rank, cause, generation=place.generation)

    def _tell(self, text: str) -> None:
        if self._call.on_event is not None:
            self._call.on_event(0, {"kind": "note", "text": text})

    def _give_up(self, needed: int, missing: int, stalled_s: float) -> None:
        """Raise if Spark cannot start enough ranks; or let it try for longer."""
        joined = needed - missing
        # Tasks that run beyond those that have joined will join, if slowly.
        are_starting = sum(job.active_tasks() for job in self._jobs.values()) > joined
        if (are_starting or self._session.allocates) and stalled_s < JOIN_S:
            return
        if are_starting:
            why = f"{missing} of {needed} ranks have not joined within {stalled_s:.0f} s"
        else:
            why = (
                f"Spark has not started {missing} of {needed} ranks within {stalled_s:.0f} s: "
                f"{self._session.master.url} has {self._session.slots()} task slots, and other "
                "jobs of this application may hold them"
            )
        if (fault := self._rendezvous.now.best_guess or self._rendezvous.last_fault) is not None:
            lost = dataclasses.replace(fault, cause=f"{fault.cause}; then {why}")
            raise lost.exception(self._rendezvous.restarts)
        raise (
            RunError(why) if are_starting else UserError(f"{why}: end them, or use fewer --workers")
        )
