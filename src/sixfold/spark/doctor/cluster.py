"""What can be seen of a Spark cluster: its master, its executors, the ways between all of them."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import RunError, SixfoldError, UserError
from sixfold.core.version import versions
from sixfold.spark.doctor import probe
from sixfold.spark.doctor.config import DoctorOptions
from sixfold.spark.doctor.findings import Finding, good, note, wrong

if TYPE_CHECKING:
    from sixfold.distributed.engines.spark import SparkEngine
    from sixfold.distributed.process_group import Communicator

MOST_RANKS = 8
CLOCK_S = 5.0
"""Clocks that differ by more make logs of hosts hard to compare; results do not depend on them."""

RANK_BYTES = 600 * 2**20
"""What a rank of a small network takes: torch, its libraries, and some images."""

EXCHANGED_BYTES = 2**22
TASKS_S = 25.0  # for executors to be allocated, and to run the first tasks
REGISTER = "spark.scheduler.maxRegisteredResourcesWaitingTime=12s"
"""For the first executor to come: enough on a cluster that has free cores."""


def look_at_cluster(options: DoctorOptions) -> Iterator[Finding]:
    """Everything about a Spark master; ends at the first thing without which nothing else works."""
    try:
        from sixfold.distributed.engines.spark import SparkEngine
    except ModuleNotFoundError:
        yield wrong("pyspark", "it is not installed", "pip install 'sixfold[spark]'")
        return
    given = tuple(options.spark_conf)
    if not any(setting.startswith(REGISTER.partition("=")[0]) for setting in given):
        given = (*given, REGISTER)
    began = time.monotonic()
    try:
        engine = SparkEngine(master=options.master, spark_conf=given, ranks=options.workers or 1)
    except SixfoldError as error:
        for problem in problems_of(error):
            yield wrong("Spark", problem)
        return
    with contextlib.closing(engine):
        spent = time.monotonic() - began
        yield good("Spark", f"{engine.session.master.url}, started in {spent:.1f} s")
        yield from _look_at_session(engine, options)


def problems_of(error: SixfoldError) -> Sequence[str]:
    """What an error says, a line each."""
    return error.problems if isinstance(error, UserError) else str(error).splitlines()[:1]


def _look_at_session(engine: SparkEngine, options: DoctorOptions) -> Iterator[Finding]:
    from sixfold.distributed.engines.spark_job import explain

    allocates = engine.session.allocates
    try:
        slots = engine.session.slots() if allocates else engine.slots()
    except SixfoldError as error:
        for problem in problems_of(error):
            yield wrong("executors", problem)
        return
    if allocates:
        slots = max(slots, options.workers or 1)  # so many will be allocated
        yield note(
            "dynamic allocation",
            "spark.dynamicAllocation.enabled is true: executors come as ranks wait, and go",
            "--workers MIN:MAX lets ranks of sync come and go with them; other strategies start "
            "when all their ranks are there",
        )
    size = options.workers or min(slots, MOST_RANKS)
    if size > slots:
        yield wrong(
            "task slots",
            f"{slots}, for {size} workers",
            f"use --workers {slots}, or give the cluster more cores",
        )
        return
    yield good("task slots", f"{slots}")
    if engine.session.setting("spark.speculation", "false").lower() == "true":
        yield note(
            "speculation",
            "spark.speculation is true: Spark may start copies of slow tasks",
            "results do not change; the copy of a rank does nothing while the rank is there",
        )
    yield from look_at_memory_limit(engine.session.master.url, engine.session.setting)
    facts = list[dict[str, Any]]()
    count = max(2 * slots, 2)
    asked = time.time()
    job = engine.session.start(
        lambda: facts.extend(engine.session.map_tasks(count, probe.executor_probe())),
        "sixfold doctor: looking at the executors",
    )
    job.end(patience_s=TASKS_S)
    answered = time.time()
    if not facts:
        why = f"within {TASKS_S:g} s they have run nothing: other applications may hold all cores"
        if job.error is not None and not job.is_unwanted:
            why = f"they cannot run Python: {explain(job.error)}"
        yield wrong("executors", why, _PYTHON)
        return
    found = list(look_at_executors(facts, asked, answered))
    yield from found
    yield from _look_at_calls(engine, slots)
    if options.out is not None and "://" not in options.out.removeprefix("file://"):
        yield from _look_at_share(engine, slots, Path(options.out.removeprefix("file://")))
    if not any(finding.state == "wrong" for finding in found):
        yield from _look_at_ranks(engine, size)


def look_at_memory_limit(url: str, setting: Callable[[str, str], str]) -> Iterator[Finding]:
    """Whether YARN or Kubernetes leaves ranks their memory, beside the JVM's, or ends executors.

    `setting(key, default)` is a Spark setting as it is in force.
    """
    if not url.startswith(("yarn", "k8s://")):
        return  # others set no limit
    pyspark, given = (
        setting(f"spark.executor.{name}", "") for name in ("pyspark.memory", "memoryOverhead")
    )
    heap = _spark_bytes(setting("spark.executor.memory", "1g"))
    default = "0.4" if url.startswith("k8s://") else "0.1"  # Kubernetes': of Python applications
    share = float(setting("spark.executor.memoryOverheadFactor", default))
    overhead = _spark_bytes(given) if given else max(int(heap * share), 384 * 2**20)
    cores = int(setting("spark.executor.cores", "1"))
    ranks = max(cores // int(setting("spark.task.cpus", "1")), 1)
    there, needed = overhead + _spark_bytes(pyspark or "0"), ranks * RANK_BYTES
    seen = f"{there >> 20} MiB of an executor beside its JVM's, for {ranks} ranks"
    if there < needed:
        yield note(
            "memory limit",
            f"{seen} of {RANK_BYTES >> 20} MiB or more: once the JVM has filled its own, the "
            "cluster ends the executor",
            f"--spark-conf spark.executor.memoryOverhead={needed >> 20}m, more for large networks",
        )
    else:
        yield good("memory limit", seen)


def _spark_bytes(text: str) -> int:
    """A size of memory in Spark's words, in which a number without a unit is of MiB."""
    number = text.lower().removesuffix("b")
    unit = number[-1:] if number[-1:] in "kmgt" else ""
    return int(number.removesuffix(unit)) << {"k": 10, "": 20, "m": 20, "g": 30, "t": 40}[unit]


_PYTHON = "name a Python of this version with --spark-conf spark.pyspark.python=PATH"


def look_at_executors(
    facts: Sequence[dict[str, Any]], asked: float, answered: float
) -> Iterator[Finding]:
    """What the executors' Pythons have, one finding for hosts that are alike."""
    hosts = {fact["host"]: fact for fact in facts}
    own = versions()
    alike = True
    for host, fact in sorted(hosts.items()):
        if fact["lacking"]:
            alike = False
            yield wrong(
                "libraries",
                f"{host} lacks {', '.join(fact['lacking'])} ({fact['executable']})",
                f"install them there, or {_PYTHON}",
            )
        if fact["python"].rpartition(".")[0] != platform.python_version().rpartition(".")[0]:
            alike = False
            yield wrong(
                "Python", f"{host} has {fact['python']}, this host {own['python']}", _PYTHON
            )
        if fact["torch"] and fact["torch"] != own.get("torch"):
            alike = False
            yield wrong(
                "torch",
                f"{host} has {fact['torch']}, this host {own.get('torch')}: other bits",
                "install one version everywhere",
            )
        late = max(asked - fact["time"], fact["time"] - answered)
        if late > CLOCK_S:
            yield note("clocks", f"{host} differs by {late:.0f} s", "let a time server set them")
        if fact["memory_bytes"] is not None and fact["memory_bytes"] < 2**29:
            yield note(
                "memory",
                f"{host} has {fact['memory_bytes'] / 2**20:.0f} MiB free",
                "end other programs there, or use fewer --workers",
            )
        if fact["free_bytes"] < 2**28:
            yield wrong(
                "disk",
                f"{host} has {fact['free_bytes'] / 2**20:.0f} MiB of scratch left",
                "make room",
            )
    if alike:
        yield good("executors", f"{', '.join(sorted(hosts))}: Python and torch as here")


@contextmanager
def _answering(host: str) -> Iterator[tuple[int, str]]:
    """A port that answers each caller with a word."""
    word = secrets.token_hex(8)
    with socket.create_server((host, 0), backlog=64) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(word.encode())

        threading.Thread(target=answer, daemon=True, name="sixfold-doctor").start()
        yield server.getsockname()[1], word


def _look_at_calls(engine: SparkEngine, slots: int) -> Iterator[Finding]:
    """Whether executors reach this process by the address that they are told."""
    bind, advertised = engine.hosts()
    try:
        with _answering(bind) as (port, word):
            told = engine.session.map_tasks(slots, probe.call_probe((advertised, port)))
    except OSError as error:
        yield wrong(
            "this address", f"cannot listen on {bind}: {error.strerror}", "set spark.driver.host"
        )
        return
    failed = {fact["host"]: fact["error"] for fact in told if fact["answer"] != word}
    for host, why in sorted(failed.items()):
        yield wrong(
            "calls to here",
            f"{host} cannot call {advertised}:{port} ({why or 'another program answers'})",
            "set spark.driver.host to an address of this host that executors reach, and let the "
            "firewall pass connections to it",
        )
    if not failed:
        yield good("calls to here", f"executors reach {advertised}")


def _look_at_share(engine: SparkEngine, slots: int, out: Path) -> Iterator[Finding]:
    """Whether driver and executors see each other's files."""
    there = out.expanduser().absolute()
    while not there.exists():
        there = there.parent
    folder = there / f".sixfold-doctor-share-{os.getpid()}"
    token = secrets.token_hex(8)
    try:
        folder.mkdir()
        (folder / "driver").write_text(token, encoding="ascii")
        told = engine.session.map_tasks(slots, probe.share_probe(str(folder), token))
        for fact in told:
            if not fact["error"] and not (folder / fact["file"]).exists():
                fact["error"] = "this host does not see what it wrote"
    except OSError as error:
        yield wrong("shared path", f"{there}: {error.strerror}", "give another --out")
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    failed = {fact["host"]: fact["error"] for fact in told if fact["error"]}
    for host, why in sorted(failed.items()):
        yield wrong(
            "shared path",
            f"{host} and this host do not share {there}: {why}",
            "give an --out on a path that all hosts mount and may write",
        )
    if not failed:
        yield good("shared path", f"{there} is seen by all")


def _look_at_ranks(engine: SparkEngine, size: int) -> Iterator[Finding]:
    """Whether ranks start together, reach each other, and compute alike."""
    began = time.monotonic()
    try:
        group = engine.run_ranks(_meet, size)
    except (SixfoldError, RunError) as error:
        yield wrong("ranks", str(error).splitlines()[0], "look at the executors' logs")
        return
    spent = time.monotonic() - began
    speeds = [result["bytes_per_s"] for result in group.results if result["bytes_per_s"]]
    speed = f", {min(speeds) / 1e6:.0f} MB/s between them" if speeds else ""
    yield good("ranks", f"{size} met and left in {spent:.1f} s{speed}")
    kinds = {tuple(sorted(result["arithmetic"].items())) for result in group.results}
    if len({tuple(p for p in each if p[0] != "processor") for each in kinds}) > 1:
        hosts = ", ".join(sorted({result["host"] for result in group.results}))
        yield wrong(
            "arithmetic",
            f"{hosts} compute with other instruction sets or libraries: bits depend on the host",
            "use hosts of one kind, or set ATEN_CPU_CAPABILITY=avx2 for all",
        )
    else:
        yield good("arithmetic", "the same libraries and instruction sets on all ranks")
    bare = sorted({r["host"] for r in group.results if r["kernels"].startswith("none")})
    if bare:
        yield note(
            "C kernels", f"not in use on {', '.join(bare)}: slower, other bits for some shapes"
        )


def _meet(comm: Communicator) -> dict[str, Any]:
    """Exchange some bytes with every other rank; what this one computes with."""
    import numpy as np

    from sixfold.training.native import max_pool
    from sixfold.training.step.arithmetic import arithmetic

    others = [peer for peer in range(comm.size) if peer != comm.rank]
    sent = np.zeros(EXCHANGED_BYTES, np.uint8)
    comm.barrier()
    began = time.perf_counter()
    comm.exchange(dict.fromkeys(others, sent), {peer: np.empty_like(sent) for peer in others})
    spent = time.perf_counter() - began
    return {
        "host": comm.host,
        "bytes_per_s": len(others) * EXCHANGED_BYTES / spent if others else None,
        "arithmetic": arithmetic(),
        "kernels": max_pool.found.origin,
    }
