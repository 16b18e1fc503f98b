"""Time of a mini-batch on two local workers, under strategies or with and without the protocol.

The machine may be shared, so of each run the quickest stretch of a quarter of its steps counts.

python benchmarks/step_times.py --batches 1,10,100,1000

With --protocol `sync` is compared with itself: with views, in which ranks may come and go (`on`);
with ranks that are started all together (`off`); with --audit 0.01; and with the package in another
folder (--before), where its C module must have been built. Runs take turns, each in a process of
its own, and all steps but the first tenth count. The first line of ratios is of the quickest runs,
the second of the medians: the time of another way through that of `on`; 0.98 is 2% lost.

git archive 8cf23009 | tar -x -C BEFORE; (cd BEFORE; python setup.py build_ext --inplace)
python benchmarks/step_times.py --protocol --before BEFORE/src
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import sixfold
from sixfold.core.run_directory import read_json_lines

STEPS = {1: 800, 10: 600, 100: 160, 1000: 24}
STRATEGIES: dict[str, dict[str, object]] = {
    "sync": {"strategy": "sync"},
    "hogwild": {"strategy": "hogwild"},
    "param_server": {"strategy": "param_server", "servers": 1},
}


def quickest(times: list[float], images: list[int]) -> float:
    """Most images/s over any stretch of a quarter of the steps.

    Args:
        times: Unix seconds at which steps ended.
        images: of each step.
    """
    span = max(len(times) // 4, 2)
    stretches = pairwise(range(0, len(times), span))
    rates = [sum(images[a + 1 : b + 1]) / (times[b] - times[a]) for a, b in stretches]
    return max(rates)


def lines_of(options: argparse.Namespace, batch: int, **more: object) -> list[Mapping[str, Any]]:
    """Train; what was logged of each step."""
    with tempfile.TemporaryDirectory() as folder:
        config = sixfold.configure(
            data=options.data,
            model=options.model,
            batch_size=batch,
            lr=0.0001,
            evaluate_every=0.0,
            workers=2,
            out=folder,
            **more,
        )
        sixfold.train(config)
        lines = read_json_lines(Path(folder, "metrics.jsonl"))
    return [line for line in lines if "loss" in line]


def measure_way(options: argparse.Namespace, batch: int) -> None:
    """Print the milliseconds of a step in one way."""
    if options.way == "off":
        from sixfold.training import run

        vars(run)["least_ranks"] = lambda *_: None
    more: dict[str, object] = {"audit": 0.01} if options.way == "audit" else {}
    steps = lines_of(options, batch, steps=options.steps, **more)
    first = len(steps) // 10
    mean_s = (steps[-1]["time"] - steps[first]["time"]) / (len(steps) - 1 - first)
    print(1e3 * mean_s)


def compare_ways(options: argparse.Namespace, batch: int) -> None:
    """Measure all ways in turns, and print their times and ratios."""
    ways = ["on", "off", "audit"] + (["before"] if options.before else [])
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.repeats):
        for way in ways:
            command = [sys.executable, __file__, "--way", way, "--batches", str(batch)]
            command += ["--steps", str(options.steps)]
            command += ["--data", options.data, "--model", options.model]
            path = options.before if way == "before" else str(Path(sixfold.__path__[0]).parent)
            environment = os.environ | {"PYTHONPATH": path}
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            found[way].append(float(done.stdout.split()[-1]))
    for way, times in found.items():
        quick, slow = min(times), max(times)
        print(f"B = {batch}, {way}: {statistics.median(times):.2f} ms ({quick:.2f}-{slow:.2f})")
    for name, of in (("quickest", min), ("medians", statistics.median)):
        on = of(found["on"])
        words = [
            f"{way} / on {of(found[way]) / on:.3f}" for way in ways if way in ("off", "before")
        ]
        print(f"{name}: {', '.join(words)}, on / audit {on / of(found['audit']):.3f}", flush=True)


def compare_strategies(options: argparse.Namespace, batch: int) -> None:
    """Measure, and print a line for a batch size."""
    words = []
    for name, strategy in STRATEGIES.items():
        steps = lines_of(options, batch, steps=STEPS.get(batch, 40), **strategy)
        rate = quickest([s["time"] for s in steps], [int(s["images"]) for s in steps])
        words.append(f"{name} {1e3 * batch / rate:.2f} ms")
    print(f"B = {batch}: " + ", ".join(words), flush=True)


def main() -> None:
    """Measure each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="synthetic:4000x3x32x32")
    parser.add_argument("--model", default="slide")
    parser.add_argument("--batches", default="1,10,100,1000")
    parser.add_argument("--protocol", action="store_true", help="compare `sync` with itself")
    parser.add_argument("--before", help="folder of an older package, for --protocol")
    parser.add_argument("--repeats", type=int, default=5, help="for --protocol")
    parser.add_argument("--steps", type=int, default=600, help="for --protocol")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for batch in map(int, options.batches.split(",")):
        if options.way:
            measure_way(options, batch)
        else:
            (compare_ways if options.protocol else compare_strategies)(options, batch)


if __name__ == "__main__":
    main()
