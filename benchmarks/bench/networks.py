"""One network or several: a table each, and their ratios side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from benchmarks.bench.comparison import Comparison
from benchmarks.bench.figures import Results
from benchmarks.bench.options import PartsBenchConfig, TrainBenchConfig
from benchmarks.bench.publish import Show, begin, publish
from benchmarks.bench.train import run_train_bench
from sixfold.core.errors import UserError


def run_networks_bench(config: TrainBenchConfig, parts: PartsBenchConfig, *, show: Show) -> None:
    """Measure each network in turn.

    Of several, each has a folder of its own in --out, and `networks.json` and `networks.html` hold
    all of them.

    Raises:
        UserError: if the settings make no sense.
        RunError: if Sixfold itself could not be measured.
    """
    names = list(dict.fromkeys(name.strip() for name in config.model.split(",")))
    peers = [peer.strip() for peer in parts.peers.split(",") if peer.strip()]
    if not all(names):
        raise UserError(f"--model {config.model}: expected names such as slide,resnet20")
    if len(names) == 1:
        run_train_bench(dataclasses.replace(config, model=names[0]), show=show, peers=peers)
        return
    place = begin("networks", config.out or "runs/bench-train")
    found: Comparison | None = None
    for name in names:
        one = dataclasses.replace(config, model=name, out=str(Path(place.folder, name)))
        results = run_train_bench(one, show=show, peers=peers)
        found = found or _empty(config, results)
        _add(found, name, results)
    assert found is not None
    publish(place, config, [found], show)


def _empty(config: TrainBenchConfig, results: Results) -> Comparison:
    return Comparison(
        title=f"Training with {config.workers} workers, {config.data}",
        unit="images/s",
        form=",.0f",
        less_is_better=False,
        what=dict.fromkeys(results.contenders, "see the table of each network"),
    )


def _add(found: Comparison, network: str, results: Results) -> None:
    for contender, batch in results.samples:
        found.extend(contender, f"{network}, B = {batch}", results.samples[contender, batch])
