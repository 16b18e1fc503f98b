"""Memory that processes of one machine share, and that nothing can leave behind.

It is an anonymous file in memory (memfd_create(2)), which others open through ``/proc/PID/fd/N`` of
the process that made it. When the last process that maps it has ended, by whatever death, the
kernel frees it, unlike /dev/shm or `multiprocessing.shared_memory`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class SharedMemory:
    """A stretch of memory, mapped into this process.

    >>> with SharedMemory.create(64) as ours, SharedMemory.attach(ours.path, 64) as theirs:
    ...     ours.array(np.float32, 0, 2)[:] = 7.0
    ...     theirs.array(np.float32, 0, 2)
    array([7., 7.], dtype=float32)
    """

    def __init__(self, mapped: mmap.mmap, descriptor: int = -1) -> None:
        self._mapped, self._descriptor = mapped, descriptor
        # by which other processes of this machine find it, until `seal`; empty in those
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}" if descriptor >= 0 else ""

    @classmethod
    def create(cls, count_bytes: int) -> SharedMemory:
        """Make some, filled with zeros; an `OSError` if there is not so much.

        Where there is no memfd_create, which is Linux's, no other process will find it.
        """
        if not hasattr(os, "memfd_create"):
            return cls(mmap.mmap(-1, count_bytes))
        descriptor = os.memfd_create("sixfold", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, count_bytes)
            return cls(mmap.mmap(descriptor, count_bytes), descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def attach(cls, path: str, count_bytes: int) -> SharedMemory:
        """Map what another process has made; an OSError if it cannot be seen from here."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return cls(mmap.mmap(descriptor, count_bytes))
        finally:
            os.close(descriptor)

    def array(self, dtype: DTypeLike, start_bytes: int, count: int) -> NDArray[Any]:
        """A one-dimensional array that lies in it; it keeps the memory alive."""
        return np.frombuffer(self._mapped, dtype, count=count, offset=start_bytes)

    def seal(self) -> None:
        """Let nobody in any more; whoever has mapped it, keeps it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self.path = -1, ""

    def close(self) -> None:
        """Give it back, as far as this process is concerned; arrays that lie in it keep it."""
        self.seal()
        with contextlib.suppress(BufferError):  # arrays still lie in it: it goes with the last
            self._mapped.close()

    def __enter__(self) -> SharedMemory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
