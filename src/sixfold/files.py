"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sixfold.errors import RunError


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` into `path` all at once: under another name first, on the disk, then renamed.

    Raises:
        RunError: if the disk is full or the folder cannot be written.
    """
    # The process number keeps two writers of one path from sharing a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one line with the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"no space left on the disk of {path.parent}: what was saved before is intact; "
                "free some space and go on with --resume"
            ) from error
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
