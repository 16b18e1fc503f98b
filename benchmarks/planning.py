"""How good the planner is: predictions of `sixfold plan` beside what trainings really take.

Calibrated with the network's own steps on one rank, at some batch sizes, and with the links; then
predicted for two and more ranks, other batch sizes, and every strategy. What is measured is the
time of a batch in ordinary trainings, in the middle of their steps; every training is made several
times in turns, and of these the least disturbed counts. The noise floor is how far the others are
off it. `collect` measures a network and writes a file; `table` puts files together.

python -m benchmarks.planning collect slide --out slide.json
python -m benchmarks.planning table slide.json lenet5.json ...
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import sixfold
from benchmarks.prediction_errors import errors, kendall_tau, regret
from benchmarks.prediction_peers import alpha_beta, ernest, ernest_s, paleo
from sixfold import data as datasets
from sixfold.distributed.engines import Engine
from sixfold.distributed.engines.local import LocalEngine
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.session import open_engine_for
from sixfold.models.meta_initialization import build_on_meta
from sixfold.perf.plan import calibration as files
from sixfold.perf.plan.calibrate import calibrate, fitting_meshes, model_of
from sixfold.perf.plan.candidates import Candidate, candidates
from sixfold.perf.plan.links import curve_of
from sixfold.perf.plan.run import PRELOAD
from sixfold.perf.profile.layers import layer_costs
from sixfold.perf.profile.machine import measure_machine
from sixfold.training.config import TrainConfig
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool
from sixfold.training.run import train

LOCAL_STEPS = 8
RUN_S = 1.2
"""About how long the steps of a training last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A network with its data; it is calibrated at some batch sizes and predicted at others."""

    model: str
    data: str
    known: tuple[int, ...]
    held_out: tuple[int, ...]
    model_args: str = ""


CASES = {
    "slide": Case(
        model="slide", data="synthetic:4000x3x32x32", known=(4, 32, 256), held_out=(10, 100, 1000)
    ),
    "lenet5": Case(
        model="lenet5", data="synthetic:4000x1x28x28", known=(4, 32, 256), held_out=(10, 100, 1000)
    ),
    "resnet20": Case(
        model="resnet20", data="synthetic:1000x3x32x32", known=(16, 128), held_out=(64, 100)
    ),
    "cells": Case(model="cells", data="synthetic:1000x1x128x128", known=(4, 32), held_out=(10, 50)),
    "mobilenet_v2": Case(
        model="mobilenet_v2",
        model_args="width=0.5",
        data="synthetic:400x3x32x32",
        known=(16, 64),
        held_out=(32, 100),
    ),
}


def settings(case: Case, batch: int, way: Candidate | None = None, **more: Any) -> TrainConfig:
    """The settings of a training."""
    chosen: dict[str, Any] = {}
    if way is not None:
        chosen = {"strategy": way.strategy, "workers": way.workers}
        if way.strategy == "model_parallel":
            chosen["grid"] = str(way.grid)
        if way.strategy == "local_sgd":
            chosen["local_steps"] = LOCAL_STEPS
    return sixfold.configure(
        model=case.model,
        model_args=case.model_args,
        data=case.data,
        batch_size=batch,
        lr=1e-4,
        momentum=0.9,
        evaluate_every=0.0,
        **{**chosen, **more},
    )


def measure(case: Case, batch: int, way: Candidate, steps: int, engine: Engine) -> dict[str, float]:
    """Seconds of a batch in a training, and where they went."""
    rounds = -(-steps // way.workers) if way.strategy == "hogwild" else steps
    with tempfile.TemporaryDirectory() as folder:
        config = settings(case, batch, way, steps=steps, out=f"{folder}/run")
        result = train(config, engine=engine)
        lines = [json.loads(text) for text in _lines(Path(folder, "run", "metrics.jsonl"))]
        times = [line["time"] for line in lines if "loss" in line]
        parts = [
            [json.loads(text) for text in _lines(path)]
            for path in sorted(Path(folder, "run", "timeline").glob("rank-*.jsonl"))
        ]
    window = {"local_sgd": LOCAL_STEPS, "param_server": 8, "hogwild": 4}.get(way.strategy, 1)
    window = min(window, max(len(times) // 3, 1))
    first = min(3 if way.strategy != "local_sgd" else LOCAL_STEPS, len(times) // 3)
    ends = np.asarray(times)[first::window]
    batches = way.workers if way.strategy == "hogwild" else 1
    assert len(times) >= min(rounds, 3), "a training logs all its steps"
    steady = [row for rank in parts for row in rank[first:]]

    def part(*names: str) -> float:
        sums = [sum(row.get(name, 0.0) for name in names) for row in steady]
        return float(np.median(sums)) / batches if sums else 0.0

    return {
        "batch_s": float(np.median(np.diff(ends))) / window / batches,
        "compute_s": part("compute_s", "data_s", "update_s"),
        "exchange_s": part("communication_s", "waiting_s"),
        "startup_s": float(result["engine_startup_s"]),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def go_ahead(engine: Engine) -> None:
    """Let the ranks have the cores before other programs; needs the rights for it."""
    assert isinstance(engine, LocalEngine)
    Path(f"/proc/{engine.warm_up().pid}/autogroup").write_text("-20")


def collect(
    name: str, out: Path, *, repeats: int, more_workers: tuple[int, ...], ahead: bool
) -> None:
    """Calibrate, predict, measure, and write everything."""
    case = CASES[name]
    known = dataclasses.replace(
        settings(case, case.known[0], steps=100, workers=2),
        local_sgd=dataclasses.replace(sixfold.TrainConfig().local_sgd, local_steps=LOCAL_STEPS),
    )
    rows: list[dict[str, Any]] = []
    with open_engine_for(known.engine, case.model, preload=PRELOAD) as engine:
        if ahead:
            go_ahead(engine)
        known = dataclasses.replace(known, data=datasets.resolve(known.data))
        opened = datasets.open_data(known.data)
        fitting = fitting_meshes(known, opened, 2)
        most = max(2, *more_workers) if more_workers else 2
        made = calibrate(
            known, opened, engine, most, batches=case.known[1:], fitting=fitting, on_event=print
        )
        others = Baselines(case, known, made, engine)
        starts = [engine.run_ranks(_nothing, 2).engine_s for _ in range(5)]
        startup_s = float(np.median(starts))
        for batch in case.held_out:
            training = dataclasses.replace(known.training, batch_size=batch)
            config = dataclasses.replace(known, training=training)
            model, _ = model_of(config, made, opened)
            ways = [way for way in candidates(config, 2, fitting) if model.knows(way)]
            ways += [Candidate(strategy="sync", workers=n) for n in more_workers]
            for way in ways:
                found = model.predict(way)
                rows.append(
                    {
                        "batch": batch,
                        "way": way.name,
                        "strategy": way.strategy,
                        "grid": str(way.grid),
                        "workers": way.workers,
                        "predicted": {
                            "batch_s": found.batch_s,
                            "compute_s": found.compute_s,
                            "exchange_s": found.exchange_s + found.waiting_s,
                            "startup_s": startup_s,
                        },
                        "baselines": (
                            others.predict(config, way.workers) if way.strategy == "sync" else {}
                        ),
                        "measured": [],
                    }
                )
        for turn in range(repeats):
            for row in rows:
                way = _way(row, fitting)
                steps = int(np.clip(RUN_S / row["predicted"]["batch_s"], 12, 600))
                took = measure(case, row["batch"], way, steps, engine)
                row["measured"].append(took)
                print(
                    f"{turn} B={row['batch']:<5} {way.name:<24} {way.workers}  predicted "
                    f"{1e3 * row['predicted']['batch_s']:8.2f} ms  measured "
                    f"{1e3 * took['batch_s']:8.2f}",
                    flush=True,
                )
                _write(out, name, made, rows)


def _nothing(comm: Communicator) -> None:
    """An empty rank: what is left is the engine's own time."""


class Baselines:
    """What other models say of data parallel steps."""

    def __init__(
        self, case: Case, known: TrainConfig, made: files.Calibration, engine: Engine
    ) -> None:
        self.case, self.made = case, made
        opened = datasets.open_data(known.data)
        self.opened = opened
        self.limits = measure_machine()
        self.link = curve_of(made.machine.links["local"]["1"])
        self.network = made.networks[files.network_key(known)]
        found = build_on_meta(known.model, shape=opened.shape, classes=len(opened.classes), seed=0)
        self.model = fused_max_pool(relu_behind_max_pool(found.network))
        largest = max(
            (p for p in self.network.points if not p.mesh and not p.merge and p.concurrency == 1),
            key=lambda point: point.samples,
        )
        self.image_s = largest.step_s / largest.samples
        self.runs = []
        for batch in case.known:
            for workers in (1, 2):
                way = Candidate(strategy="sync", workers=workers)
                steps = int(np.clip(RUN_S / (self.image_s * batch), 12, 400))
                took = measure(case, batch, way, steps, engine)["batch_s"]
                self.runs.append((batch, workers, took))
        self.fitted = ernest(self.runs)
        bare = files.Calibration(machine=made.machine, networks={})
        estimated = calibrate(
            known, opened, engine, 2, known=bare, batches=case.held_out, fitting=[], rehearsed=False
        )
        self.kernels = estimated

    def predict(self, config: TrainConfig, workers: int) -> dict[str, float]:
        """Seconds of a step, by model."""
        batch = config.training.batch_size
        model, _ = model_of(config, self.kernels, self.opened)
        count, shard = model.shards(batch)
        costs = layer_costs(self.model, self.opened.shape, max(round(shard), 1))
        payload = float(self.network.payload_bytes)
        return {
            "unseen network (kernel times)": model.predict(
                Candidate(strategy="sync", workers=workers)
            ).batch_s,
            "Paleo": paleo(
                flops=count * sum(cost.flops for cost in costs),
                moved_bytes=count * sum(cost.bytes_moved for cost in costs),
                peak_flops=self.limits.peak_flops(workers),
                bandwidth=self.limits.bandwidth(workers),
                payload_bytes=payload,
                ranks=workers,
                link=self.link,
            ),
            "alpha-beta": alpha_beta(
                image_s=self.image_s,
                batch=batch,
                payload_bytes=payload,
                ranks=workers,
                link=self.link,
            ),
            "Ernest": ernest_s(self.fitted, batch, workers),
        }


def _way(row: dict[str, Any], fitting: Any) -> Candidate:
    config = sixfold.configure(batch_size=row["batch"])
    for way in candidates(config, row["workers"], fitting):
        if (way.name, way.workers) == (row["way"], row["workers"]):
            return way
    return Candidate(strategy=row["strategy"], workers=row["workers"])


def _write(out: Path, name: str, made: files.Calibration, rows: list[dict[str, Any]]) -> None:
    text = json.dumps(
        {
            "case": name,
            "calibration": dataclasses.asdict(made),
            "rows": rows,
            "cores": os.cpu_count(),
        }
    )
    out.write_text(text)


def least(row: dict[str, Any], name: str = "batch_s") -> float:
    """The least disturbed of the measurements."""
    best = min(row["measured"], key=lambda found: found["batch_s"])
    return float(best[name])


def table(paths: list[Path]) -> None:
    """Print errors by strategy and network, the order of the ways, regret and noise."""
    cases = [json.loads(path.read_text()) for path in paths]
    rows = [
        {**row, "case": case["case"]} for case in cases for row in case["rows"] if row["measured"]
    ]
    plain = [row for row in rows if row["workers"] <= 2]
    print(f"{'':<34}{'n':>4}{'mean':>8}{'median':>8}{'P90':>8}{'bias':>8}")
    for title, chosen in (
        (
            "sync, 2 ranks (data parallel)",
            [r for r in plain if r["strategy"] == "sync" and r["workers"] == 2],
        ),
        (
            "sync, 1 rank, unseen batches",
            [r for r in plain if r["strategy"] == "sync" and r["workers"] == 1],
        ),
        *(
            (name, [r for r in plain if r["strategy"] == name])
            for name in ("model_parallel", "local_sgd", "hogwild", "param_server")
        ),
        ("all strategies, 2 ranks", [r for r in plain if r["workers"] == 2]),
        *((f"  {case['case']}", [r for r in plain if r["case"] == case["case"]]) for case in cases),
        ("more ranks than cores", [r for r in rows if r["workers"] > 2]),
    ):
        if chosen:
            _line(title, [r["predicted"]["batch_s"] for r in chosen], [least(r) for r in chosen])
    both = [r for r in plain if r["strategy"] == "sync"]
    for name in both[0]["baselines"] if both else ():
        _line(f"{name}, sync", [r["baselines"][name] for r in both], [least(r) for r in both])
    barred = [r for r in plain if r["strategy"] in ("sync", "model_parallel", "local_sgd")]
    _line(
        "compute alone",
        [r["predicted"]["compute_s"] for r in barred],
        [least(r, "compute_s") for r in barred],
    )
    talking = [r for r in barred if r["workers"] > 1]
    shares = [(r["predicted"]["exchange_s"] - least(r, "exchange_s")) / least(r) for r in talking]
    print(
        f"exchanges and waiting, error as part of the batch: mean {np.mean(np.abs(shares)):.1%}, "
        f"bias {np.mean(shares):+.1%}"
    )
    _line(
        "start-up (scheduler)",
        [r["predicted"]["startup_s"] for r in barred],
        [least(r, "startup_s") for r in barred],
    )
    noise = [
        found["batch_s"] / least(r) - 1.0
        for r in plain
        for found in r["measured"]
        if found["batch_s"] > least(r)
    ]
    if noise:
        print(f"noise floor: repeats are {np.mean(noise):.1%} off, median {np.median(noise):.1%}")
    taus, regrets = [], []
    for case in cases:
        for batch in sorted({r["batch"] for r in plain if r["case"] == case["case"]}):
            group = [r for r in plain if r["case"] == case["case"] and r["batch"] == batch]
            predicted = [r["predicted"]["batch_s"] for r in group]
            measured = [least(r) for r in group]
            taus.append(kendall_tau(predicted, measured))
            regrets.append(regret(predicted, measured))
    print(
        f"Kendall tau: mean {np.mean(taus):.3f}, least {min(taus):.3f}, over {len(taus)} rankings"
    )
    print(f"regret: mean {np.mean(regrets):.1%}, most {max(regrets):.1%}")


def _line(title: str, predicted: list[float], measured: list[float]) -> None:
    found = errors(predicted, measured)
    print(
        f"{title:<34}{found.count:>4}{found.mean:>8.1%}{found.median:>8.1%}{found.p90:>8.1%}"
        f"{found.bias:>+8.1%}"
    )


def main() -> None:
    """Collect, or put together."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("case", choices=sorted(CASES))
    collecting.add_argument("--out", type=Path, required=True)
    collecting.add_argument("--repeats", type=int, default=2)
    collecting.add_argument("--workers", default="", help="more workers for sync, such as 3,4")
    collecting.add_argument(
        "--ahead", action="store_true", help="the ranks go before other programs (Linux, root)"
    )
    showing = commands.add_parser("table")
    showing.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "table":
        table(options.files)
        return
    more = tuple(int(word) for word in options.workers.split(",") if word)
    collect(
        options.case, options.out, repeats=options.repeats, more_workers=more, ahead=options.ahead
    )


if __name__ == "__main__":
    main()
