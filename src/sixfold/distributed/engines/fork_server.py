"""The process that forks ranks: `python -m ... DESCRIPTOR MODULE...`.

It imports the modules that ranks need while it has a single thread, then forks a process for every
request, so that a rank starts in milliseconds and shares the memory of the imported code. (The
allocator of pyarrow starts a thread on import; that one knows about forks. The standard library's
`multiprocessing` has such a server too, but runs the user's script again in every child.)

When the launcher's end of the inherited socket pair closes, all children are killed and the server
ends. The server's own death kills its children through the kernel where that can be asked for, and
through their launcher's connections everywhere.

Messages (`frames`) from the launcher: `Fork`, `Kill`, `ExpireAfter`. To it: `Forked` and `Ended`.
"""

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import NoReturn

from sixfold.distributed.engines import frames

PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when its parent dies; Linux only


@dataclass(frozen=True)
class Fork:
    """Run a task in a new process."""

    number: int  # by which the answer is recognised
    # pickled callable that takes a list of the descriptors sent along but the first, which becomes
    # the process's standard output and error
    task: bytes
    path: list[str]
    arguments: list[str]
    directory: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Kill:
    """Send a signal to a child and whatever it has started."""

    pid: int
    signal: int


@dataclass(frozen=True)
class ExpireAfter:
    """End when no process was asked for within so many seconds; None: never."""

    seconds: float | None


@dataclass(frozen=True)
class Forked:
    """A process was started."""

    number: int
    pid: int


@dataclass(frozen=True)
class Ended:
    """A process has ended; status is negative for a signal, as in `subprocess`."""

    pid: int
    status: int


def main() -> None:
    """Serve until the launcher's end of the pair closes."""
    launcher = socket.socket(fileno=int(sys.argv[1]))
    launcher.set_inheritable(False)
    for name in sys.argv[2:]:
        with contextlib.suppress(Exception):  # what cannot be imported is left to the ranks
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # keeps the collector of every rank from copying what all of them share
    _Server(launcher).serve()


class _Server:
    """One thread that waits for requests and for the ends of children."""

    def __init__(self, launcher: socket.socket) -> None:
        self._launcher = launcher
        self._children: set[int] = set()
        self._patience_s: float | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self._launcher.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        try:
            while True:
                patience_s = self._patience_s
                ready = dict(poll.poll(patience_s and 1000 * patience_s))
                if not ready:
                    return
                if self._wake_read in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                    self._reap()
                if self._launcher.fileno() in ready:
                    request = frames.receive(self._launcher)
                    if request is None:
                        return
                    self._do(*request)
        except OSError:  # the launcher vanished between two messages
            return
        finally:
            for pid in self._children:
                _kill_group(pid, signal.SIGKILL)
            for pid in self._children:
                os.waitpid(pid, 0)

    def _do(self, request: Fork | Kill | ExpireAfter, descriptors: list[int]) -> None:
        if isinstance(request, ExpireAfter):
            self._patience_s = request.seconds
            return
        if isinstance(request, Kill):
            if request.pid in self._children:
                _kill_group(request.pid, request.signal)
            return
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_rank(request, descriptors)
        with contextlib.suppress(OSError):  # the child does the same; whoever comes first
            os.setpgid(pid, pid)
        self._children.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        frames.send(self._launcher, Forked(request.number, pid))

    def _reap(self) -> None:
        for pid in list(self._children):
            status = _status(pid)
            if status is None:
                continue
            self._children.discard(pid)
            frames.send(self._launcher, Ended(pid, os.waitstatus_to_exitcode(status)))

    def _become_rank(self, request: Fork, descriptors: list[int]) -> NoReturn:
        status = 1
        try:
            server = os.getppid()
            self._launcher.close()
            signal.set_wakeup_fd(-1)
            os.close(self._wake_read)
            os.close(self._wake_write)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's business
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            # Ask the kernel to kill this process when the server dies.
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
            if os.getppid() != server:  # it has died already
                os._exit(1)
            output, *others = descriptors
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            faulthandler.enable()
            os.environ.clear()
            os.environ.update(request.environment)
            sys.path[:] = request.path
            sys.argv[:] = request.arguments
            os.chdir(request.directory)
            pickle.loads(request.task)(others)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)  # without the exit handlers of the server


def _status(pid: int) -> int | None:
    """How a child has ended, once what it has left behind is killed; None while it runs."""
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        _kill_group(pid, signal.SIGKILL)  # while its number is still taken
        return os.waitpid(pid, 0)[1]
    # macOS before Python 3.13: for a moment the number is free before the group is killed.
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return None
    _kill_group(pid, signal.SIGKILL)
    return status


def _kill_group(pid: int, number: int) -> None:
    """Signal a process and its descendants."""
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


if __name__ == "__main__":
    # Classes must be pickled as those of the importable module, not of `__main__`.
    from sixfold.distributed.engines import fork_server

    fork_server.main()
