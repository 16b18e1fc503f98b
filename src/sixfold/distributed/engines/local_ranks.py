"""Processes of ranks on this machine: how they are started and ended."""

import functools
import os
import socket
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any

import cloudpickle

from sixfold.core.errors import PeerLostError, UserError
from sixfold.distributed.engines.forks import END_S, Child, ForkServer, ServerDiedError
from sixfold.distributed.engines.group_run import Process, Processes, wait_for
from sixfold.distributed.engines.rank_log import PipeReader
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import use_one_thread
from sixfold.distributed.process_group.control import ORPHAN_STATUS, AttemptEndedError
from sixfold.distributed.process_group.malloc import retain_freed_memory
from sixfold.distributed.process_group.membership import Place, run_rank
from sixfold.distributed.process_group.rendezvous import Rendezvous


class LocalProcesses(Processes):
    """Forks that run the pickled function `body`."""

    join_s = 120.0  # a fork joins within milliseconds, unless the machine is swapping

    def __init__(
        self,
        rendezvous: Rendezvous,
        pipes: PipeReader,
        warm_up: Callable[[], ForkServer],
        body: bytes,
    ) -> None:
        self._rendezvous, self._pipes, self._warm_up, self._body = rendezvous, pipes, warm_up, body
        self._server = warm_up()
        self.host = socket.gethostname()

    def start(self, place: Place) -> Process | None:
        """Fork a process."""
        rendezvous = self._rendezvous

        def ended(child: Child) -> None:
            # A rank that believes itself orphaned is a symptom; its broken connection tells more.
            if child.status != ORPHAN_STATUS or rendezvous.elastic is not None:
                rendezvous.died(place.rank, str(child.cause), generation=place.generation)

        output = self._pipes.pipe(place.rank)
        try:
            self._server = self._warm_up()
            main = functools.partial(_rank_main, self._body, place)
            return self._server.fork(main, [output], ended)
        except ServerDiedError as error:
            rendezvous.died(place.rank, str(error), generation=place.generation)
            return None
        finally:
            os.close(output)

    def end(self, processes: Collection[Process]) -> None:
        """Kill what is left."""
        try:
            for process in processes:
                process.kill()
            gone = wait_for(processes, END_S)
        except KeyboardInterrupt:
            self._server.close()
            raise
        if not gone:  # the server is stuck
            self._server.close()


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
