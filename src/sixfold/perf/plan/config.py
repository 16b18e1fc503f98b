"""Settings of `sixfold plan`, in the form from which the command line makes its options."""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.core.config import DataConfig, EngineConfig, LocalSgdConfig, ModelConfig, OptimizerConfig, TrainConfig, TrainingConfig
from sixfold.core.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class PlanningConfig(Settings):
    """What the plan rests on, and where it goes."""

    machine: str | None = option(
        None,
        "file with a calibration: what it lacks is measured (up to a minute) and added; without "
        "the option everything is measured anew",
    )
    rehearse: bool = option(
        True,
        "run steps of the network on one rank; false: estimate them from the times of layers of "
        "other shapes (much less sure; sync, local_sgd and hogwild only)",
    )
    what_if: str = option(
        "",
        "simulate a larger cluster: workers=N[,per_host=R][,link=10Gbps/20us][,mtbf=HOURS]"
        "[,checkpoint=MINUTES][,machine=FILE]",
    )
    out: str = option("runs/plan", "directory for plan.json and plan.html")


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Settings):
    """Everything that `sixfold plan` takes."""

    planning: PlanningConfig = PlanningConfig()
    data: DataConfig = DataConfig()  # noqa: RUF009
    model: ModelConfig = ModelConfig()  # noqa: RUF009
    optimizer: OptimizerConfig = OptimizerConfig()  # noqa: RUF009
    training: TrainingConfig = TrainingConfig()  # noqa: RUF009
    local_sgd: LocalSgdConfig = LocalSgdConfig()  # noqa: RUF009
    engine: EngineConfig = EngineConfig()  # noqa: RUF009


def training_of(config: PlanConfig) -> TrainConfig:
    """The training that is planned.

    >>> training_of(PlanConfig()).strategy.strategy
    'sync'
    """
    return TrainConfig(
        data=config.data,
        model=config.model,
        optimizer=config.optimizer,
        training=config.training,
        local_sgd=config.local_sgd,
        engine=config.engine,
    )
