"""The launcher's handle on its fork server and on the processes that the server forks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cloudpickle
import psutil

from sixfold.core.environment import HASH_SEED
from sixfold.core.errors import RunError
from sixfold.distributed.engines import fork_server, frames
from sixfold.distributed.engines.fork_server import Ended, ExpireAfter, Fork, Forked, Kill
from sixfold.distributed.process_group.faults import explain_status

_THREADS = "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMEXPR_NUM_THREADS"
ONE_THREAD = dict.fromkeys([*_THREADS.split(), "VECLIB_MAXIMUM_THREADS"], "1")
"""Environment of ranks: there are as many as cores, so each computes with one thread; and the
server must have a single thread when it forks."""

END_S = 5.0  # for the server, or a killed process, to be gone
START_S = 300.0
"""For the server to import what ranks need and to fork: seconds, unless from a slow network."""
DRAIN_S = 1.0  # for the last words of a process that has ended to come through its pipe


class ServerDiedError(RunError):
    """The fork server is dead, so a process could not be started."""


class Child:
    """A forked process."""

    def __init__(self, server: ForkServer, on_exit: Callable[[Child], None]) -> None:
        self._server = server
        self._on_exit = on_exit
        self._started = threading.Event()
        self._ended = threading.Event()
        self.pid = 0
        # exit status, negative for a signal; None while it runs or if nobody knows
        self.status: int | None = None
        self.cause: str | None = None  # how it ended, in words; None while it runs

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and to whatever it has started; harmless after its end."""
        if not self._ended.is_set():
            self._server.send(Kill(self.pid, number))

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; whether it has come."""
        return self._ended.wait(timeout_s)

    def _announce(self, status: int | None, cause: str) -> None:
        """Its end is certain and can be announced."""
        self.status, self.cause = status, cause
        self._on_exit(self)

    def _end(self) -> None:
        self._started.set()
        self._ended.set()


class ForkServer:
    """A running `fork_server`."""

    def __init__(
        self, preload: Sequence[str], variables: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Start it; it imports `preload` in the background, with more variables set."""
        self._environment = {**ONE_THREAD, **HASH_SEED, **variables}
        ours, theirs = socket.socketpair()
        self._pair = ours
        with theirs:
            # The launcher's own path, so that every module is found where the launcher finds it.
            path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
            self._process = subprocess.Popen(
                # -P: nothing in the working directory may shadow a module of the server.
                [sys.executable, "-P", "-m", fork_server.__name__, str(theirs.fileno()), *preload],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # so that Ctrl-C reaches the launcher only
                env={**os.environ, **self._environment, "PYTHONPATH": path},
            )
        self.pid = self._process.pid
        self._send_lock = threading.Lock()
        self._lock = threading.Lock()
        self._number = 0
        self._begun: dict[int, Child] = {}
        self._running: dict[int, Child] = {}
        self._dead: str | None = None
        self._closing = False
        self._reader = threading.Thread(target=self._read, daemon=True, name="sixfold-forks")
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether it can still fork."""
        return self._dead is None and not self._closing

    @property
    def idle(self) -> bool:
        """Whether it can fork and has no processes."""
        with self._lock:
            return self.alive and not self._running and not self._begun

    def expire_after(self, seconds: float | None) -> None:
        """It ends by itself when no process was asked for within so many seconds."""
        self.send(ExpireAfter(seconds))

    def fork(
        self,
        task: Callable[[list[int]], Any],
        descriptors: Sequence[int],
        on_exit: Callable[[Child], None],
    ) -> Child:
        """Start a process that calls `task` with duplicates of `descriptors[1:]`.

        The first descriptor becomes its standard output and error; `on_exit` is called in a thread
        when it has ended. A `ServerDiedError` says that the server is dead or does not answer.
        """
        child = Child(self, on_exit)
        environment = {**os.environ, **self._environment}
        body = cloudpickle.dumps(task)
        with self._lock:
            if self._dead is not None:
                raise ServerDiedError(f"it could not be started: {self._dead}")
            self._number += 1
            number = self._number
            self._begun[number] = child
        request = Fork(number, body, list(sys.path), list(sys.argv), str(Path.cwd()), environment)
        try:
            self.send(request, descriptors)
            if not child._started.wait(START_S):
                raise ServerDiedError(f"its fork server did not start it within {START_S:g} s")
        except BaseException:  # Ctrl-C: half a request may be out, or a process we do not know
            self.close()
            raise
        if child.pid == 0:
            raise ServerDiedError(f"it could not be started: {self._dead}")
        return child

    def close(self) -> None:
        """End the server and all its processes; harmless if called twice."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._pair.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join()
        self._pair.close()

    def send(self, message: Fork | Kill | ExpireAfter, descriptors: Sequence[int] = ()) -> None:
        """Send it a message; harmless if it is dead."""
        with self._send_lock, contextlib.suppress(OSError):  # if it is dead, the reader finds out
            frames.send(self._pair, message, descriptors)

    def _read(self) -> None:
        while (received := frames.receive(self._pair)) is not None:
            message = received[0]
            if isinstance(message, Forked):
                with self._lock:
                    child = self._begun.pop(message.number)
                    self._running[message.pid] = child
                child.pid = message.pid
                child._started.set()
            elif isinstance(message, Ended):
                with self._lock:
                    child = self._running.pop(message.pid)
                child._announce(message.status, explain_status(message.status))
                child._end()
        self._server_died(self._process.wait())

    def _server_died(self, status: int) -> None:
        """The server is dead, and all its processes must be."""
        ending = explain_status(status) if status >= 0 else f"was {explain_status(status)}"
        cause = f"its fork server (process {self.pid}) {ending}"
        with self._lock:
            self._dead = cause
            running, begun = list(self._running.values()), list(self._begun.values())
        for child in running:
            child._announce(None, cause)
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + END_S
        for child in running:
            while _runs(child.pid) and time.monotonic() < deadline:
                time.sleep(0.01)
        for child in [*running, *begun]:
            child._end()


def _runs(pid: int) -> bool:
    """Whether a process that is no child of ours has not ended, asked for its status or not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
