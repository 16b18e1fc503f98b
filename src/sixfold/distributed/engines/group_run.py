"""The processes of a process group, from the first that is started to the end of all.

What a process is, and how it is started and ended, is the engine's matter (`Processes`); when, is
decided here, the same for all engines. A group that may change has a process for each slot, and
replaces those that are lost; any other is started again as a whole.
"""

import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Protocol

from sixfold.distributed.engines.engine import GroupResult
from sixfold.distributed.process_group.elastic import ElasticGroup
from sixfold.distributed.process_group.faults import Fault
from sixfold.distributed.process_group.membership import Place
from sixfold.distributed.process_group.rendezvous import Rendezvous

POLL_S = 0.5
END_S = 10.0  # for processes to be gone once they were told to end, on a very busy machine
STOP_S = 2.0  # for ranks to end by themselves after Ctrl-C, before they are made to
TERM_S = 1.0


class Process(Protocol):
    """A process of a rank, or a task that is to become one."""

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Make it end; harmless after its end."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; whether it has come."""
        ...


class Processes(ABC):
    """What an engine does for a process group."""

    join_s = math.inf  # for a process to join after its start, or it is given up
    host: str | None = None  # where all of them are; None: on several hosts

    @abstractmethod
    def start(self, place: Place) -> Process | None:
        """Start a process, and report its end to the rendezvous; None if it has come already."""

    def attend(self) -> None:  # noqa: B027 - most have nothing to do
        """Called at least every `POLL_S`: raise if the engine itself has failed."""

    @abstractmethod
    def end(self, processes: Collection[Process]) -> None:
        """Make an end of all, and see to it that they are gone."""


class GroupRun:
    """One process group with all that happens to it."""

    def __init__(self, rendezvous: Rendezvous, processes: Processes, max_restarts: int) -> None:
        self.restarts = 0  # processes started in the place of others, or restarts of all
        self._rendezvous, self._processes = rendezvous, processes
        self._max_restarts = max_restarts
        # by slot, and number of the process in it; with the time of its start
        self._running: dict[tuple[int, int], tuple[Process, float]] = {}
        self._lives = [-1] * rendezvous.size  # the newest process of each slot

    def run(self) -> Fault | None:
        """Run the group to its end; the fault if it failed."""
        if (group := self._rendezvous.elastic) is not None:
            self._to_the_end(group)
            return group.fault
        while True:
            self._rendezvous.admit(self.restarts)
            self._to_the_end(None)
            fault = self._rendezvous.now.fault
            if fault is None or not fault.retryable or self.restarts == self._max_restarts:
                return fault
            self.restarts += 1

    def result(self, began: float) -> GroupResult:
        """What became of it, once it has ended well; it was asked for at a time."""
        first_line, met_at = self._rendezvous.first_met or (began, began)
        return GroupResult(
            results=self._rendezvous.now.results,
            restarts=self.restarts,
            startup_s=met_at - began,
            engine_s=first_line - began,
        )

    def _to_the_end(self, group: ElasticGroup | None) -> None:
        """Start a process for each rank, and keep watch until no more is to come."""
        rendezvous = self._rendezvous
        now = rendezvous.now
        try:
            for slot in range(rendezvous.size):
                self._start(slot)
            while not now.over:
                rendezvous.poll(POLL_S)
                self._processes.attend()
                self._look_after()
                if group is not None:
                    self._replace(group)
            if now.finished:  # one that has not begun to work would not end by itself
                wait_for(
                    [
                        process
                        for (slot, life), (process, _) in self._running.items()
                        if group is None or group.is_gone(slot, life)
                    ],
                    END_S,
                )
        except KeyboardInterrupt:
            self._wind_down()
            raise
        finally:
            self._processes.end(self._alive())
            self._running.clear()

    def _start(self, slot: int) -> None:
        self._lives[slot] += 1
        place = Place(
            address=self._rendezvous.address,
            secret=self._rendezvous.secret,
            rank=slot,
            size=self._rendezvous.size,
            generation=self._lives[slot],
        )
        process = self._processes.start(place)
        if process is not None:
            self._running[slot, place.generation] = process, time.monotonic()

    def _alive(self) -> list[Process]:
        return [process for process, _ in self._running.values() if not process.wait(0.0)]

    def _look_after(self) -> None:
        """Kill those that were given up, and give up those that do not come."""
        rendezvous = self._rendezvous
        come = {(slot, member.life) for slot, member in rendezvous.now.members.items()}
        for (slot, life), (process, since) in list(self._running.items()):
            if process.wait(0.0):
                del self._running[slot, life]
            elif rendezvous.elastic is not None and rendezvous.elastic.is_lost(slot, life):
                process.kill()
            elif rendezvous.elastic is not None and rendezvous.elastic.is_excluded(slot, life):
                pass
            elif (slot, life) not in come and time.monotonic() - since > self._processes.join_s:
                cause = f"did not join within {self._processes.join_s:g} s"
                rendezvous.died(slot, cause, generation=life)

    def _replace(self, group: ElasticGroup) -> None:
        """Start processes in the place of lost ones; without one left, see whether enough are."""
        if group.over:
            return
        taken = {slot for slot, life in self._running if not group.is_excluded(slot, life)}
        empty = [
            slot
            for slot in group.membership.vacant()
            if slot not in taken
            and (
                group.is_gone(slot, self._lives[slot]) or group.is_excluded(slot, self._lives[slot])
            )
        ]
        if self._processes.host not in group.membership.excluded_hosts:
            for slot in empty[: self._max_restarts - self.restarts]:
                self.restarts += 1
                self._start(slot)
                empty.remove(slot)
        too_few = len(self._lives) - len(empty) < group.membership.least
        if too_few and group.last_loss is not None and group.due is None:  # no cause on its way
            group.settle(group.last_loss)

    def _wind_down(self) -> None:
        """After Ctrl-C: ask, then insist. What is left then is killed by `end`."""
        rendezvous, alive = self._rendezvous, self._alive()
        rendezvous.stop()
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline and not wait_for(alive, 0.0):
            rendezvous.poll(0.05)  # takes in last words, so that ranks may go
            wait_for(alive, 0.05)
        for process in alive:
            process.kill(signal.SIGTERM)
        wait_for(alive, TERM_S)


def wait_for(processes: Collection[Process], timeout_s: float) -> bool:
    """Wait for the end of all; whether it has come."""
    deadline = time.monotonic() + timeout_s
    return all(process.wait(max(deadline - time.monotonic(), 0.0)) for process in processes)
