"""The Spark engine beside the local one: steady images/s and start-up, taken in turns.

python benchmarks/engines.py synthetic:8000x3x32x32 --master 'local-cluster[2,1,1024]'
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any


def measure(data: str, engine: list[str], folder: Path, steps: int, batch: int) -> dict[str, Any]:
    """One training in a process of its own; its result."""
    words = ["train", "--data", data, "--model", "slide", "--batch-size", str(batch)]
    words += ["--steps", str(steps), "--evaluate-every", "0", "--workers", "2"]
    words += ["--out", str(folder), "--overwrite", *engine]
    subprocess.run([sys.executable, "-m", "sixfold", *words], check=True, capture_output=True)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def main() -> None:
    """Measure in turns, and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--master", default="local-cluster[2,1,1024]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=100)
    options = parser.parse_args()
    engines = {"local": [], "spark": ["--engine", "spark", "--master", options.master]}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for name, words in engines.items():
                found[name].append(
                    measure(
                        options.data, words, Path(folder, name), options.steps, options.batch_size
                    )
                )
    speeds = {name: [r["train_images_per_s"] for r in results] for name, results in found.items()}
    for name, results in found.items():
        starts = median(r["startup_s"] for r in results)
        own = median(r["engine_startup_s"] for r in results)
        print(
            f"{name:6} {median(speeds[name]):8,.0f} images/s "
            f"({min(speeds[name]):,.0f}-{max(speeds[name]):,.0f}), "
            f"start-up {starts:.1f} s, of which the engine's own {own:.1f} s"
        )
    ratios = [spark / local for spark, local in zip(speeds["spark"], speeds["local"], strict=True)]
    print(f"spark/local {median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
    print("one hash:", len({r["weights_sha256"] for rs in found.values() for r in rs}) == 1)


if __name__ == "__main__":
    main()
