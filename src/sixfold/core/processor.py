"""What this host's processor knows, in Linux's words."""

import platform
from pathlib import Path

PROCESSOR = Path("/proc/cpuinfo")


def processor(path: Path = PROCESSOR) -> frozenset[str] | None:
    """What all cores of this host know; None if it does not say."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    cores = [
        frozenset(line.partition(":")[2].split())
        for line in lines
        if line.partition(":")[0].strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*cores) if cores else None


def processor_name() -> str:
    """What the processor calls itself."""
    return in_cpuinfo("model name") or platform.processor() or platform.machine()


def in_cpuinfo(field: str, path: Path = PROCESSOR) -> str | None:
    """The value of a line of the first core."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), None)
