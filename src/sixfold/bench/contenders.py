"""Who is measured: Sixfold through its own command, and its peers, each in processes of its own."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.config import DataConfig
from sixfold.engines.spark_master import check_java

STARTUP_S = 120.0
"""What a measurement may take beyond its expected length: imports, JVM, a busy machine."""

_TAIL = 5


class NotMeasuredError(Exception):
    """A contender could not be measured; says why in one line."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement.

    Attributes:
        spec: data set as the user gave it.
        data: the same, resolved, so that any process opens it cheaply.
        model: network.
        workers: ranks of Sixfold and processes of TorchDistributor.
        batch: images a step, over all ranks.
        steps: steps to make; None: until `seconds` are over.
        seconds: about how long it takes, from the first timed step on.
        first_timed_step: the clock starts at the end of this step.
    """

    spec: str
    data: DataConfig
    model: str
    workers: int
    batch: int
    steps: int | None
    seconds: float
    first_timed_step: int


def sixfold_local(task: Task) -> float:
    """Images/s of `sixfold train` on the local engine, as its result says.

    Raises:
        NotMeasuredError: if it failed.
    """
    with tempfile.TemporaryDirectory(prefix="sixfold-bench-") as folder:
        out = Path(folder, "run")
        # No checkpoint and no evaluation on the way: the peers make none either.
        options: Mapping[str, object] = {
            "data": task.spec,
            "model": task.model,
            "strategy": "sync",
            "engine": "local",
            "workers": task.workers,
            "batch-size": task.batch,
            "steps": task.steps,
            "lr": 0.001,
            "evaluate-every": 0,
            "checkpoint-every": 10**9,
            "out": out,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        run_process([sys.executable, "-m", "sixfold", "train", *words], task.seconds)
        rate = json.loads((out / "result.json").read_text(encoding="utf-8"))["train_images_per_s"]
    if not rate:
        raise NotMeasuredError("the run was too short to be timed")
    return float(rate)


def pytorch_eager(task: Task) -> float:
    """Images/s of a plain PyTorch loop with all cores.

    Raises:
        NotMeasuredError: if it failed.
    """
    return _peer(task, [sys.executable, "-m", "sixfold.bench.peer_loop"], threads=cores())


def torch_distributor(task: Task) -> float:
    """Images/s of TorchDistributor in local mode with DistributedDataParallel over gloo.

    Raises:
        NotMeasuredError: if there is no pyspark or no Java, or if it failed.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise NotMeasuredError("pyspark is not installed: pip install 'sixfold[spark]'")
    if missing := check_java(os.environ):
        raise NotMeasuredError(missing[0])
    command = [sys.executable, "-m", "sixfold.bench.peer_spark", str(task.workers)]
    return _peer(task, command, threads=1)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _peer(task: Task, command: Sequence[str], *, threads: int) -> float:
    """Hand a task to a peer's process and read its result."""
    with tempfile.TemporaryDirectory(prefix="sixfold-bench-") as folder:
        path, result = Path(folder, "task.json"), Path(folder, "result.json")
        words: dict[str, Any] = {
            "data": dataclasses.asdict(task.data),
            "model": task.model,
            "batch": task.batch,
            "steps": task.steps,
            "seconds": task.seconds,
            "first_timed_step": task.first_timed_step,
            "threads": threads,
            "result": str(result),
        }
        path.write_text(json.dumps(words), encoding="utf-8")
        run_process([*command, str(path)], task.seconds, {"OMP_NUM_THREADS": str(threads)})
        try:
            rate = json.loads(result.read_text(encoding="utf-8"))["images_per_s"]
        except (OSError, ValueError, KeyError) as error:
            raise NotMeasuredError(f"it left no result ({error})") from error
    return float(rate)


def run_process(
    command: Sequence[str], expected_s: float, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end in a process group of its own, and end all of it if it lasts.

    Raises:
        NotMeasuredError: if it failed or took far longer than expected, with its last words.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    limit_s = STARTUP_S + 10 * expected_s
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise NotMeasuredError(f"not done after {limit_s:.0f} s") from error
    finally:
        _end_group(process)
    if process.returncode:
        last = [line.strip() for line in output.splitlines() if line.strip()][-_TAIL:]
        raise NotMeasuredError(f"exit {process.returncode}: {' | '.join(last)}")


def _end_group(process: subprocess.Popen[str]) -> None:
    """End whatever is left of a process group whose leader we started and have not yet waited for.

    After a normal end nothing is left, and its number is not used again while a member lives.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
