"""What masks cost a step, and how well a trellis uses its workers.

    python benchmarks/tickets.py mask
    python benchmarks/tickets.py job mnist:DIR [--steps 2000] [--members 12] [--workers 2]

`mask` times one step and its update with and without a mask, in turns, on one thread, and takes the
least of each: whatever else runs on the machine only adds. `job` runs a trellis of so many members
and then as many independent trainings of one of them as there are workers, all at once, each with
`sixfold train --workers 1` in a process of its own; the efficiency is the job's images a second,
everything between its first and its last member included, over theirs, which count only what
passes in their own loops.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from sixfold.core.config import RunConfig
from sixfold.distributed.config import EngineConfig
from sixfold.lottery.config import TicketDataConfig, TicketGridConfig, TicketsConfig
from sixfold.lottery.run import tickets
from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.training.config import OptimizerConfig, TrainingConfig
from sixfold.training.sparsity import MaskedUpdate, mask_vector, prunable
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.step.step import Shard, Step

NETWORKS = [
    ("lenet300", (1, 28, 28), 60, "adam"),
    ("lenet5", (1, 28, 28), 64, "sgd"),
    ("conv2", (3, 32, 32), 60, "adam"),
    ("resnet20", (3, 32, 32), 64, "sgd"),
]


def mask_cost(repeats: int) -> None:
    """Print seconds of a step, of its update, and what a mask adds."""
    torch.set_num_threads(1)
    print(f"{'network':<10}{'batch':>6}{'rule':>6}{'step':>11}{'update':>11}{'mask adds':>12}")
    for name, shape, batch, rule in NETWORKS:
        network = build(ModelConfig(model=name), shape=shape, classes=10, seed=0)
        mask = {layer.name: torch.rand(layer.shape) < 0.2 for layer in prunable(network)}
        step = Step(network, seed=0)
        state = step.state
        config = OptimizerConfig(optimizer=rule, weight_decay=1e-4)
        plain = make_optimizer(config, state.parameters)
        masked = MaskedUpdate(make_optimizer(config, state.parameters), mask_vector(mask, state))
        shard = Shard(
            index=0, images=torch.randn(batch, *shape), labels=torch.randint(0, 10, (batch,))
        )
        payload, gradient = step.new_payload(), torch.randn(len(state.parameters))

        weights = state.parameters
        actions = (
            partial(step.shard_payload, 0, shard, payload),
            partial(plain.update, weights, gradient, 0.0),
            partial(masked.update, weights, gradient, 0.0),
        )
        times: list[list[float]] = [[], [], []]
        for _ in range(repeats):
            times[0].append(_clock(actions[0]))
            for _ in range(10):
                for kept, action in zip(times[1:], actions[1:], strict=True):
                    kept.append(_clock(action))
        compute, bare, with_mask = (min(found) for found in times)
        whole = compute + bare
        print(
            f"{name:<10}{batch:>6}{rule:>6}{1e6 * whole:>8.0f} us{1e6 * bare:>8.0f} us"
            f"{(with_mask - bare) / whole:>11.2%}"
        )


def _clock(action: Callable[[], None]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def job(data: str, *, members: int, workers: int, steps: int, folder: Path) -> None:
    """Print the efficiency of a trellis, and S and E of the whole search."""
    config = TicketsConfig(
        trellis=TicketGridConfig(sparsities=str(members)),
        data=TicketDataConfig(data=data),
        model=ModelConfig(model="lenet300"),
        optimizer=OptimizerConfig(optimizer="adam", lr=0.0012),
        training=TrainingConfig(batch_size=60, steps=steps, evaluate_every=0.0),
        engine=EngineConfig(engine="local", workers=workers),
        run=RunConfig(out=str(folder / "job")),
    )
    result = tickets(config)
    speed = result["speedup"]["measured"]
    records = [
        json.loads(path.read_text()) for path in (folder / "job" / "members").glob("*/result.json")
    ]
    assert len(records) == members
    images = 60 * steps
    job_rate = members * images / speed["job_s"]
    mask = next((folder / "job" / "members").glob("*/mask.safetensors"))
    snapshot = folder / "job" / "dense" / "snapshots" / "step-000000000.safetensors"
    common = [sys.executable, "-m", "sixfold", "train", "--data", data, "--validation", "0.1"]
    common += ["--model", "lenet300", "--optimizer", "adam", "--lr", "0.0012", "--batch-size", "60"]
    common += ["--steps", str(steps), "--evaluate-every", "0", "--workers", "1"]
    common += ["--engine", "inline", "--weights", str(snapshot), "--mask", str(mask)]
    copies = [
        subprocess.Popen(
            [*common, "--out", str(folder / f"copy-{k}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for k in range(workers)
    ]
    assert [copy.wait() for copy in copies] == [0] * workers
    found = [json.loads((folder / f"copy-{k}/result.json").read_text()) for k in range(workers)]
    copy_rate = sum(images / one["training_s"] for one in found)
    print(f"{members} members of {steps} steps on {workers} workers")
    print(f"job                {job_rate:,.0f} images/s, {speed['job_s']:.1f} s")
    print(f"independent copies {copy_rate:,.0f} images/s")
    print(f"efficiency         {job_rate / copy_rate:.1%}")
    print(f"workers busy       {speed['members_busy']:.1%}")
    print(f"overhead a member  {1e3 * speed['overhead_per_member_s']:.0f} ms of a worker")
    for name, figures in result["speedup"].items():
        print(f"search, {name:<10} S {figures['speedup']:.2f}, E {figures['efficiency']:.1%}")


def main() -> None:
    """Read the words and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("mask", "job"))
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--members", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=60)
    words = parser.parse_args()
    if words.what == "mask":
        mask_cost(words.repeats)
        return
    folder = Path(tempfile.mkdtemp(prefix="sixfold-tickets-"))
    try:
        job(
            words.data,
            members=words.members,
            workers=words.workers,
            steps=words.steps,
            folder=folder,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
