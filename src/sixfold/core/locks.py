"""One process at a time in a folder: held by the operating system, so a crash lets go of it."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import UserError
from sixfold.core.files import make_folder, space_explained

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"  # in a run's directory while the run lives
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems say that have no locks, such as some of NFS."""


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Have a folder to oneself, which is made if absent, and may be removed meanwhile.

    Another holder is waited for, or a `UserError` tells of it.
    """
    lock = _acquire(folder, wait)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(folder: Path, wait: bool) -> BaseFileLock | None:
    """The lock of a folder; None on a file system without locks: better to go on than to refuse."""
    from filelock import FileLock, Timeout

    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=-1 if wait else 0, fallback_to_soft=False)
        try:
            lock.acquire(poll_interval=0.05)
        except FileNotFoundError:  # the last holder has just removed the folder
            continue
        except Timeout:
            raise UserError(
                f"{folder.parent}: another process is preparing shards there: wait for it"
            ) from None
        except OSError:
            return None
        return lock


@contextmanager
def held(path: Path, *, is_file: bool = False) -> Iterator[None]:
    """Have a run's directory, or the file that a command writes, to oneself, or say who has it.

    A directory is made if absent, and removed if it is left empty; a file's lock lies next to it.
    """
    made = [] if is_file else [p for p in (path, *path.parents) if not p.exists()]
    if not is_file and not path.is_dir():
        make_folder(path)
    file = path.with_name(f".{path.name}{LOCK}") if is_file else path / LOCK
    lock = None
    try:
        lock = _hold(file, path)
        if lock is not None:
            facts = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
            with space_explained(file.parent):
                file.write_text(json.dumps(facts))
        yield
    finally:
        if lock is not None:
            with suppress(OSError):  # while it is held: who opened it meanwhile sees it go
                file.unlink()
            lock.release()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _hold(file: Path, path: Path) -> BaseFileLock | None:
    """The lock of `path`, whose file says who has it.

    None where it cannot be written: then a finished run is only read, and any other refused. Where
    files cannot be locked another one stands for the lock as long as its holder lives; what a
    killed process of this host has left is taken over.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    gone = ""
    try:
        try:
            lock: BaseFileLock = FileLock(file, timeout=0.1, fallback_to_soft=False)
            lock.acquire()
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
                raise
            gone = f" (if it is gone, remove {file}-held)"
            lock = SoftFileLock(f"{file}-held", timeout=0.1)
            lock.acquire()
    except Timeout:
        try:
            file.touch()  # filelock waits for a file that cannot be made as for one that is held
        except OSError:
            return None
        message = f"{path} is in use by {_holder(file)}: wait for it{gone}, or choose another --out"
        raise UserError(message) from None
    except OSError:
        return None
    return lock


def _holder(file: Path) -> str:
    """What a lock's file says of its holder, which may be writing it just now."""
    with suppress(OSError, ValueError, AttributeError):
        facts: Any = json.loads(file.read_bytes())
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts.get("time", 0)))
        return f"process {facts.get('pid')} on {facts.get('host')}, since {began}"
    return "another process"
