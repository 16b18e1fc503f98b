"""Calls to the launcher by way of a shared folder, where executors cannot call its host.

That is how it is with many Spark Connect servers. What either side sends is appended to a file,
from which the other reads; connections are authenticated and encrypted from end to end as ever.
Ranks still call each other directly.
"""

import contextlib
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sixfold.distributed.process_group.wire import Address

REACH_S = 3.0  # for the launcher's host to answer an executor directly
POLL_S = 0.02
BEAT_S = 1.0
SILENT_S = 60.0  # without a beat of the launcher, after which it is taken to be gone

_CHUNK_BYTES = 2**20


class Relay:
    """The launcher's side: calls its own port for every rank that calls through the folder."""

    def __init__(self, folder: Path, address: Address) -> None:
        self._folder, self._address = folder, address
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier launch
        folder.mkdir(parents=True)
        self._over = threading.Event()
        self._pumps: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._watch, daemon=True, name="sixfold-relay")
        self._thread.start()

    def close(self) -> None:
        """End all calls."""
        self._over.set()
        self._thread.join()
        for pump in self._pumps:
            pump.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self) -> None:
        known: set[str] = set()
        beats, beat_at = 0, 0.0
        while not self._over.wait(POLL_S):
            if time.monotonic() >= beat_at:
                beats, beat_at = beats + 1, time.monotonic() + BEAT_S
                (self._folder / "beat").write_text(str(beats), encoding="ascii")
            for call in sorted(self._folder.glob("*.up")):
                if call.stem not in known:
                    known.add(call.stem)
                    with contextlib.suppress(OSError):  # the group is over
                        connection = socket.create_connection(self._address)
                        down = call.with_suffix(".down")
                        self._pumps += _join(connection, down, call, self._over.is_set)


@contextmanager
def reached(address: Address, folder: Path | None) -> Iterator[tuple[Address, str | None]]:
    """An address by which the launcher is reached from here, directly or through a folder.

    With it comes, if it is through a folder, the address of this host for other ranks.
    """
    if folder is None or _answers(address) or not folder.is_dir():
        yield address, None
        return
    over = threading.Event()
    pumps: list[threading.Thread] = []
    beat = _Beat(folder / "beat")
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(REACH_S)

        def answer() -> None:
            try:
                connection, _ = door.accept()
            except OSError:
                return
            connection.settimeout(None)
            call = folder / f"{secrets.token_hex(8)}.up"
            pumps.extend(
                _join(
                    connection,
                    call,
                    call.with_suffix(".down"),
                    lambda: over.is_set() or beat.is_missed(),
                )
            )

        threading.Thread(target=answer, daemon=True, name="sixfold-relay").start()
        try:
            yield ("127.0.0.1", door.getsockname()[1]), _own_address(address)
        finally:
            over.set()
            for pump in pumps:
                pump.join()


class _Beat:
    """Whether the launcher still writes; only its own count is compared, no clocks."""

    def __init__(self, file: Path) -> None:
        self._file, self._seen, self._since = file, "", time.monotonic()

    def is_missed(self) -> bool:
        now = time.monotonic()
        with contextlib.suppress(OSError):
            seen = self._file.read_text(encoding="ascii")
            if seen != self._seen:
                self._seen, self._since = seen, now
        return now - self._since > SILENT_S


def _answers(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=REACH_S).close()
    except OSError:
        return False
    return True


def _own_address(address: Address) -> str:
    """This host's on the way to the launcher's, to which nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)
        except OSError:
            return socket.gethostbyname(socket.gethostname())
        return str(probe.getsockname()[0])


def _join(
    connection: socket.socket, outgoing: Path, incoming: Path, is_over: Callable[[], bool]
) -> list[threading.Thread]:
    """Let what the connection says be in one file, and say to it what is in another."""
    outgoing.touch()
    ended = threading.Event()  # the connection was closed at its other end

    def listen() -> None:
        with outgoing.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while data := connection.recv(_CHUNK_BYTES):
                file.write(data)
        ended.set()
        outgoing.with_name(f"{outgoing.name}.end").touch()

    def speak() -> None:
        place, end = 0, incoming.with_name(f"{incoming.name}.end")
        with connection, contextlib.suppress(OSError):
            while not is_over():
                is_last = end.exists()  # looked at before the rest is read
                data = _read(incoming, place)
                place += len(data)
                connection.sendall(data)
                if not data and (is_last or ended.wait(POLL_S)):
                    break
            connection.shutdown(socket.SHUT_RDWR)

    threads = [
        threading.Thread(target=work, daemon=True, name="sixfold-relay") for work in (listen, speak)
    ]
    for thread in threads:
        thread.start()
    return threads


def _read(file: Path, place: int) -> bytes:
    """What has been appended to a file; opened anew, since network drives look only then."""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as source:
        source.seek(place)
        return source.read(_CHUNK_BYTES)
    return b""
