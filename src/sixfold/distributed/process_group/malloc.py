"""Keeping what is freed: ranks allocate the same tensors again in every step.

glibc gives a large freed block back to the kernel, and the next step has to fetch it again, page by
page, each a fault and 4 KB of zeros: a shard of 31 images of the slide network took 2,500 faults a
step, and with them 260 microseconds an image instead of 140 (one core, x86-64). Whether it happens
depends on what else lies on the heap. So ranks keep up to `KEPT_BYTES` of freed memory; the peak is
as before. With another C library nothing is changed.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KEPT_BYTES = 1 << 29  # freed memory at the end of the heap that a rank does not give back

_MMAP_BYTES = 1 << 25
"""Blocks from this size on are mapped one by one, and given back one by one; the most that glibc
lets one set."""

_PAD_BYTES = 1 << 26
"""By so much more than was asked for the heap grows; pages that are not touched take no memory."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def retain_freed_memory() -> bool:
    """From now on the process keeps memory that it frees; whether its C library can."""
    return _set(trim=KEPT_BYTES, pad=_PAD_BYTES)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """`retain_freed_memory`, and afterwards what is free goes back to the kernel.

    glibc cannot adapt its limits anew: they end at twice the largest block that it keeps.
    """
    can = retain_freed_memory()
    try:
        yield
    finally:
        if can:
            _set(trim=2 * _MMAP_BYTES, pad=0)
            _library().malloc_trim(0)


def _set(*, trim: int, pad: int) -> bool:
    library = _library()
    if library is None:
        return False
    limits = ((_MMAP_THRESHOLD, _MMAP_BYTES), (_TRIM_THRESHOLD, trim), (_TOP_PAD, pad))
    taken = [library.mallopt(name, value) for name, value in limits]
    return all(taken)


def _library() -> Any:
    """The C library, if it is glibc."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    found = all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt"))
    return library if found else None
