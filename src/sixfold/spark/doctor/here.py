"""What can be seen on this host: Python, libraries, kernels, memory, places to read and write."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from sixfold.core.environment import cache_directory
from sixfold.core.errors import RunError, UserError
from sixfold.core.object_store import ObjectStore, is_url
from sixfold.core.version import versions
from sixfold.distributed.process_group.ambient import cores
from sixfold.spark.doctor.config import DoctorOptions
from sixfold.spark.doctor.findings import Finding, good, note, wrong

RANK_BYTES = 2**29
"""What a rank of a small network takes: Python, torch, and its buffers."""

FREE_BYTES = 2**30
"""Room for checkpoints and tensor shards of a small run."""

SPEED_BYTES = 2**24
STORE_BYTES = 2**20
SLOW_BYTES_PER_S = 20e6


def look_here(options: DoctorOptions) -> Iterator[Finding]:
    """Everything that needs no cluster."""
    found = versions()
    seen = ", ".join(f"{name} {found[name]}" for name in ("sixfold", "torch", "numpy", "pyarrow"))
    yield good("this host", f"Python {platform.python_version()}, {seen}")
    yield _kernels()
    yield _memory()
    yield from place(
        "cache", cache_directory(), "set SIXFOLD_CACHE to a folder that can be written"
    )
    if options.out is not None:
        if is_url(options.out):
            yield _store(options.out)
        else:
            yield from place(
                "--out", Path(options.out.removeprefix("file://")), "give another --out"
            )
    if options.data is not None:
        yield _data(options.data)


def _store(url: str) -> Finding:
    """Whether this host can write objects below a URL, and read them."""
    name, data = f".sixfold-doctor-{os.getpid()}", os.urandom(STORE_BYTES)
    began = time.perf_counter()
    try:
        store = ObjectStore(url)
        store.write(name, data)
        is_same = store.read(name) == data
        store.delete([name])
    except (RunError, UserError) as error:
        return wrong("--out", str(error), "give another --out")
    spent = time.perf_counter() - began
    if not is_same:
        return wrong("--out", f"{url} gives back other bytes than were written", "find out why")
    speed = 2 * STORE_BYTES / spent / 1e6
    return good("--out", f"{url}: written and read by this host, {speed:.1f} MB/s")


def _kernels() -> Finding:
    from sixfold.training.native import max_pool

    origin = max_pool.found.origin
    if origin.startswith("none"):
        return note(
            "C kernels",
            f"not in use ({origin}): slower, other bits for some shapes",
            "install a C compiler and Sixfold again",
        )
    return good("C kernels", origin)


def _memory() -> Finding:
    import psutil

    free, ranks = psutil.virtual_memory().available, cores()
    seen = f"{free / 2**30:.1f} GiB free for {ranks} cores"
    if free < RANK_BYTES * ranks:
        return note("memory", seen, f"use at most {max(int(free // RANK_BYTES), 1)} workers here")
    return good("memory", seen)


def place(what: str, path: Path, remedy: str) -> Iterator[Finding]:
    """Whether a folder can be written, how fast, and how much room is there."""
    path = path.expanduser().absolute()
    there = path
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        yield wrong(what, f"{there} is a file, where {path} is to be a folder", remedy)
        return
    test = there / f".sixfold-doctor-{os.getpid()}"
    began = time.perf_counter()
    try:
        with test.open("wb") as file:
            file.write(bytes(SPEED_BYTES))
            os.fsync(file.fileno())
        spent = time.perf_counter() - began
    except OSError as error:
        yield wrong(what, f"{there} cannot be written ({error.strerror})", remedy)
        return
    finally:
        test.unlink(missing_ok=True)
    free, speed = shutil.disk_usage(there).free, SPEED_BYTES / spent
    seen = f"{path}: {free / 2**30:.1f} GiB free, written at {speed / 1e6:.0f} MB/s"
    if free < FREE_BYTES:
        yield wrong(what, seen, f"make room for at least {FREE_BYTES >> 30} GiB, or {remedy}")
    elif speed < SLOW_BYTES_PER_S:
        yield note(what, seen, "checkpoints and preparation will be slow there")
    else:
        yield good(what, seen)


def _data(spec: str) -> Finding:
    from sixfold.data.config import DataConfig

    try:
        problems = DataConfig(data=spec).problems()
    except UserError as error:
        problems = list(error.problems)
    return wrong("--data", "; ".join(problems)) if problems else good("--data", f"{spec} is there")
