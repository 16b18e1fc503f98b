"""A rank's side of a gang: it joins, meets the others, works, and leaves nothing behind.

A control thread keeps the connection to the launcher: it sends a sign of life every second, hears
when to stop, shows this rank's stacks when asked, and notices when the launcher, or this attempt
at the run, is over. A rank that has been superseded cannot go on: its process ends at once
(`exit_when_orphaned`), or every further exchange fails.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sixfold.errors import PeerLostError
from sixfold.world import wire
from sixfold.world.ambient import cores, own_randomness
from sixfold.world.faults import describe
from sixfold.world.mesh import Mesh
from sixfold.world.wire import Address
from sixfold.world.world import Buffer, PlainData, World

HEARTBEAT_S = 1.0
MEET_S = 30.0
"""For connecting to the other ranks, once the launcher knows that all of them run."""
PART_S = 10.0
"""For the launcher to confirm that it has heard the last word of this rank."""
ORPHAN_STATUS = 114
"""Exit status of a rank whose launcher or attempt has ended."""


class AttemptEndedError(PeerLostError):
    """The launcher is gone, or has ended the attempt that this rank belongs to."""

    def __init__(self, detail: str) -> None:
        super().__init__(-1)
        self.args = (f"the launcher ended this attempt: {detail}",)


@contextmanager
def join(
    address: Address,
    secret: bytes,
    *,
    rank: int,
    size: int,
    generation: int = 0,
    host: str | None = None,
    exit_when_orphaned: bool = False,
    started: float | None = None,
) -> Iterator[World]:
    """Be a rank: join the launcher's rendezvous, meet all other ranks, and leave at the end.

    If the body raises, the launcher is told why before the exception goes on.

    Args:
        address: of the launcher's `Rendezvous`.
        secret: of the same.
        rank: number of this rank.
        size: number of ranks that the caller believes in; the launcher checks it.
        generation: which try of the whole gang this is, from 0; a higher one supersedes lower.
        host: name of this host in messages.
        exit_when_orphaned: end the process at once when the launcher or the attempt is gone.
            Otherwise exchanges and `should_stop` raise.
        started: `time.monotonic()` when our first line of code ran in this process.

    Yields:
        The rank's world.

    Raises:
        AttemptEndedError: if the launcher is gone or wants no rank of this generation.
        PeerLostError: if another rank is lost.
    """
    with _member(
        address, secret, rank, size, generation, host, exit_when_orphaned, started
    ) as member:
        yield member.world


def run_rank(
    function: Callable[[World], Any],
    address: Address,
    secret: bytes,
    *,
    rank: int,
    size: int,
    generation: int = 0,
    host: str | None = None,
    exit_when_orphaned: bool = False,
    started: float | None = None,
) -> None:
    """Join, call `function(world)` and hand its result (plain data) to the launcher.

    Random generators that belong to the process start from the rank's number and are put back at
    the end. Arguments and errors as for `join`; what the function raises, goes on.
    """
    with _member(
        address, secret, rank, size, generation, host, exit_when_orphaned, started
    ) as member:
        with own_randomness(rank):
            member.result = function(member.world)
        wire.encode(member.result)  # complain while it can still be reported


@contextmanager
def _member(
    address: Address,
    secret: bytes,
    rank: int,
    size: int,
    generation: int,
    host: str | None,
    exit_when_orphaned: bool,
    started: float | None,
) -> Iterator[_Member]:
    host = host or socket.gethostname()
    age_s = 0.0 if started is None else time.monotonic() - started
    with (
        _Control(address, secret, exit_when_orphaned=exit_when_orphaned) as control,
        contextlib.ExitStack() as goodbye,  # peers see the end after the launcher has heard why
    ):
        try:
            introduction = {
                "rank": rank,
                "size": size,
                "generation": generation,
                "host": host,
                "pid": os.getpid(),
                "age_s": age_s,
            }
            start, sockets = _meet(control, secret, generation, introduction)
            local = [there for there, _ in start["peers"]].count(start["peers"][rank][0])
            mesh = goodbye.enter_context(contextlib.closing(Mesh(sockets, spin=local <= cores())))
            control.watch(mesh)
            member = _Member(rank, size, host, start["attempt"], mesh, control)
            yield member
        except BaseException as error:
            fault = describe(error, rank=rank, host=host)
            control.part({"kind": "error", "fault": fault.to_plain()})
            raise
        control.part({"kind": "result", "value": member.result})


class _Member:
    """The link of a rank that is a process of its own."""

    def __init__(
        self, rank: int, size: int, host: str, attempt: int, mesh: Mesh, control: _Control
    ) -> None:
        self._mesh = mesh
        self._control = control
        self.result: Any = None
        self.world = World(rank=rank, size=size, host=host, attempt=attempt, link=self)

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        try:
            return self._mesh.exchange(sends, receives)
        except PeerLostError:
            self._control.check()
            raise

    def report(self, event: PlainData) -> None:
        if not self._control.connection.send({"kind": "event", "event": dict(event)}):
            self._control.check()

    def should_stop(self) -> bool:
        self._control.check()
        return self._control.stop_asked


class _Control:
    """The connection to the launcher, and the thread that minds it."""

    def __init__(self, address: Address, secret: bytes, *, exit_when_orphaned: bool) -> None:
        try:
            self.connection = wire.Connection(wire.connect(address, secret))
        except OSError as error:
            raise AttemptEndedError(
                f"nobody answers at {address[0]}:{address[1]}: {error}"
            ) from error
        self.stop_asked = False
        self._exit_when_orphaned = exit_when_orphaned
        self._ended: str | None = None
        self._parting = False
        self._mesh: Mesh | None = None
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._mind, daemon=True, name="sixfold-control")

    def __enter__(self) -> _Control:
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
                self.connection.send(self._sign_of_life())
                beat = time.monotonic() + HEARTBEAT_S
                continue
            if not poll.poll(wait_s * 1000):
                continue
            message = self.connection.receive()
            if message is None or message["kind"] == "refuse":
                self._orphaned("" if message is None else message["reason"])
                return
            if message["kind"] == "start":
                self.inbox.put(message)
            elif message["kind"] == "stop":
                self.stop_asked = True
            elif message["kind"] == "dump":
                self.connection.send({"kind": "stacks", "lines": _stacks()})
            elif message["kind"] == "bye":
                return

    def _sign_of_life(self) -> dict[str, Any]:
        if self._mesh is None:
            return {"kind": "alive", "progress": 0, "waiting_for": []}
        return {
            "kind": "alive",
            "progress": self._mesh.progress,
            "waiting_for": list(self._mesh.waiting_for),
        }

    def _orphaned(self, reason: str) -> None:
        if self._parting:
            return
        if self._exit_when_orphaned:
            os._exit(ORPHAN_STATUS)
        self._ended = reason or "it closed the connection"
        self.inbox.put(None)
        if self._mesh is not None:
            self._mesh.shut()


def _meet(
    control: _Control, secret: bytes, generation: int, introduction: dict[str, Any]
) -> tuple[dict[str, Any], dict[int, socket.socket]]:
    """Tell the launcher where to be found, learn where the others are, and connect to them.

    A rank calls all lower ranks and is called by all higher ones.

    Returns:
        The launcher's start message, and a connection to every peer.
    """
    rank, size = introduction["rank"], introduction["size"]
    inbox = control.inbox

    def arrived(connection: socket.socket) -> None:
        connection.settimeout(wire.HANDSHAKE_S)
        hello = wire.receive(connection)
        if hello is None:
            connection.close()
        else:
            inbox.put((hello["rank"], connection))

    # A rank of another generation does not know this secret, even if it finds the port.
    mesh_secret = wire.derive(secret, f"mesh of generation {generation}")
    door = wire.Door(control.connection.local_host(), mesh_secret, arrived)
    sockets: dict[int, socket.socket] = {}
    start: dict[str, Any] = {}
    deadline: float | None = None
    try:
        control.connection.send(introduction | {"kind": "join", "address": door.address})
        while not start or len(sockets) < size - 1:
            wait_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                arrival = inbox.get(timeout=wait_s)
            except queue.Empty:
                missing = min(set(range(size)) - set(sockets) - {rank})
                raise PeerLostError(missing, f"it did not call within {MEET_S:g} s") from None
            control.check()
            if isinstance(arrival, dict):
                start = arrival
                deadline = time.monotonic() + MEET_S
                for peer in range(rank):
                    sockets[peer] = _call(peer, tuple(start["peers"][peer]), mesh_secret, rank)
            else:
                sockets[arrival[0]] = arrival[1]
    except BaseException:
        door.close()
        _close_all(sockets, inbox)
        raise
    door.close()
    return start, sockets


def _call(peer: int, address: Address, secret: bytes, rank: int) -> socket.socket:
    """Connect to a lower rank and say who calls."""
    try:
        connection = wire.connect(address, secret, timeout_s=MEET_S)
        connection.sendall(wire.encode({"rank": rank}))
    except OSError as error:
        where = f"{address[0]}:{address[1]}"
        raise PeerLostError(peer, f"cannot be reached at {where}: {error}") from error
    return connection


def _close_all(sockets: Mapping[int, socket.socket], inbox: queue.SimpleQueue[Any]) -> None:
    """Give back the connections of a meeting that failed, those not yet looked at too."""
    for connection in sockets.values():
        connection.close()
    while not inbox.empty():
        arrival = inbox.get()
        if isinstance(arrival, tuple):
            arrival[1].close()


def _stacks() -> list[str]:
    """What every thread of this process is doing, except the one that tells."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        if ident == threading.get_ident():
            continue
        lines.append(f"thread {names.get(ident, ident)}:")
        lines += "".join(traceback.format_stack(frame)).splitlines()
    return lines
