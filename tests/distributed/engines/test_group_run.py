from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection
from typing import Any

from sixfold.core.errors import PeerLostError
from sixfold.distributed.engines.group_run import GroupRun, Process, Processes
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.membership import Place, run_rank
from sixfold.distributed.process_group.rendezvous import Rendezvous


def lose(comm: Communicator) -> None:
    """Cut this rank off, as if its process had been killed."""
    transport: Any = comm.transport
    transport._control.connection.shut()
    raise PeerLostError(-1, "killed")


class Killed:
    """A process whose end is noticed only when somebody looks, after its connection has broken."""

    def __init__(self, place: Place, rendezvous: Rendezvous) -> None:
        self._place, self._rendezvous, self._told = place, rendezvous, False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        with contextlib.suppress(PeerLostError):
            run_rank(lose, self._place)

    def kill(self, number: int = 9) -> None:
        """It ends by itself."""

    def wait(self, timeout_s: float) -> bool:
        if timeout_s:
            self._thread.join(timeout_s)
        group = self._rendezvous.elastic
        assert group is not None
        if group.last_loss is None:
            return False
        if not self._told:
            self._told = True
            self._rendezvous.died(0, "killed by signal 9 (SIGKILL)", generation=0)
        return True


class OneAfterAnother(Processes):
    def __init__(self, rendezvous: Rendezvous) -> None:
        self._rendezvous = rendezvous

    def start(self, place: Place) -> Process:
        return Killed(place, self._rendezvous)

    def end(self, processes: Collection[Process]) -> None:
        for process in processes:
            process.wait(5.0)


def test_the_end_of_a_process_tells_more_than_its_broken_connection() -> None:
    with contextlib.closing(Rendezvous(1, least=1)) as rendezvous:
        fault = GroupRun(rendezvous, OneAfterAnother(rendezvous), 0).run()
    assert fault is not None
    assert fault.cause == "killed by signal 9 (SIGKILL)"
