"""Memory: what a rank takes, and what its host has to give."""

from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60


def available_bytes(cgroup: Path = _CGROUP, free_bytes: int | None = None) -> int:
    """What processes of this host may still take: the host's free memory, or a cgroup's limit.

    The cgroup's files are of version 2, or of version 1's `memory` below the folder.
    """
    limits = [psutil.virtual_memory().available if free_bytes is None else free_bytes]
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        most = _number(cgroup / limit)
        if most is not None and most < _UNLIMITED:
            # Pages of files that nobody needs are counted as used, and given back when asked for.
            idle = _field(cgroup / statistics, "inactive_file")
            limits.append(most - (_number(cgroup / used) or 0) + idle)
    return max(min(limits), 0)


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _field(path: Path, name: str) -> int:
    with suppress(OSError):
        words = [line.split() for line in path.read_text().splitlines()]
        return sum(int(count) for field, count in words if field == name)
    return 0


def state_bytes(parameters: int, slots: int, levels: int, itemsize: int) -> int:
    """Weights, the optimizer's vectors (`slots`), the step's sum, and the partial sums of a tree.

    Of the tree over a rank's shards so many partial sums as it has levels, and one, are held.
    """
    return parameters * itemsize * (1 + slots + 1 + levels + 1)
