"""One process at a time in a folder: held by the operating system, so a crash lets go of it.

`locked` guards shards while they are made; `held` a run's directory or an output file for as long
as the run lives, and tells whoever comes second who has it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.files import make_folder

LOCK = ".lock"
"""In a run's directory while the run lives."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What `flock` says on file systems that have none, such as some of NFS."""


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


@contextmanager
def held(path: Path, *, is_file: bool = False) -> Iterator[None]:
    """Have a run's directory, or the file that a command writes, to oneself.

    Args:
        path: the directory, made if absent and removed if it is left empty; or the file, whose
            lock lies beside it.
        is_file: which of them.

    Raises:
        UserError: if another process, of this host or another, has it; or if the directory cannot
            be made.
    """
    made = [] if is_file else [p for p in (path, *path.parents) if not p.exists()]
    if not is_file and not path.is_dir():
        make_folder(path)
    lock = path.with_name(f".{path.name}{LOCK}") if is_file else path / LOCK
    release = _hold(lock, path)
    try:
        yield
    finally:
        release()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _hold(lock: Path, path: Path) -> Callable[[], None]:
    """Take the lock of `path`; what lets go of it."""
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            # Not to be written: then a finished run is only read here, and any other is refused.
            return lambda: None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _in_use(path, _holder(lock)) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            return _hold_softly(lock, path, facts)
        if lock.exists() and os.fstat(descriptor).st_ino == lock.stat().st_ino:
            break
        os.close(descriptor)  # removed by its last holder meanwhile
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps(facts).encode())

    def release() -> None:
        with suppress(OSError):
            lock.unlink()
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    return release


def _hold_softly(lock: Path, path: Path, facts: dict[str, Any]) -> Callable[[], None]:
    """The same where files cannot be locked: a file that is there as long as its holder lives.

    One that a killed process of this host has left is taken over.
    """
    sign = lock.with_name(f"{lock.name}-held")
    while True:
        try:
            descriptor = os.open(sign, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            break
        except FileExistsError:
            holder = _holder(sign)
            if holder.get("host") != facts["host"] or _is_alive(holder.get("pid")):
                raise _in_use(path, holder, sign) from None
            sign.unlink(missing_ok=True)
    os.write(descriptor, json.dumps(facts).encode())
    os.close(descriptor)

    def release() -> None:
        sign.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)

    return release


def _in_use(path: Path, holder: dict[str, Any], sign: Path | None = None) -> UserError:
    who = "another process"
    if holder:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("time", 0)))
        who = f"process {holder.get('pid')} on {holder.get('host')}, since {began}"
    gone = f" (if it is gone, remove {sign})" if sign else ""
    return UserError(f"{path} is in use by {who}: wait for it{gone}, or choose another --out")


def _holder(file: Path) -> dict[str, Any]:
    """What a lock's file says of its holder, which may be writing it just now."""
    with suppress(OSError, ValueError):
        found = json.loads(file.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _is_alive(pid: Any) -> bool:
    if not isinstance(pid, int):
        return True  # not known
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
