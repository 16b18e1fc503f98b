"""Memory of a step: what tensors take at most, and what the process takes, both measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch.autograd.profiler import profile

_SELF = Path("/proc/self")

_ONE_PROFILER = threading.Lock()
"""torch has one profiler in a process; ranks that are threads of one would break each other's."""


class Peak:
    """What a stretch of the program has taken at most."""

    def __init__(self) -> None:
        # most memory that torch's allocator held for what was allocated within the stretch by its
        # own thread; scratch memory of kernels included. 0 if another rank of the same process was
        # being measured
        self.tensor_bytes = 0
        # most resident memory of the process; 0 where the system does not tell
        self.process_bytes = 0


@contextmanager
def watched_memory() -> Iterator[Peak]:
    """Measure the peaks of what runs while open; it runs slower than usual."""
    peak = Peak()
    with suppress(OSError):
        (_SELF / "clear_refs").write_text("5")  # the peak of resident memory begins anew
    if not _ONE_PROFILER.acquire(blocking=False):
        yield peak
        peak.process_bytes = _status("VmHWM")
        return
    try:
        with profile(profile_memory=True, use_cpu=True) as profiler:
            yield peak
    finally:
        _ONE_PROFILER.release()
    peak.process_bytes = _status("VmHWM")
    results: Any = profiler.kineto_results
    held = 0
    events = [event for event in results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: int(event.start_ns())):
        held += int(event.nbytes())
        peak.tensor_bytes = max(peak.tensor_bytes, held)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    return _status("VmRSS")


def _status(name: str) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in (_SELF / "status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
    return 0
