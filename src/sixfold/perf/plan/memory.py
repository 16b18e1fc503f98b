"""Memory: what a rank takes, and what its host has to give."""

from __future__ import annotations

import os
from pathlib import Path

from sixfold.core.environment import peak_resident_bytes

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60


def available_bytes(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """What processes of this host may still take: the host's free memory, or a cgroup's limit.

    Args:
        cgroup: where the cgroup's files lie; version 2, or version 1's `memory` below it.
        meminfo: the kernel's account of the host.
    """
    limits = [_available_in(meminfo)]
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
        ),
    ):
        most = _number(cgroup / limit)
        if most is not None and most < _UNLIMITED:
            # Pages of files that nobody needs are counted as used, and given back when asked for.
            idle = _field(cgroup / statistics, "inactive_file")
            limits.append(most - (_number(cgroup / used) or 0) + idle)
    return max(min(limits), 0)


def _available_in(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return found[0] * 1024 if found else _UNLIMITED


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[0] == name)


def forget_peak() -> None:
    """Let `peak_bytes` begin anew, where the kernel can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """The most memory that this process has held since `forget_peak`."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return peak_resident_bytes()


def state_bytes(parameters: int, slots: int, levels: int, itemsize: int) -> int:
    """Weights, the optimizer's vectors, the step's sum, and the partial sums of a tree.

    Args:
        parameters: numbers in the network, float buffers included.
        slots: vectors of the optimizer's state.
        levels: depth of the tree over a rank's shards: so many partial sums, and one, are held.
        itemsize: bytes of a number.
    """
    return parameters * itemsize * (1 + slots + 1 + levels + 1)
