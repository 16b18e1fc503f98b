"""Time of a mini-batch under strategies that keep the network whole, on two local workers.

The machine may be shared, so of each run the quickest stretch of a quarter of its steps counts.

python benchmarks/step_times.py --batches 1,10,100,1000
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import pairwise
from pathlib import Path

import sixfold

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


def main() -> None:
    """Measure, and print a line for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="synthetic:4000x3x32x32")
    parser.add_argument("--model", default="slide")
    parser.add_argument("--batches", default="1,10,100,1000")
    options = parser.parse_args()
    for batch in map(int, options.batches.split(",")):
        words = []
        for name, strategy in STRATEGIES.items():
            with tempfile.TemporaryDirectory() as folder:
                sixfold.train(
                    sixfold.configure(
                        data=options.data,
                        model=options.model,
                        batch_size=batch,
                        steps=STEPS.get(batch, 40),
                        lr=0.0001,
                        evaluate_every=0.0,
                        workers=2,
                        out=folder,
                        **strategy,
                    )
                )
                lines = [
                    json.loads(line)
                    for line in Path(folder, "metrics.jsonl").read_text().splitlines()
                ]
            steps = [line for line in lines if "loss" in line]
            rate = quickest([s["time"] for s in steps], [int(s["images"]) for s in steps])
            words.append(f"{name} {1e3 * batch / rate:.2f} ms")
        print(f"B = {batch}: " + ", ".join(words), flush=True)


if __name__ == "__main__":
    main()
