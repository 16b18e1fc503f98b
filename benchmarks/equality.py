"""How far a divided training is from serial training: the largest difference of any weight.

Five steps in float64 from the same weights, then every weight and buffer is compared. "bits" says
whether the weights are equal to the last bit.

python benchmarks/equality.py --engines inline local spark --master 'local[4]'
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import sixfold
from sixfold.distributed.engines import Engine, open_engine
from sixfold.training.run import train

NETWORKS: dict[str, dict[str, Any]] = {
    "slide": {"model": "slide", "data": "synthetic:200x3x32x32"},
    "lenet5": {"model": "lenet5", "data": "synthetic:200x1x28x28"},
    "cells": {"model": "cells", "data": "synthetic:40x1x256x256", "batch_size": 8},
    "resnet20": {"model": "resnet20", "data": "synthetic:200x3x32x32"},
    "mobilenet_v2": {
        "model": "mobilenet_v2",
        "model_args": "width=0.25",
        "data": "synthetic:200x3x32x32",
    },
}
DIVISIONS: dict[str, dict[str, Any]] = {
    "sync, 2 ranks": {"strategy": "sync", "workers": 2},
    **{
        grid: {"strategy": "model_parallel", "grid": grid, "workers": workers}
        for grid, workers in {
            "batch=2": 2,
            "rows=2": 2,
            "cols=2": 2,
            "cout=2": 2,
            "cin=2": 2,
            "rows=2,cols=2": 4,
            "batch=2,cout=2": 4,
        }.items()
    },
}


def weights(folder: Path, engine: Engine | None, **settings: Any) -> dict[str, Any]:
    """The weights after a training."""
    config = sixfold.configure(
        **{
            "batch_size": 40,
            "steps": 5,
            "lr": 0.01,
            "precision": "float64",
            "evaluate_every": 0.0,
            "engine": "inline" if engine is None else engine.name,
            "out": str(folder),
            "overwrite": True,
            **settings,
        }
    )
    train(config, engine=engine)
    found: dict[str, Any] = load_file(folder / "model.safetensors")
    return found


def compare(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, bool]:
    """Largest difference, and whether all bits are equal."""
    differences = [float((one[k].double() - other[k].double()).abs().max()) for k in one]
    return max(differences), all(bool((one[k] == other[k]).all()) for k in one)


def main() -> None:
    """Train every network under every division on every engine, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=["inline", "local"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--divisions", nargs="+", default=list(DIVISIONS))
    parser.add_argument("--master", default="local[4]")
    options = parser.parse_args()
    print("| network | division | " + " | ".join(options.engines) + " | bits |")
    print("|---" * (3 + len(options.engines)) + "|")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        engines = {}
        for engine in options.engines:
            more = {"master": options.master} if engine == "spark" else {}
            opened = open_engine(engine, preload=("sixfold.training.worker",), **more)
            engines[engine] = stack.enter_context(contextlib.closing(opened))
        for network in options.networks:
            serial = weights(folder / "serial", None, workers=1, **NETWORKS[network])
            for division in options.divisions:
                found = [
                    compare(
                        serial,
                        weights(folder / "run", engine, **NETWORKS[network], **DIVISIONS[division]),
                    )
                    for engine in engines.values()
                ]
                cells = " | ".join(f"{largest:.1e}" for largest, _ in found)
                bits = "equal" if all(same for _, same in found) else "differ"
                print(f"| {network} | {division} | {cells} | {bits} |", flush=True)


if __name__ == "__main__":
    main()
