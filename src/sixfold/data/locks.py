"""One process at a time in a folder: held by the operating system, so a crash lets go of it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sixfold.errors import UserError


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Have a folder to oneself.

    Args:
        folder: holds the lock's file; made if absent. May be removed while the lock is held.
        wait: whether to wait for another holder.

    Raises:
        UserError: if another process has the folder and `wait` is false.
    """
    descriptor = _acquire(folder, wait)
    try:
        yield
    finally:
        # Closing alone would not do: a process forked meanwhile has the file open too.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _acquire(folder: Path, wait: bool) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the last holder has just removed the folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"{folder.parent}: another process is preparing shards there: wait for it"
            ) from None
        except OSError:
            # A file system without locks: better to go on than to refuse it.
            return descriptor
        # A holder that finishes removes the file: then this is a lock on something gone.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
        os.close(descriptor)
