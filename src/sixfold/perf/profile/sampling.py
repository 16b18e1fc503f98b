"""How busy processors and GPUs are while a run goes on, sampled from outside of it.

A thread of the launcher reads, every so often, the processor time of all processes that the
launcher has begun on this machine (ranks, fork server, the JVM of a Spark session and its Python
workers). What runs on other hosts is not seen; there the ranks' own logs tell (`cpu_s`).
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psutil

_GPU_EVERY_S = 1.0
_GPU_QUERY = (
    "nvidia-smi",
    "--query-gpu=index,utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
)


class Samples:
    """What was seen."""

    def __init__(self) -> None:
        self.processes: dict[int, str] = {}  # pid -> name of its program
        # (Unix seconds, {pid: processors in use since the sample before})
        self.processors: list[tuple[float, dict[int, float]]] = []
        # (Unix seconds, {index: (part of the time in use, bytes of memory)})
        self.gpus: list[tuple[float, dict[int, tuple[float, int]]]] = []
        # whether there is a GPU that can be asked
        self.has_gpu = shutil.which(_GPU_QUERY[0]) is not None

    def as_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "processes": {str(pid): name for pid, name in self.processes.items()},
            "processors": [
                [at, {str(pid): round(share, 4) for pid, share in shares.items()}]
                for at, shares in self.processors
            ],
            "gpus": [
                [at, {str(index): list(use) for index, use in uses.items()}]
                for at, uses in self.gpus
            ],
            "has_gpu": self.has_gpu,
        }


@contextmanager
def sampled(every_s: float) -> Iterator[Samples]:
    """Sample this process and its descendants while open; 0 seconds: none are taken."""
    samples, stop = Samples(), threading.Event()
    if every_s <= 0:
        yield samples
        return
    watch = partial(_watch, samples, os.getpid(), every_s, stop)
    threads = [threading.Thread(target=watch, daemon=True)]
    if samples.has_gpu:
        threads.append(threading.Thread(target=_watch_gpus, args=(samples, stop), daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield samples
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _watch(samples: Samples, root: int, every_s: float, stop: threading.Event) -> None:
    before: dict[int, float] = {}
    at_before = 0.0
    while True:
        at, used = time.time(), {}
        for pid, (name, spent_s) in descendants(root).items():
            samples.processes.setdefault(pid, name)
            used[pid] = spent_s
        if before:
            passed = max(at - at_before, 1e-6)
            shares = {pid: (used[pid] - before[pid]) / passed for pid in used if pid in before}
            samples.processors.append((at, shares))
        before, at_before = used, at
        if stop.wait(every_s):
            return


def descendants(root: int) -> dict[int, tuple[str, float]]:
    """Processes that a process has begun, itself included: pid -> (program, seconds used)."""
    found = {}
    with suppress(psutil.Error):
        parent = psutil.Process(root)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error), process.oneshot():
                spent = process.cpu_times()
                found[process.pid] = (process.name(), spent.user + spent.system)
    return found


def _watch_gpus(samples: Samples, stop: threading.Event) -> None:
    while True:
        with suppress(OSError, ValueError, subprocess.SubprocessError):
            done = subprocess.run(
                _GPU_QUERY, capture_output=True, text=True, timeout=10, check=True
            )
            samples.gpus.append((time.time(), parse_gpus(done.stdout)))
        if stop.wait(_GPU_EVERY_S):
            return


def parse_gpus(text: str) -> dict[int, tuple[float, int]]:
    """What nvidia-smi tells: index -> (part of the time in use, bytes of memory).

    >>> parse_gpus("0, 37, 1024")
    {0: (0.37, 1073741824)}
    """
    found = {}
    for line in text.splitlines():
        index, use, memory = (word.strip() for word in line.split(","))
        found[int(index)] = (float(use) / 100, int(memory) << 20)
    return found
