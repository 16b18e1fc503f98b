"""What runs in an executor's Python worker: a rank of a process group, or an item of a pool.

Spark uses a Python worker again for the next task, of whatever job. So what a user's function
changes in its process is put back, and what it prints goes to the launcher.
"""

import contextlib
import io
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyspark import SparkFiles, TaskContext, cloudpickle

from sixfold.core.environment import variables_set
from sixfold.core.errors import PeerLostError, UserError
from sixfold.distributed.engines.rank_log import LONGEST_LINE_BYTES
from sixfold.distributed.engines.spark_package import importable
from sixfold.distributed.engines.spark_relay import reached
from sixfold.distributed.process_group.ambient import one_thread, own_randomness
from sixfold.distributed.process_group.communicator import Communicator
from sixfold.distributed.process_group.control import AttemptEndedError
from sixfold.distributed.process_group.faults import describe
from sixfold.distributed.process_group.malloc import freed_memory_kept
from sixfold.distributed.process_group.membership import Place, run_rank
from sixfold.distributed.process_group.wire import encode

PRINTED = "sixfold.printed"  # key of the events that carry what a rank has printed


@dataclass(frozen=True, kw_only=True)
class UserCode:
    """What a worker needs of the user's project."""

    archives: tuple[str, ...]  # names of the zip files with the modules
    # Variables of the environment that they read, as they are at the launcher; None: not set.
    variables: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is to do; it travels to the executors as part of the job."""

    function: bytes  # pickled, taking a `Communicator` or an item
    code: UserCode

    @contextmanager
    def loaded(self) -> Iterator[Callable[[Any], Any]]:
        """The function, in a process that is afterwards as it was before."""

        def function(argument: Any) -> Any:
            try:  # to load it too: what goes wrong is reported like anything else in it
                return cloudpickle.loads(self.function)(argument)
            except ModuleNotFoundError as error:
                raise UserError(missing_module(error.name or str(error))) from error

        archives = map(SparkFiles.get, self.code.archives)
        with (
            _process_kept(),
            variables_set(self.code.variables.items()),
            importable(archives),
        ):
            yield function


@dataclass(frozen=True, kw_only=True)
class RankTask(Task):
    """A rank of a process group: the only task of a job."""

    place: Place
    relay: Path | None = None  # see `spark_relay`

    def __call__(self, _: Iterable[Any]) -> list[Any]:
        """Run the rank; its result and its errors go to the rendezvous.

        Spark hears only of a rendezvous that is not there. A second attempt of Spark's own at the
        same task, a speculative copy for example, is not heard by the rendezvous while the first is
        there, and waits until Spark ends it.
        """
        started = time.monotonic()
        printed = _Lines()
        with printed.instead_of_streams(), self.loaded() as function, one_thread():

            def work(comm: Communicator) -> Any:
                printed.flow_to(lambda text: comm.report({PRINTED: text}))
                try:
                    return function(comm)
                finally:
                    with contextlib.suppress(PeerLostError):  # then nobody listens any more
                        printed.finish()

            try:
                with reached(self.place.address, self.relay) as (address, interface):
                    place = replace(self.place, address=address, interface=interface)
                    run_rank(work, place, exit_when_orphaned=True, started=started)
            except (AttemptEndedError, OSError) as error:  # of the ways to the launcher
                return [str(error)]
            except BaseException:  # SystemExit too; the launcher has heard of it
                return []
        return []


@dataclass(frozen=True, kw_only=True)
class ItemTask(Task):
    """An item of a pool: the only task of a job."""

    item: bytes  # pickled
    index: int
    tries: int  # how often it may be tried, by Spark's own repetitions too

    def __call__(self, _: Iterable[Any]) -> list[dict[str, Any]]:
        """Run the item; Spark carries its result, or its error, to the launcher as plain data."""
        context = TaskContext.get()
        if context is not None and context.attemptNumber() >= self.tries:
            return [{"printed": ""}]
        lines: list[str] = []
        printed = _Lines()
        printed.flow_to(lines.append)
        outcome: dict[str, Any]
        with printed.instead_of_streams(), self.loaded() as function, one_thread():
            try:
                with own_randomness(self.index):
                    value = function(cloudpickle.loads(self.item))
                encode(value)  # plain data, or a complaint
                outcome = {"value": json.loads(json.dumps(value))}
            except BaseException as error:  # SystemExit too
                fault = describe(error, rank=self.index, host=socket.gethostname())
                outcome = {"fault": fault.to_plain()}
            printed.finish()
        return [outcome | {"printed": "".join(lines)}]


def missing_module(name: str) -> str:
    """What to do about a module that this executor does not have."""
    return (
        f"Python module {name!r} is missing on the executor {socket.gethostname()} "
        f"({sys.executable}): install it there, or name a Python that has it with "
        "--spark-conf spark.pyspark.python=PATH"
    )


class _Lines(io.TextIOBase):
    """A text stream that hands on whole lines, and keeps them until it is known where to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rest = ""
        self._kept: list[str] = []
        self._sink: Callable[[str], object] = self._kept.append

    @contextmanager
    def instead_of_streams(self) -> Iterator[None]:
        """Take the place of the process's standard output and error."""
        with contextlib.redirect_stdout(self), contextlib.redirect_stderr(self):
            yield

    def flow_to(self, sink: Callable[[str], object]) -> None:
        """Hand on what has been kept, and from now on everything."""
        with self._lock:
            kept, self._kept, self._sink = self._kept, [], sink
            for text in kept:
                sink(text)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Hand on the lines that are complete now."""
        with self._lock:
            lines, newline, self._rest = (self._rest + text).rpartition("\n")
            if len(self._rest) > LONGEST_LINE_BYTES:
                lines, newline, self._rest = lines + newline + self._rest, "\n", ""
            if newline:
                self._sink(lines + newline)
        return len(text)

    def finish(self) -> None:
        """Hand on a line that was not ended, if there is one."""
        if self._rest:
            self.write("\n")


@contextmanager
def _process_kept() -> Iterator[None]:
    """Whatever the body changes in this process, change it back."""
    environment = dict(os.environ)
    folder = Path.cwd()
    path = list(sys.path)
    log_level, log_handlers = logging.root.level, list(logging.root.handlers)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings(), _torch_kept(), freed_memory_kept():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        with contextlib.suppress(OSError):  # the folder may be gone by now
            os.chdir(folder)
        sys.path[:] = path
        logging.root.setLevel(log_level)
        logging.root.handlers[:] = log_handlers
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if (multiprocessing := sys.modules.get("multiprocessing")) is not None:
            for child in multiprocessing.active_children():  # what the body has not ended
                child.kill()
                child.join()


@contextmanager
def _torch_kept() -> Iterator[None]:
    """Keep torch's settings of the process, also if it is imported only by the body."""
    torch = sys.modules.get("torch")
    threads, dtype, deterministic = None, None, False
    if torch is not None:
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS") or 1))
            torch.set_default_dtype(dtype or torch.float32)
            if torch.are_deterministic_algorithms_enabled() != deterministic:
                torch.use_deterministic_algorithms(deterministic)  # imports 800 modules
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
