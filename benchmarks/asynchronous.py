"""Asynchronous strategies beside serial training, over equal images: accuracy, staleness, losses.

python benchmarks/asynchronous.py cifar10:/data/cifar --model slide --lr 0.001 --steps 500

With --kill, the run with parameter servers loses three workers and one server to SIGKILL, at
random times.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sixfold


class Killer:
    """Kills processes of a run at random times between its first step and its expected end."""

    def __init__(self, workers: int, servers: int, within_s: float, seed: int) -> None:
        chance = random.Random(seed)
        victims = ["rank"] * workers + ["server"] * servers
        self._plan = sorted((chance.uniform(0.1, 0.8) * within_s, kind) for kind in victims)
        self._chance = chance
        self._pids: dict[str, dict[int, int]] = {"rank": {}, "server": {}}
        self._begun = False
        self.deaths: list[str] = []  # what was killed, and at which second after the first step

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Hear of processes, and begin with the first step."""
        kind = str(event["kind"])
        if kind in self._pids and "pid" in event:
            self._pids[kind][event[kind]] = event["pid"]
        if kind == "progress" and not self._begun:
            self._begun = True
            threading.Thread(target=self._kill, daemon=True).start()

    def _kill(self) -> None:
        began = time.monotonic()
        for due_s, kind in self._plan:
            time.sleep(max(began + due_s - time.monotonic(), 0.0))
            number, pid = self._chance.choice(sorted(self._pids[kind].items()))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.deaths.append(f"{kind} {number} at {time.monotonic() - began:.1f} s")


def main() -> None:
    """Train in turns, and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", default="slide")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--workers", default="2,4,8")
    parser.add_argument("--strategies", default="hogwild,param_server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    settings = {
        "data": options.data,
        "model": options.model,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "lr": options.lr,
        "momentum": options.momentum,
        "seed": options.seed,
        "evaluate_every": 0.0,
    }
    counts = [int(count) for count in options.workers.split(",")]
    runs: list[dict[str, Any]] = [{"strategy": "sync", "workers": 1}]
    for strategy in options.strategies.split(","):
        servers = {"servers": 2} if strategy == "param_server" else {}
        runs += [{"strategy": strategy, "workers": count, **servers} for count in counts]
    with tempfile.TemporaryDirectory() as folder:
        took_s = 0.0
        for number, run in enumerate(runs):
            result = _train(settings | run, Path(folder, str(number)), None)
            took_s = float(result["training_s"])
        if options.kill:
            killer = Killer(workers=3, servers=1, within_s=took_s, seed=options.seed)
            run = runs[-1]
            result = _train(settings | run, Path(folder, "killed"), killer)
            print("  killed:", "; ".join(killer.deaths))
            print("  lost workers", result["worker_losses"], "servers", result["server_losses"])


def _train(settings: dict[str, Any], out: Path, on_event: Any) -> dict[str, Any]:
    try:
        result: dict[str, Any] = sixfold.train(
            sixfold.configure(out=str(out), **settings), on_event=on_event
        )
    except sixfold.RunError as error:
        print(f"{settings['strategy']:12} {settings['workers']} workers: {error}", flush=True)
        return {"training_s": 1.0}
    more = ""
    if "mean_staleness" in result:
        ages = {int(age): count for age, count in result["staleness"].items()}
        more = (
            f", staleness mean {result['mean_staleness']:.2f}, most {max(ages)}, "
            f"refused {sum(result['refused_pushes'].values())}, "
            f"{result['bytes_per_step']:,} bytes a step"
        )
    print(
        f"{settings['strategy']:12} {settings['workers']} workers: "
        f"test accuracy {result['test_accuracy']:.2%}, loss {result['test_loss']:.4f}, "
        f"{result['images']:,} images, {result['train_images_per_s']:,.0f} images/s{more}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
