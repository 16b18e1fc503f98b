"""What ranks print: appended to a file, a line at a time, each with the number of its rank."""

import contextlib
import io
import os
import selectors
import threading
from collections import defaultdict, deque
from pathlib import Path
from typing import BinaryIO

from sixfold.distributed.process_group.faults import TAIL_LINES

LONGEST_LINE_BYTES = 1 << 16
"""A rank that prints without line breaks is cut here, instead of filling the memory."""


class RankLog:
    r"""Lines of all ranks; safe to feed from several threads.

    >>> log = RankLog(None)
    >>> log.feed(1, b"one line, and an")
    >>> log.feed(1, b"other\n")
    >>> log.tail(1)
    ('one line, and another',)
    """

    def __init__(self, path: Path | None) -> None:
        """Append to a file; without one, keep only the last lines of each rank."""
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None if path is None else path.open("ab", buffering=0)
        # Rank and life -> the line that it has begun.
        self._rest: dict[tuple[int, int], bytes] = defaultdict(bytes)
        self._tails: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=TAIL_LINES))
        self._lives: dict[int, int] = defaultdict(int)  # rank -> how often it has begun anew

    def begin(self, rank: int) -> int:
        """The rank begins anew: the last lines so far, and those still to come, are not its own.

        Returns the number of its life, for `feed` and `end`.
        """
        with self._lock:
            self._lives[rank] += 1
            self._tails.pop(rank, None)
            return self._lives[rank]

    def feed(self, rank: int, data: bytes, life: int | None = None) -> None:
        """Take what a rank has printed in a life, the present one if absent.

        It need not end with a line.
        """
        with self._lock:
            life = self._lives[rank] if life is None else life
            *lines, rest = (self._rest[rank, life] + data).split(b"\n")
            if len(rest) > LONGEST_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            self._rest[rank, life] = rest
            self._write(rank, life, lines)

    def note(self, text: str) -> None:
        """Write a line of the launcher's own."""
        with self._lock, contextlib.suppress(OSError):
            if self._file is not None:
                self._file.write(f"[launcher] {text}\n".encode())

    def end(self, rank: int, life: int) -> None:
        """The rank prints no more in a life: what it left without a line break is a line too."""
        with self._lock:
            if rest := self._rest.pop((rank, life), b""):
                self._write(rank, life, [rest])

    def tail(self, rank: int) -> tuple[str, ...]:
        """The last lines of a rank."""
        with self._lock:
            return tuple(self._tails[rank])

    def close(self) -> None:
        """Write what is left and close the file."""
        for rank, life in list(self._rest):
            self.end(rank, life)
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, rank: int, life: int, lines: list[bytes]) -> None:
        if life == self._lives[rank]:
            self._tails[rank].extend(line.decode(errors="replace").rstrip("\r") for line in lines)
        if self._file is not None and lines:
            tag = f"[rank {rank}] ".encode()
            with contextlib.suppress(OSError):  # a full disk: what ranks print is not worth a run
                self._file.write(b"".join(tag + line + b"\n" for line in lines))


class RankWriter(io.TextIOBase):
    """A text stream, to stand in for `sys.stdout`, that feeds a `RankLog`."""

    def __init__(self, log: RankLog, rank: int) -> None:
        self._log = log
        self._rank = rank

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Feed the log."""
        self._log.feed(self._rank, text.encode(errors="replace"))
        return len(text)


class PipeReader:
    """One thread that reads the pipes of all ranks into a `RankLog`."""

    def __init__(self, log: RankLog) -> None:
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._open: dict[int, threading.Event] = {}
        self._thread = threading.Thread(target=self._read, daemon=True, name="sixfold-log")
        self._thread.start()

    def pipe(self, rank: int) -> int:
        """The writing end of a new pipe for a rank's process, to be handed on and then closed."""
        life = self._log.begin(rank)
        reading, writing = os.pipe()
        self._open[rank] = threading.Event()
        self._selector.register(reading, selectors.EVENT_READ, (rank, life, self._open[rank]))
        return writing

    def drain(self, rank: int, timeout_s: float) -> None:
        """Wait until everything that a rank which has ended had printed is in the log."""
        if rank in self._open:
            self._open[rank].wait(timeout_s)

    def close(self) -> None:
        """Stop reading, even where something still holds the other end of a pipe."""
        os.write(self._wake_write, b".")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        os.close(self._wake_write)
        self._selector.close()

    def _read(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                rank, life, ended = key.data
                data = os.read(key.fd, 1 << 16)
                if data:
                    self._log.feed(rank, data, life)
                else:
                    self._log.end(rank, life)
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    ended.set()
