"""What several workers gain over one, and what sharing a step costs them.

One worker alone has the machine's caches and memory for itself; independent copies run together
share them but never wait for each other. So workers over copies is what the sum of gradients and
waiting cost, and workers over one alone is the speed-up. Peak memory of a rank stands beside that
of a plain PyTorch loop with the same batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from benchmarks.bench.comparison import Comparison
from benchmarks.bench.contenders import (
    NotMeasuredError,
    Task,
    eager_result,
    rate_of,
    sixfold_alone,
    sixfold_copies,
    sixfold_result,
)
from benchmarks.bench.options import TrainBenchConfig, parse_batches
from benchmarks.bench.publish import Show, begin, publish
from benchmarks.bench.train import resolve, row_of, steps_for
from sixfold.core.errors import RunError
from sixfold.training.worker import FIRST_TIMED_STEP


def run_scaling_bench(config: TrainBenchConfig, *, show: Show) -> list[Comparison]:
    """Measure, show the tables, and write `scaling.json` and `scaling.html`."""
    place = begin("scaling", config.out)
    data = resolve(config)
    workers = config.workers
    rates = Comparison(
        title=f"Training {config.model} with {workers} workers",
        unit="images/s",
        form=",.0f",
        less_is_better=False,
        what={
            "sixfold": f"{workers} workers of one thread",
            "one": "one worker alone",
            "copies": f"{workers} independent runs of one worker at the same time, added up",
        },
    )
    memory = Comparison(
        title="Peak memory of a process",
        unit="MB",
        form=",.0f",
        less_is_better=True,
        what={
            "sixfold": f"the largest of {workers} ranks, libraries included",
            "eager": "a plain PyTorch loop with all cores, libraries included",
        },
    )
    try:
        for batch in parse_batches(config.batches):
            task = _task(config, data, batch)
            row = row_of(batch)
            for repeat in range(config.repeats):
                own = sixfold_result(task)
                rates.add("sixfold", row, rate_of(own))
                memory.add("sixfold", row, own["peak_memory_bytes"] / 1e6)
                peers: dict[str, Callable[[Task], float]] = {
                    "one": sixfold_alone,
                    "copies": sixfold_copies,
                }
                for name, measure in peers.items():
                    rates.add(name, row, measure(task))
                memory.add("eager", row, eager_result(task)["peak_memory_bytes"] / 1e6)
                show(f"B = {batch}, repeat {repeat + 1} done")
    except NotMeasuredError as error:
        raise RunError(f"not measured: {error}") from error
    publish(place, config, [rates, memory], show)
    return [rates, memory]


def _task(config: TrainBenchConfig, data: object, batch: int) -> Task:
    """What is measured; a short run with one worker tells how many steps."""
    task = Task(
        spec=config.data,
        data=data,  # type: ignore[arg-type]
        model=config.model,
        workers=config.workers,
        batch=batch,
        steps=config.steps or FIRST_TIMED_STEP + 5,
        seconds=config.seconds,
        first_timed_step=FIRST_TIMED_STEP,
    )
    if config.steps is not None:
        return task
    steps = steps_for(config.seconds, sixfold_alone(task), batch, FIRST_TIMED_STEP)
    return dataclasses.replace(task, steps=steps)
