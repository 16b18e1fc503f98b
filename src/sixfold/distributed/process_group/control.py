"""A rank's connection to its launcher, and the thread that minds it.

The thread sends a sign of life every second, hears when to stop, tells what this rank is doing when
asked, and notices when the launcher, or this attempt, is over.
"""

from __future__ import annotations

import gc
import os
import queue
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any

from sixfold.core.errors import PeerLostError
from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.communicator import PlainData
from sixfold.distributed.process_group.mesh import Mesh
from sixfold.distributed.process_group.views import Standing
from sixfold.distributed.process_group.wire import Address

HEARTBEAT_S = 1.0
PART_S = 10.0  # for the launcher to confirm that it has heard the last word of this rank
MOST_FRAMES = 12  # of where a rank is, in each sign of life: under 1 KB
ORPHAN_STATUS = 114  # exit status of a rank whose launcher or attempt has ended

_LOOKING = threading.Lock()


class AttemptEndedError(PeerLostError):
    """The launcher is gone, or has ended the attempt that this rank belongs to."""

    def __init__(self, detail: str) -> None:
        super().__init__(-1)
        self.args = (f"the launcher ended this attempt: {detail}",)


class Control:
    """The connection to the launcher."""

    def __init__(self, address: Address, secret: bytes, *, exit_when_orphaned: bool) -> None:
        """Connect to the launcher; an `AttemptEndedError` if nobody is there."""
        try:
            # over which messages go
            self.connection = wire.Connection(wire.connect(address, secret))
        except OSError as error:
            raise AttemptEndedError(
                f"nobody answers at {address[0]}:{address[1]}: {error}"
            ) from error
        self.stop_asked = False  # the launcher has asked all ranks to stop
        self.standing = Standing()  # in which view this process may act
        self.meeting: Mapping[int, socket.socket] = {}  # connections before they are a mesh's
        self._rank_thread = threading.get_ident()
        self._exit_when_orphaned = exit_when_orphaned
        self._ended: str | None = None
        self._parting = False
        self._mesh: Mesh | None = None
        # what the launcher says of views, and peers that call; None when the attempt is over
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._mind, daemon=True, name="sixfold-control")

    def __enter__(self) -> Control:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._parting = True
        self.connection.shut()
        self._thread.join()
        self.connection.close()

    def watch(self, mesh: Mesh) -> None:
        """Report on this mesh from now on, and end it with the attempt."""
        self._mesh = mesh
        self.connection.send({"kind": "met"})
        self.check()

    def check(self) -> None:
        """Raise if the attempt is over."""
        if self._ended is not None:
            raise AttemptEndedError(self._ended)

    def part(self, last_word: PlainData) -> None:
        """Say the last word and wait until the launcher has heard it."""
        self._parting = True
        if self.connection.send(last_word):
            self._thread.join(PART_S)

    def _mind(self) -> None:
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        beat = 0.0
        while True:
            wait_s = beat - time.monotonic()
            if wait_s <= 0:
                mesh = self._mesh
                sign_of_life = {
                    "kind": "alive",
                    "progress": 0 if mesh is None else mesh.progress,
                    "waiting_for": [] if mesh is None else list(mesh.waiting_for),
                    # A process that is frozen cannot be asked any more.
                    "stack": _place(self._rank_thread),
                }
                self.connection.send(sign_of_life)
                beat = time.monotonic() + HEARTBEAT_S
                continue
            if not poll.poll(wait_s * 1000):
                continue
            message = self.connection.receive()
            if message is None or message["kind"] == "refuse":
                self._orphaned("" if message is None else message["reason"])
                return
            if message["kind"] == "stop":
                self.stop_asked = True
            elif message["kind"] == "dump":
                self.connection.send({"kind": "stacks", "lines": _stacks()})
            elif message["kind"] == "bye":
                return
            else:
                self._hear_of_view(message)

    def _hear_of_view(self, message: dict[str, Any]) -> None:
        kind, view = message["kind"], message.get("view", 1)
        if kind == "ask":
            self.standing.ask(view)
        elif kind == "end" and self.standing.end(view):
            self._cut_off()
            self.inbox.put(message)
        elif kind == "prepare" or (kind == "start" and self.standing.start(view)):
            self.inbox.put(message)

    def _cut_off(self) -> None:
        """Let exchanges fail, those of a meeting too."""
        for connection in list(self.meeting.values()):
            wire.shut(connection)
        if self._mesh is not None:
            self._mesh.shut()

    def _orphaned(self, reason: str) -> None:
        if self._parting:
            return
        if self._exit_when_orphaned:
            os._exit(ORPHAN_STATUS)
        self._ended = reason or "it closed the connection"
        self._cut_off()
        self.inbox.put(None)


def _frames() -> dict[int, FrameType]:
    """Where each thread is.

    Meanwhile no garbage is collected: Python before 3.12 holds a lock of its own that every start
    and end of a thread takes as well, and a finalizer that lets another thread run would have both
    wait for each other for ever, with all other threads (python/cpython#106883).
    """
    with _LOOKING:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()
        finally:
            if collects:
                gc.enable()


def _place(thread: int) -> list[str]:
    """Where a thread is, the innermost call last; cheap, since no source is read."""
    frame, lines = _frames().get(thread), list[str]()
    while frame is not None and len(lines) < MOST_FRAMES:
        code = frame.f_code
        lines.append(f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}')
        frame = frame.f_back
    return lines[::-1]


def _stacks() -> list[str]:
    """What every thread of this process is doing, except the one that tells."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in _frames().items():
        if ident == threading.get_ident():
            continue
        lines.append(f"thread {names.get(ident, ident)}:")
        lines += "".join(traceback.format_stack(frame)).splitlines()
    return lines
