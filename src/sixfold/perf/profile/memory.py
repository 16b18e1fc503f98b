"""Memory of a step: what tensors take at most, and what the process takes, both measured."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch.autograd.profiler import profile

from sixfold.core.environment import peak_resident_bytes

_SELF = Path("/proc/self")
_ONE_PROFILER = threading.Lock()
"""torch has one profiler in a process; ranks that are threads of one would break each other's."""


class Peak:
    """What a stretch of the program has taken at most."""

    def __init__(self) -> None:
        # Most memory that torch's allocator held for what was allocated within the stretch by its
        # own thread, scratch memory of kernels included; 0 if another rank of the same process was
        # being measured.
        self.tensor_bytes = 0
        self.process_bytes = 0  # most resident memory of the process


@contextmanager
def watched_memory() -> Iterator[Peak]:
    """Measure the peaks of what runs while open; it runs slower than usual."""
    peak = Peak()
    forget_peak()
    if not _ONE_PROFILER.acquire(blocking=False):
        yield peak
        peak.process_bytes = peak_bytes()
        return
    try:
        with profile(profile_memory=True, use_cpu=True) as profiler:
            yield peak
    finally:
        _ONE_PROFILER.release()
    peak.process_bytes = peak_bytes()
    results: Any = profiler.kineto_results
    held = 0
    events = [event for event in results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: int(event.start_ns())):
        held += int(event.nbytes())
        peak.tensor_bytes = max(peak.tensor_bytes, held)


def forget_peak() -> None:
    """Let `peak_bytes` begin anew, where the kernel can do that."""
    with suppress(OSError):
        (_SELF / "clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory that this process has held since `forget_peak`."""
    try:
        lines = (_SELF / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return peak_resident_bytes()
