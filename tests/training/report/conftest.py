"""Runs that never were: directories like those of real ones, of any length and shape."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.training.config import OptimizerConfig, TrainConfig, TrainingConfig
from sixfold.training.metrics.classes import summarize
from sixfold.training.report.record import PHASES

MakeRun = Callable[..., Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeRun:
    """What a made-up run is like; `write` puts it into a directory."""

    steps: int = 400
    classes: tuple[str, ...] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    images_per_class: tuple[int, ...] = (200,)
    ranks: int = 2
    validation: bool = True
    finished: bool = True
    skill: float = 0.8
    seed: int = 0

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "timeline").mkdir()
        random = np.random.default_rng(self.seed)
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(self.config(folder))))
        (folder / "metrics.jsonl").write_text(self.metrics(random))
        for rank in range(self.ranks):
            path = folder / "timeline" / f"rank-{rank:04d}.jsonl"
            path.write_text(self.timeline(random, rank))
        if self.finished:
            (folder / "result.json").write_text(json.dumps(self.result(random), indent=1))
        return folder

    def config(self, folder: Path) -> TrainConfig:
        return TrainConfig(
            data=DataConfig(data="cifar10:/data/cifar10", augment="crop:4,flip", validation=0.1),
            model=ModelConfig(model="slide"),
            optimizer=OptimizerConfig(lr=0.1, schedule="cosine", weight_decay=5e-4, warmup=0.5),
            training=TrainingConfig(batch_size=100, steps=self.steps),
            engine=EngineConfig(workers=self.ranks, spark_conf=("spark.ssl.keyPassword=hunter2",)),
        )

    def metrics(self, random: np.random.Generator) -> str:
        progress = np.arange(1, self.steps + 1) / max(self.steps, 1)
        loss = 0.55 + 1.75 * np.exp(-5 * progress)
        noisy = np.abs(loss * (1 + 0.12 * random.standard_normal(self.steps)))
        accuracy = np.clip(0.1 + 0.72 * (1 - np.exp(-6 * progress)), 0, 1)
        batch = random.binomial(100, accuracy) / 100
        rate = 3300 + 90 * random.standard_normal(self.steps)
        lines = []
        time = 1.76e9
        every = max(1, self.steps // 10)
        for k in range(self.steps):
            time += 100 / rate[k]
            here = {"step": k + 1, "time": round(time, 4), "epoch": round((k + 1) / every, 4)}
            lr = 0.05 * (1 + np.cos(np.pi * progress[k])) * min(1.0, (k + 1) / (every / 2))
            lines.append(
                here
                | {"loss": float(noisy[k]), "accuracy": float(batch[k]), "lr": float(lr)}
                | {"images": 100, "images_per_s": round(float(rate[k]), 1)}
            )
            if (k + 1) % every == 0 and self.validation:
                found = {"eval_loss": loss[k] * 1.1, "eval_accuracy": accuracy[k] - 0.03}
                lines.append(here | {"part": "validation"} | found)
                time += 1.5
        if self.steps:
            found = {"eval_loss": loss[-1] * 1.12, "eval_accuracy": accuracy[-1] - 0.035}
            lines.append(lines[-1] | {"part": "test"} | found)
        return "".join(json.dumps(line) + "\n" for line in lines)

    def timeline(self, random: np.random.Generator, rank: int) -> str:
        means = np.array([0.0004, 0.0255, 0.0007, 0.0012 + 0.002 * (rank % 2), 0.0006, 0.0])
        seconds = means * random.gamma(9, 1 / 9, (self.steps, len(PHASES)))
        seconds[:1] *= 8
        slow = slice(self.steps // 2, self.steps // 2 + self.steps // 25)
        seconds[slow, 0] += 0.012
        names = [f"{phase}_s" for phase in PHASES]
        rows = (
            {"step": k + 1} | dict(zip(names, row, strict=True))
            for k, row in enumerate(seconds.round(7).tolist())
        )
        return "".join(json.dumps(row) + "\n" for row in rows)

    def result(self, random: np.random.Generator) -> dict[str, Any]:
        classes = len(self.classes)
        counts = np.resize(self.images_per_class, classes)
        labels = np.repeat(np.arange(classes), counts)
        # Neighbouring classes are confused more often than distant ones.
        skill = np.clip(self.skill + 0.12 * random.standard_normal(classes), 0.05, 0.99)
        shift = random.geometric(0.5, len(labels)) * random.choice([-1, 1], len(labels))
        right = random.random(len(labels)) < skill[labels]
        predicted = np.where(right, labels, (labels + shift) % max(classes, 1))
        confidence = np.clip(random.beta(8, 2, len(labels)), 1 / classes, 1)
        fields = summarize(
            labels,
            predicted,
            confidence,
            right | (random.random(len(labels)) < 0.7),
            classes=self.classes,
            names=lambda indices: [f"test/{self.classes[labels[i]]}/{i:05d}.png" for i in indices],
        )
        return fields | {
            "test_loss": 0.63,
            "train_images_per_s": 3288.4,
            "wall_s": 96.4,
            "startup_s": 1.31,
            "engine_startup_s": 0.42,
            "training_s": 94.9,
            "steps": self.steps,
            "epochs": 10.0,
            "validation_accuracy": 0.786,
            "best_step": self.steps,
            "weights_sha256": "9f2c" * 16,
            "strategy": "sync",
            "engine": "local",
            "workers": self.ranks,
            "restarts": 0,
            "versions": {"python": "3.11.9", "sixfold": "0.1.0", "torch": "2.13.0", "cores": "2"},
            "bad_files": [],
            "parameters": 84362,
            "logical_shards": 4,
        }


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run(**facts)` writes a made-up run and returns its directory."""

    def make(**facts: Any) -> Path:
        return FakeRun(**facts).write(tmp_path / "run")

    return make
