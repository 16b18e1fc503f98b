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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.data.config import DataConfig
from sixfold.distributed.engines.spark_master import check_java

STARTUP_S = 120.0
"""What a measurement may take beyond its expected length: imports, JVM, a busy machine."""

_TAIL = 5


class NotMeasuredError(Exception):
    """A contender could not be measured; says why in one line."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement."""

    spec: str  # data set as the user gave it
    data: DataConfig  # the same, resolved, so that any process opens it cheaply
    model: str  # network
    workers: int  # ranks of Sixfold and processes of TorchDistributor
    batch: int  # images a step, over all ranks
    steps: int | None  # steps to make; None: until `seconds` are over
    seconds: float  # about how long it takes, from the first timed step on
    first_timed_step: int  # the clock starts at the end of this step


def sixfold_local(task: Task) -> float:
    """Images/s of `sixfold train` on the local engine, as its result says.

    Raises:
        NotMeasuredError: if it failed.
    """
    return rate_of(sixfold_result(task))


def sixfold_bf16(task: Task) -> float:
    """The same with `--precision bf16`.

    Raises:
        NotMeasuredError: if it failed.
    """
    return rate_of(sixfold_result(task, precision="bf16"))


def sixfold_alone(task: Task) -> float:
    """The same with a single worker.

    Raises:
        NotMeasuredError: if it failed.
    """
    return rate_of(sixfold_result(task, workers=1))


def sixfold_copies(task: Task) -> float:
    """Images/s of independent runs of one worker each, as many as there are workers, added up.

    Raises:
        NotMeasuredError: if one failed.
    """
    with ThreadPoolExecutor(task.workers) as pool:
        runs = [pool.submit(sixfold_result, task, workers=1) for _ in range(task.workers)]
        return sum(rate_of(run.result()) for run in runs)


def rate_of(result: Mapping[str, Any]) -> float:
    """Images/s of a run.

    Raises:
        NotMeasuredError: if it had too few steps.
    """
    if not result["train_images_per_s"]:
        raise NotMeasuredError("the run was too short to be timed")
    return float(result["train_images_per_s"])


def sixfold_result(task: Task, **changed: object) -> dict[str, Any]:
    """What `sixfold train` on the local engine leaves in result.json.

    Args:
        task: what is trained.
        changed: options with other values than the task's, by name.

    Raises:
        NotMeasuredError: if it failed.
    """
    with tempfile.TemporaryDirectory(prefix="sixfold-bench-") as folder:
        out = Path(folder, "run")
        options: dict[str, object] = {
            "data": task.spec,
            "model": task.model,
            "workers": task.workers,
            "batch-size": task.batch,
            "steps": task.steps,
        }
        run_process(train_command(out=out, **options | changed), task.seconds)
        result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
        first = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    return result | {"first_step_at": json.loads(first)["time"]}


def train_command(**options: object) -> list[str]:
    """`sixfold train` on the local engine, without checkpoints and evaluations on the way.

    The peers make none either.

    Args:
        options: of `sixfold train`, by name.
    """
    fixed: dict[str, object] = {
        "strategy": "sync",
        "engine": "local",
        "lr": 0.001,
        "evaluate-every": 0,
        "checkpoint-every": 10**9,
    }
    words = [f"--{name}={value}" for name, value in (fixed | options).items()]
    return [sys.executable, "-m", "sixfold", "train", *words]


def pytorch_eager(task: Task) -> float:
    """Images/s of a plain PyTorch loop with all cores.

    Raises:
        NotMeasuredError: if it failed.
    """
    return eager_result(task)["images_per_s"]


def pytorch(task: Task, *ways: str) -> float:
    """Images/s of the same loop in other ways: compiled, channels_last, autocast (to bfloat16).

    Raises:
        NotMeasuredError: if it failed.
    """
    return peer_result(task, _LOOP, threads=cores(), ways=ways)["images_per_s"]


def eager_result(task: Task) -> dict[str, float]:
    """What the plain PyTorch loop with all cores measures: see `benchmarks.bench.peer_loop`.

    Raises:
        NotMeasuredError: if it failed.
    """
    return peer_result(task, _LOOP, threads=cores())


def torchrun(task: Task) -> float:
    """Images/s of DistributedDataParallel over gloo, started by torchrun.

    Raises:
        NotMeasuredError: if it failed.
    """
    return torchrun_result(task)["images_per_s"]


def torchrun_result(task: Task) -> dict[str, float]:
    """What DistributedDataParallel under torchrun measures, channels-last.

    Raises:
        NotMeasuredError: if it failed.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={task.workers}", "-m", "benchmarks.bench.peer_loop",
    ]  # fmt: skip
    return peer_result(task, command, threads=1, ways=("channels_last",))


def torch_distributor(task: Task) -> float:
    """Images/s of TorchDistributor in local mode with DistributedDataParallel over gloo.

    Raises:
        NotMeasuredError: if there is no pyspark or no Java, or if it failed.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise NotMeasuredError("pyspark is not installed: pip install 'sixfold[spark]'")
    if missing := check_java(os.environ):
        raise NotMeasuredError(missing[0])
    command = [sys.executable, "-m", "benchmarks.bench.peer_spark", str(task.workers)]
    return peer_result(task, command, threads=1)["images_per_s"]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_LOOP = (sys.executable, "-m", "benchmarks.bench.peer_loop")


def peer_result(
    task: Task, command: Sequence[str], *, threads: int, ways: Sequence[str] = ()
) -> dict[str, float]:
    """Hand a task to a peer's process and read its result: see `benchmarks.bench.peer_loop`.

    Raises:
        NotMeasuredError: if it failed.
    """
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
            "ways": list(ways),
            "result": str(result),
        }
        path.write_text(json.dumps(words), encoding="utf-8")
        run_process([*command, str(path)], task.seconds, {"OMP_NUM_THREADS": str(threads)})
        try:
            found = json.loads(result.read_text(encoding="utf-8"))
            return {name: float(value) for name, value in found.items()}
        except (OSError, ValueError) as error:
            raise NotMeasuredError(f"it left no result ({error})") from error


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
