"""From a command to its help, and to the end of its first step.

Peers: torchrun's own help; and a plain training loop under torchrun with as many processes, on the
same data and network.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.bench.comparison import Comparison
from benchmarks.bench.contenders import NotMeasuredError, Task, sixfold_result, torchrun_result
from benchmarks.bench.options import TrainBenchConfig, parse_batches
from benchmarks.bench.publish import Show, begin, publish
from benchmarks.bench.train import resolve
from sixfold.core.errors import RunError
from sixfold.training.worker import FIRST_TIMED_STEP

STEPS = FIRST_TIMED_STEP + 2


def run_startup_bench(config: TrainBenchConfig, *, show: Show) -> Comparison:
    """Measure, show the table, and write `startup.json` and `startup.html`."""
    place = begin("startup", config.out)
    batch = parse_batches(config.batches)[0]
    task = Task(
        spec=config.data,
        data=resolve(dataclasses.replace(config, batches=str(batch))),
        model=config.model,
        workers=config.workers,
        batch=batch,
        steps=STEPS,
        seconds=30.0,
        first_timed_step=FIRST_TIMED_STEP,
    )
    found = Comparison(
        title="Start-up",
        unit="seconds",
        form=".2f",
        less_is_better=True,
        what={
            "sixfold": f"`sixfold --help`; `sixfold train` on the local engine, {config.workers} "
            "ranks",
            "torchrun": "`torchrun --help`; a plain loop with DistributedDataParallel, as many "
            "processes",
        },
    )
    first = f"start to the end of the first step, {config.model}, B = {batch}"
    rows: dict[str, dict[str, Callable[[], float]]] = {
        "--help": {
            "sixfold": lambda: _help_s([sys.executable, "-m", "sixfold", "--help"]),
            "torchrun": lambda: _help_s([sys.executable, "-m", "torch.distributed.run", "--help"]),
        },
        first: {
            "sixfold": lambda: _first_step_s(lambda: sixfold_result(task)["first_step_at"]),
            "torchrun": lambda: _first_step_s(lambda: torchrun_result(task)["first_step_at"]),
        },
    }
    for repeat in range(config.repeats):
        for row, contenders in rows.items():
            for name, measure in contenders.items():
                found.add(name, row, _or_none(measure, name, found))
        show(f"repeat {repeat + 1} done")
    publish(place, config, [found], show)
    return found


def _or_none(measure: Callable[[], float], name: str, found: Comparison) -> float | None:
    """A measurement; a peer's failure is noted and stops nothing."""
    try:
        return measure()
    except NotMeasuredError as error:
        if name == "sixfold":
            raise RunError(f"sixfold could not be measured: {error}") from error
        found.notes.append(f"{name} not measured: {error}")
        return None


def _help_s(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise NotMeasuredError(f"{' '.join(command)} failed")
    return time.perf_counter() - begun


def _first_step_s(run: Callable[[], float]) -> float:
    """Seconds from now to the moment, in Unix seconds, that a run gives."""
    begun = time.time()
    return run() - begun
