"""Ranks are killed, or stopped, at random moments of a training: what is lost, and for how long.

Every run must end in the same weights as one that nothing happens to. A stall is the time from the
last step of a view to the first of the next. Where ranks wait for a replacement it holds the start
of that process, so told is also how long it was from when a replacement had joined, with its part
of the network still to be built.

Ranks of model_parallel and local_sgd are killed when all of them are there: two at once may be more
than they promise to outlive.

On Spark every second victim is a whole executor: the master must be of this host's.

Ctrl-C, or the end of --minutes, ends the killing, and what was seen until then is printed.

python benchmarks/chaos.py --kills 100
python benchmarks/chaos.py --kills 10 --signal STOP
python benchmarks/chaos.py --kills 20 --strategy model_parallel
python benchmarks/chaos.py --kills 20 --engine spark --master 'local-cluster[3,1,1024]'
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import psutil

import sixfold
from sixfold.core.run_directory import read_json_lines
from sixfold.distributed.engines import open_engine
from sixfold.distributed.process_group import elastic
from sixfold.distributed.process_group.views import MemberId, Membership, Notice

SETTINGS: dict[str, Any] = {
    "data": "synthetic:400x3x8x8",
    "model": "slide",
    "batch_size": 20,
    "lr": 0.001,
    "checkpoint_every": 100_000,  # so that nothing could come from there
    "evaluate_every": 0.0,
}


class Killer:
    """Sends a signal to a rank of the present view now and then, while there are enough."""

    def __init__(
        self,
        kills: int,
        number: signal.Signals,
        chance: random.Random,
        *,
        executors: bool,
        least: int,
        deadline: float,
    ) -> None:
        self._least, self._deadline = least, deadline
        self.left, self._number, self._chance = kills, number, chance
        self._executors = executors
        self._pids: dict[int, int] = {}
        self._gone: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._kill, daemon=True)
        self._thread.start()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Hear which ranks there are."""
        if event["kind"] == "rank":
            self._pids[event["rank"]] = event["pid"]

    def end(self) -> None:
        """Kill nobody any more."""
        self._over.set()
        self._thread.join()

    def _kill(self) -> None:
        while self.left and not self._over.wait(self._chance.uniform(0.5, 2.0)):
            if time.monotonic() > self._deadline:
                return
            alive = sorted(set(self._pids.values()) - self._gone)
            if len(alive) < self._least:
                continue
            victim = self._chance.choice(alive)
            try:
                process = psutil.Process(victim)
                if self._executors and self.left % 2:  # worker, daemon, executor
                    process = process.parents()[1]
                os.kill(process.pid, self._number)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
            finally:
                self._gone.add(victim)
            self.left -= 1


class Readiness(Membership):
    """Notes when replacements had joined, in the launcher."""

    times: ClassVar[list[float]] = []

    def become_ready(self, member: MemberId, view: int) -> list[Notice]:
        """A process waits for a view; the first time it does not come from another."""
        if view == 0:
            self.times.append(time.time())
        return super().become_ready(member, view)


def besides_relaunch(folder: str, views: Sequence[Mapping[str, Any]]) -> list[float]:
    """The stall of each view but the first, counted from when the last process had joined."""
    lines = read_json_lines(Path(folder, "metrics.jsonl"))
    ends = {line["step"]: line["time"] for line in lines if "loss" in line}
    found = []
    for view in views[1:]:
        end = ends.get(view["first_step"])
        if end is not None:
            ready = max((at for at in Readiness.times if at < end), default=0.0)
            found.append(min(view["stall_s"], end - ready))
    return found


@dataclass
class Seen:
    """What was found in all runs that have ended."""

    signals: int = 0
    runs: int = 0
    same: int = 0  # runs with the weights of a calm one
    lost: list[int] = field(default_factory=list)  # steps made again, by view
    losses: list[float] = field(default_factory=list)  # stalls of views with no rank more
    joins: list[float] = field(default_factory=list)  # and of those that others have joined
    without: list[float] = field(default_factory=list)  # all, from when a replacement had joined

    def add(self, views: Sequence[Mapping[str, Any]], without: list[float]) -> None:
        """Take in the views of a run."""
        for before, view in pairwise(views):
            grown = view["ranks"] > before["ranks"]
            (self.joins if grown else self.losses).append(view["stall_s"])
            self.lost.append(view["lost_steps"])
        self.without += without

    def told(self) -> str:
        """A table of one line."""
        columns = {
            "signals, runs": f"{self.signals}, {self.runs}",
            "same weights": f"{self.same} of {self.runs}",
            "steps made again at a time": f"at most {max(self.lost, default=0)}",
            "stall after a loss: median, worst": _stalls(self.losses),
            "as ranks join": _stalls(self.joins),
            "all, from when a replacement had joined": _stalls(self.without),
        }
        rows = (columns, ["---"] * len(columns), columns.values())
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _stalls(found: Sequence[float]) -> str:
    if not found:
        return "none"
    return f"{statistics.median(found):.3f} s, {max(found):.3f} s of {len(found)}"


def run(
    options: argparse.Namespace, engine: str, workers: int, killer: Killer | None
) -> tuple[Any, list[float]]:
    """Train; the result, and stalls without the start of replacements."""
    steps, strategy = options.steps, options.strategy
    with tempfile.TemporaryDirectory() as folder:
        settings = {**SETTINGS, "workers": workers, "steps": steps, "max_restarts": 1000}
        settings |= {"engine": engine, "strategy": strategy}
        config = sixfold.configure(**settings, out=folder)
        try:
            found = sixfold.train(config, on_event=killer or (lambda _: None))
            return found, besides_relaunch(folder, found.views)
        finally:
            if killer is not None:
                killer.end()


def main() -> None:
    """Kill, and print a line a run and a table for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=4000, help="of each run")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nobody is killed")
    choices = ("sync", "model_parallel", "local_sgd")
    parser.add_argument("--strategy", choices=choices, default="sync")
    parser.add_argument("--signal", choices=("KILL", "STOP"), default="KILL")
    parser.add_argument("--engine", choices=("local", "spark"), default="local")
    parser.add_argument("--master", help="of Spark")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    vars(elastic)["Membership"] = Readiness
    seen = Seen()
    with contextlib.ExitStack() as stack:
        if options.engine == "spark":  # one session for all runs, which take up the active one
            stack.enter_context(open_engine("spark", master=options.master))
        try:
            strike(options, seen)
        except KeyboardInterrupt:
            print("interrupted: the run under way is not counted")
    print(seen.told())


def strike(options: argparse.Namespace, seen: Seen) -> None:
    """Train again and again, until all has been killed that was to be."""
    chance, number = random.Random(options.seed), signal.Signals[f"SIG{options.signal}"]
    is_sync, is_spark = options.strategy == "sync", options.engine == "spark"
    calm: dict[int, str] = {}  # the hash of a run that nothing happens to, by ranks
    deadline = time.monotonic() + 60.0 * options.minutes
    while (left := options.kills - seen.signals) > 0 and time.monotonic() < deadline:
        workers = 2 + seen.runs % (2 if is_spark else 3)
        ranks = 1 if is_sync else workers
        if ranks not in calm:
            calm[ranks] = run(options, "local", ranks, None)[0].weights_sha256
        most = min(left, -(-options.kills // 3))  # so that there are runs of several sizes
        killer = Killer(
            most,
            number,
            chance,
            executors=is_spark,
            least=2 if is_sync else workers,
            deadline=deadline,
        )
        began = time.monotonic()
        found, without = run(options, options.engine, workers, killer)
        kills, is_same = most - killer.left, found.weights_sha256 == calm[ranks]
        seen.signals += kills
        seen.runs += 1
        seen.same += is_same
        seen.add(found.views, without)
        print(
            f"{workers} ranks: {kills} signals, {len(found.views)} views, {found.lost_steps} steps "
            f"made again, {time.monotonic() - began:.0f} s, "
            f"{'same' if is_same else 'OTHER'} weights",
            flush=True,
        )


if __name__ == "__main__":
    main()
