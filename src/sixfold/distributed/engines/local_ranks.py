"""Processes of ranks on this machine: how they are started, waited for and ended."""

from __future__ import annotations

import functools
import os
import signal
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any

import cloudpickle

from sixfold.core.errors import PeerLostError, UserError
from sixfold.distributed.engines.forks import END_S, Child, ForkServer, ServerDiedError
from sixfold.distributed.engines.rank_log import PipeReader
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import use_one_thread
from sixfold.distributed.process_group.control import ORPHAN_STATUS, AttemptEndedError
from sixfold.distributed.process_group.elastic import ElasticGroup
from sixfold.distributed.process_group.malloc import retain_freed_memory
from sixfold.distributed.process_group.membership import Place, run_rank
from sixfold.distributed.process_group.rendezvous import Rendezvous

POLL_S = 0.5
JOIN_S = 120.0  # for a forked rank to join, which takes milliseconds unless the machine is swapping
STOP_S = 2.0  # for ranks to end by themselves after Ctrl-C, before they are made to
TERM_S = 1.0


def place_in(rendezvous: Rendezvous, rank: int, generation: int) -> Place:
    """Where a process belongs that is started as a rank of this machine."""
    return Place(
        address=rendezvous.address,
        secret=rendezvous.secret,
        rank=rank,
        size=rendezvous.size,
        generation=generation,
    )


def start_rank(
    server: ForkServer, pipes: PipeReader, rendezvous: Rendezvous, place: Place, body: bytes
) -> Child:
    """Fork a process that runs the pickled function `body`; its end is reported."""

    def ended(child: Child) -> None:
        # A rank that believes itself orphaned is a symptom; its broken connection tells more.
        if child.status != ORPHAN_STATUS or rendezvous.elastic is not None:
            rendezvous.died(place.rank, str(child.cause), generation=place.generation)

    output = pipes.pipe(place.rank)
    try:
        return server.fork(functools.partial(_rank_main, body, place), [output], ended)
    finally:
        os.close(output)


class ElasticRun:
    """The processes of a group that may change: one for each slot, replaced when they are lost."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        group: ElasticGroup,
        pipes: PipeReader,
        warm_up: Callable[[], ForkServer],
        body: bytes,
        max_restarts: int,
    ) -> None:
        self.restarts = 0  # how many processes were started in the place of others
        self._rendezvous, self._group, self._pipes = rendezvous, group, pipes
        self._warm_up, self._body, self._max_restarts = warm_up, body, max_restarts
        self._server = warm_up()
        self._lives = [-1] * rendezvous.size  # the newest of each slot
        self._children: dict[tuple[int, int], tuple[Child, float]] = {}  # and since when

    def run(self) -> None:
        """Start all, replace what is lost, and wait for their end."""
        group, rendezvous = self._group, self._rendezvous
        try:
            for slot in range(rendezvous.size):
                self._start(slot)
            while not group.over:
                rendezvous.poll(POLL_S)
                self._end_lost()
                self._replace()
            if group.finished:
                wait_for(self._running(), END_S)
        except KeyboardInterrupt:
            wind_down(rendezvous, self._running())
            raise
        finally:
            end_all(self._running(), self._server)

    def _running(self) -> list[Child]:
        return [child for child, _ in self._children.values() if not child.wait(0.0)]

    def _start(self, slot: int) -> None:
        self._lives[slot] += 1
        life = self._lives[slot]
        place = place_in(self._rendezvous, slot, life)
        try:
            self._server = self._warm_up()
            child = start_rank(self._server, self._pipes, self._rendezvous, place, self._body)
        except ServerDiedError as error:
            self._rendezvous.died(slot, str(error), generation=life)
        else:
            self._children[slot, life] = child, time.monotonic()

    def _end_lost(self) -> None:
        """Kill those that were given up, and give up those that do not come."""
        come = {(slot, member.life) for slot, member in self._group.members.items()}
        for (slot, life), (child, since) in list(self._children.items()):
            if child.wait(0.0):
                del self._children[slot, life]
            elif self._group.is_lost(slot, life):
                child.kill()
            elif (slot, life) not in come and time.monotonic() - since > JOIN_S:
                cause = f"did not join within {JOIN_S:g} s"
                self._rendezvous.died(slot, cause, generation=life)

    def _replace(self) -> None:
        """Start processes in the place of lost ones; without one left, see whether enough are."""
        group = self._group
        if group.over:
            return
        taken = {slot for slot, _ in self._children}
        empty = [
            slot
            for slot in group.membership.vacant()
            if slot not in taken and group.is_gone(slot, self._lives[slot])
        ]
        for slot in empty[: self._max_restarts - self.restarts]:
            self.restarts += 1
            self._start(slot)
            empty.remove(slot)
        if len(self._lives) - len(empty) < group.membership.least and group.last_loss is not None:
            group.settle(group.last_loss)


def _rank_main(body: bytes, place: Place, _: list[int]) -> None:
    """The life of a rank's process."""
    started = time.monotonic()
    use_one_thread()
    retain_freed_memory()

    def function(comm: Communicator) -> Any:
        try:
            return cloudpickle.loads(body)(comm)  # in here, so that its errors are reported
        except (UserError, PeerLostError):  # reported by the launcher, or a mere consequence
            raise
        except BaseException:
            traceback.print_exc()  # into the log, before the launcher hears of it and ends all
            raise

    try:
        run_rank(function, place, exit_when_orphaned=True, started=started)
    except AttemptEndedError:  # nobody was there to hear of it
        raise
    except BaseException:
        raise SystemExit(1) from None


def wait_for(children: Collection[Child], timeout_s: float) -> bool:
    """Wait for the end of all; whether it has come."""
    deadline = time.monotonic() + timeout_s
    return all(child.wait(max(deadline - time.monotonic(), 0.0)) for child in children)


def wind_down(rendezvous: Rendezvous, children: Collection[Child]) -> None:
    """After Ctrl-C: ask, then insist. What is left then is killed by `_end`."""
    rendezvous.stop()
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and not wait_for(children, 0.0):
        rendezvous.poll(0.05)  # takes in last words, so that ranks may go
        wait_for(children, 0.05)
    for child in children:
        child.kill(signal.SIGTERM)
    wait_for(children, TERM_S)


def end_all(children: Collection[Child], server: ForkServer) -> None:
    """Kill what is left, and see to it that it is gone."""
    try:
        for child in children:
            child.kill()
        gone = wait_for(children, END_S)
    except KeyboardInterrupt:
        server.close()
        raise
    if not gone:  # the server is stuck
        server.close()
