"""How fast images are loaded, beside how fast they are trained on.

Loading is what a rank's own thread does for its steps: reading, augmenting, normalising, into
shards. The peer is torch's DataLoader with worker processes, over the same images and with the
same augmentation, written as people write it: one image at a time in `__getitem__`. Both are
measured by themselves, one thread or one worker process a rank. The time that a training then
spends waiting for images is read off the time lines of a real run.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.bench.comparison import Comparison
from benchmarks.bench.contenders import NotMeasuredError, run_process, train_command
from benchmarks.bench.options import PartsBenchConfig, TrainBenchConfig, parse_batches
from benchmarks.bench.publish import Show, begin, publish
from benchmarks.bench.train import resolve
from sixfold import data as datasets
from sixfold.core.errors import RunError
from sixfold.data import DataSet, parse_augment
from sixfold.data.config import DataConfig
from sixfold.distributed.process_group import alone
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.training.config import TrainConfig, TrainingConfig
from sixfold.training.step.batches import plan_batches
from sixfold.training.worker import FIRST_TIMED_STEP


def run_input_bench(
    config: TrainBenchConfig, parts: PartsBenchConfig, *, show: Show
) -> list[Comparison]:
    """Measure, show the tables, and write `input.json` and `input.html`."""
    place = begin("input", config.out)
    data = datasets.open_data(resolve(config))
    rates = Comparison(
        title=f"Images of {config.data}, augmented by {parts.augment}",
        unit="images/s",
        form=",.0f",
        less_is_better=False,
        what={
            "sixfold": "loading by one thread, as a rank does",
            "dataloader": "torch's DataLoader with one worker process",
            "training": f"`sixfold train` of {config.model}, each of {config.workers} workers",
        },
    )
    idle = Comparison(
        title="Part of a training's time in which a rank waits for images",
        unit="percent",
        form=".2f",
        less_is_better=True,
        what={"sixfold": f"`sixfold train` of {config.model}, {config.workers} workers"},
        limit_name="bar: 2%",
    )
    for batch in parse_batches(config.batches):
        row = f"B = {batch}"
        for repeat in range(config.repeats):
            rates.add("sixfold", row, loading_rate(data, parts.augment, batch, config.seconds))
            loaded = dataloader_rate(data, parts.augment, batch, config.seconds)
            rates.add("dataloader", row, loaded)
            rate, waited = _train(config, parts.augment, batch)
            rates.add("training", row, rate / config.workers)
            idle.add("sixfold", row, 100 * waited)
            show(f"B = {batch}, repeat {repeat + 1} done")
    publish(place, config, [rates, idle], show)
    return [rates, idle]


def loading_rate(data: DataSet, augment: str, batch: int, seconds: float) -> float:
    """Images/s of one rank's own loading, by itself.

    Args:
        data: the data set.
        augment: as for `sixfold train`.
        batch: images a step.
        seconds: about how long to measure.
    """
    settings = TrainConfig(
        data=DataConfig(data="", augment=augment),
        training=TrainingConfig(batch_size=batch, steps=10**9),
    )
    with one_thread():
        shards = plan_batches(settings, data, batch_norm=False).own_shards(alone(), 0)
        next(shards)
        images, begun = 0, time.perf_counter()
        while (spent := time.perf_counter() - begun) < seconds:
            images += len(next(shards).labels)
    return images / spent


def dataloader_rate(data: DataSet, augment: str, batch: int, seconds: float) -> float:
    """Images/s of torch's DataLoader with one worker process; see `loading_rate`."""
    loader = DataLoader(_Images(data, augment), batch_size=batch, shuffle=True, num_workers=1)
    images, begun, spent = -1, 0.0, 0.0
    while spent < seconds:
        for labels in (batch[1] for batch in loader):
            if images < 0:  # the worker's start does not count
                images, begun = 0, time.perf_counter()
                continue
            images += len(labels)
            spent = time.perf_counter() - begun
            if spent >= seconds:
                break
        if images <= 0 and spent == 0.0:
            raise RunError("the training part is too small for --batches: give smaller ones")
    return images / spent


class _Images(Dataset[tuple[Tensor, int]]):
    """The training part one image at a time."""

    def __init__(self, data: DataSet, augment: str) -> None:
        self._data, self._augment = data, parse_augment(augment)
        self._make = datasets.BatchMaker(data)

    def __len__(self) -> int:
        return len(self._data.train)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        part = self._data.train
        pixels = part.images(np.array([place]))
        if self._augment is not None:
            pixels = self._augment.apply(pixels, int(torch.randint(1 << 62, (1,))))
        return torch.from_numpy(self._make.normalise(pixels))[0], int(part.labels[place])


def _train(config: TrainBenchConfig, augment: str, batch: int) -> tuple[float, float]:
    """Images/s of a real training, and the part of its ranks' time without images to work on."""
    with tempfile.TemporaryDirectory(prefix="sixfold-bench-") as folder:
        out = Path(folder, "run")
        steps = config.steps or _steps(config, batch)
        command = train_command(
            data=config.data, model=config.model, workers=config.workers, out=out, steps=steps,
            **{"batch-size": batch, "augment": augment},
        )  # fmt: skip
        try:
            run_process(command, config.seconds + 30.0)
        except NotMeasuredError as error:
            raise RunError(f"sixfold could not be measured: {error}") from error
        rate = json.loads((out / "result.json").read_text(encoding="utf-8"))["train_images_per_s"]
        lines = [
            json.loads(line)
            for path in sorted((out / "timeline").glob("rank-*.jsonl"))
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
    return float(rate), idle_share(lines)


def idle_share(lines: list[dict[str, Any]]) -> float:
    """The part of all ranks' time that went to waiting for images, the first steps left out.

    >>> idle_share([{"step": 1, "data_s": 9.0}, {"step": 4, "data_s": 1.0, "compute_s": 3.0}])
    0.25
    """
    timed = [line for line in lines if line["step"] > FIRST_TIMED_STEP]
    whole = sum(value for line in timed for name, value in line.items() if name.endswith("_s"))
    return float(sum(line["data_s"] for line in timed) / whole)


def _steps(config: TrainBenchConfig, batch: int) -> int:
    """Steps for about so many seconds, at the 5,000 images/s of a small network on two cores."""
    return FIRST_TIMED_STEP + max(10, round(5000 * config.seconds / batch))
