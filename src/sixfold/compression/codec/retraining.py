"""The trainings that pruning and weight sharing are followed by, as settings of `sixfold train`."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.config import RunConfig
from sixfold.core.files import write_json
from sixfold.core.random_keys import key
from sixfold.core.run_directory import RunDirectory, as_json
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.process_group import Communicator, SingleProcess
from sixfold.training.config import (
    InitializationConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainConfig,
)
from sixfold.training.worker import TrainJob, train_rank

Trainer = Callable[[TrainConfig], object]
"""Trains in the run directory that the settings name, going on with what is there."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How a network is trained again."""

    # settings of the training that made the network; data, batches and seed are taken over
    base: TrainConfig
    prune_epochs: float  # after each round of pruning
    share_epochs: float  # after weight sharing
    # peak learning rate after pruning; falls to 0 in every round by a cosine. As large as in the
    # first training is best: A. Renda, J. Frankle, M. Carbin, "Comparing rewinding and fine-tuning
    # in neural network pruning", ICLR 2020
    lr: float
    weight_decay: float  # after pruning
    share_lr: float  # learning rate of Adam on centroids, biases and batch-norm, with a cosine too

    def after_pruning(self, weights: Path, mask: Path, out: Path) -> TrainConfig:
        """Train the weights that a mask keeps."""
        optimizer = dataclasses.replace(
            self.base.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="cosine",
            warmup=0.0,
        )
        initialization = InitializationConfig(weights=str(weights), mask=str(mask))
        return self._settings(optimizer, initialization, self.prune_epochs, out)

    def after_sharing(self, weights: Path, clusters: Path, out: Path) -> TrainConfig:
        """Train centroids.

        The gradient of a centroid is a sum over anything from one to thousands of weights; Adam,
        which goes by the gradient's sign and steadiness, needs no learning rate for each.
        """
        optimizer = OptimizerConfig(optimizer="adam", lr=self.share_lr, schedule="cosine")
        initialization = InitializationConfig(weights=str(weights), shared=str(clusters))
        return self._settings(optimizer, initialization, self.share_epochs, out)

    def _settings(
        self,
        optimizer: OptimizerConfig,
        initialization: InitializationConfig,
        epochs: float,
        out: Path,
    ) -> TrainConfig:
        seed = key(self.base.training.seed, "compress", out.name) % (1 << 31)
        return dataclasses.replace(
            self.base,
            optimizer=optimizer,
            initialization=initialization,
            strategy=StrategyConfig(),
            training=dataclasses.replace(
                self.base.training, epochs=epochs, steps=None, seed=seed, evaluate_every=0.0
            ),
            run=RunConfig(out=str(out), resume=out.is_dir(), keep_checkpoints=1),
        )


def train_alone(config: TrainConfig) -> None:
    """Train with this process alone, without any engine: what members of a search do."""
    directory = RunDirectory(Path(str(config.run.out)))
    if directory.result() is not None:
        return
    directory.create()
    config = dataclasses.replace(config, engine=EngineConfig(engine="inline", workers=1))
    write_json(directory.file("config.json"), as_json(config))
    attempt = directory.claim()
    comm = Communicator(
        rank=0, size=1, host=socket.gethostname(), attempt=attempt, transport=SingleProcess()
    )
    result = train_rank(TrainJob(config=config, claim=directory.ticket()), comm)
    write_json(directory.file("result.json"), result)
