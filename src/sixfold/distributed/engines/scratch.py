"""Temporary folders that do not outlive their process for long, even if it is killed."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_NAME = re.compile(r"sixfold-scratch-(\d+)-.+")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder of this process; those of this user's dead processes go first."""
    sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f"sixfold-scratch-{os.getpid()}-") as folder:
        yield Path(folder)


def sweep(place: Path) -> None:
    """Remove the folders of processes that were killed before they could do so themselves."""
    with contextlib.suppress(OSError):
        for folder in place.iterdir():
            found = _NAME.fullmatch(folder.name)
            is_dead = found is not None and not psutil.pid_exists(int(found[1]))
            if is_dead and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
