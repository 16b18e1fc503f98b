"""Settings of a learning-rate range test."""

import dataclasses
from dataclasses import dataclass

from sixfold.core.config import RunConfig
from sixfold.core.settings import Settings, option
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.training.config import (
    OptimizerConfig,
    SelectionConfig,
    TrainConfig,
    TrainingConfig,
    training_with,
)
from sixfold.training.losses.config import LossConfig

STEPS = 100  # steps of a test, unless --steps gives them
STOPPER = "sixfold.training.lr_find.divergence:StopAtDivergence"


@dataclass(frozen=True, kw_only=True)
class RangeConfig(Settings):
    """The rates that are tried."""

    lr_from: float = option(1e-6, "learning rate of the first step", gt=0)
    lr_to: float = option(
        10.0, "learning rate of the last step, unless the loss has risen before", gt=0
    )


@dataclass(frozen=True, kw_only=True)
class LrFindConfig(Settings):
    """Everything that `sixfold lr-find` takes."""

    range: RangeConfig = RangeConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    engine: EngineConfig = EngineConfig()
    run: RunConfig = RunConfig()

    def cross_problems(self) -> list[str]:
        """What does not go together."""
        found = []
        if self.range.lr_from >= self.range.lr_to:
            found.append(
                f"--lr-from {self.range.lr_from}: must be below --lr-to {self.range.lr_to}"
            )
        usual, given = OptimizerConfig(), self.optimizer
        found += [
            f"--{name} {getattr(given, name)}: not in a range test, which tries rates of its own"
            for name in ("lr", "schedule", "warmup")
            if getattr(given, name) != getattr(usual, name)
        ]
        if self.training.epochs is not None:
            found.append(f"--epochs: a range test has --steps (default {STEPS})")
        if found or not 0 < self.range.lr_from < self.range.lr_to:  # as the bounds say already
            return found
        return training_of(self).problems()


def training_of(config: LrFindConfig) -> TrainConfig:
    """The training whose rate rises from step to step."""
    tried = config.range
    return training_with(
        config,
        optimizer=dataclasses.replace(
            config.optimizer, lr=tried.lr_to, schedule=f"rise:{tried.lr_to / tried.lr_from!r}"
        ),
        training=dataclasses.replace(
            config.training, steps=config.training.steps or STEPS, evaluate_every=0.0
        ),
        selection=SelectionConfig(callback=(STOPPER,)),
    )
