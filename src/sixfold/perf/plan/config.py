"""Settings of `sixfold plan`, in the form from which the command line makes its options."""

from dataclasses import dataclass

from sixfold.core.settings import Settings, option
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.training.config import LocalSgdConfig, OptimizerConfig, TrainConfig, TrainingConfig
from sixfold.training.losses.config import LossConfig


@dataclass(frozen=True, kw_only=True)
class PlanningConfig(Settings):
    """What the plan rests on, and where it goes."""

    machine: str | None = option(
        None,
        "file with a calibration: what it lacks is measured (up to a minute) and added; without "
        "the option everything is measured anew",
    )
    measure_network: bool = option(
        True,
        "run steps of the network on one rank; false: estimate them from the times of layers of "
        "other shapes (much less sure; sync, local_sgd and hogwild only)",
    )
    what_if: str = option(
        "",
        "simulate a larger cluster: workers=N[,per_host=R][,link=10Gbps/20us][,mtbf=HOURS]"
        "[,checkpoint=MINUTES][,machine=FILE]",
    )
    to: str = option(
        "",
        "predict how long each way takes until the validation part has METRIC=VALUE, such as "
        "accuracy=0.9, from short trainings (--probe)",
        form="METRIC=VALUE",
    )
    probe: str = option("2m", "--to: time for all short trainings together, such as 90s or 10m")
    batch_sizes: str = option(
        "", "--to: batch sizes to compare, separated by commas (default: --batch-size)"
    )
    price: float = option(0.0, "price of a core for an hour: what each way costs is told", ge=0)
    out: str = option("runs/plan", "directory for plan.json and plan.html")


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Settings):
    """Everything that `sixfold plan` takes."""

    planning: PlanningConfig = PlanningConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    local_sgd: LocalSgdConfig = LocalSgdConfig()
    engine: EngineConfig = EngineConfig()


def training_of(config: PlanConfig) -> TrainConfig:
    """The training that is planned."""
    return TrainConfig(
        data=config.data,
        model=config.model,
        loss=config.loss,
        optimizer=config.optimizer,
        training=config.training,
        local_sgd=config.local_sgd,
        engine=config.engine,
    )
