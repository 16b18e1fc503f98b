"""Settings of a search for lottery tickets."""

import dataclasses
from dataclasses import dataclass

from sixfold.core.config import RunConfig
from sixfold.core.settings import Settings, option
from sixfold.data.config import MOST_VALIDATION, DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.training.config import OptimizerConfig, TrainConfig, TrainingConfig, training_with
from sixfold.training.losses.config import LossConfig
from sixfold.training.step.rules import rule_of


@dataclass(frozen=True, kw_only=True)
class TicketDataConfig(DataConfig):
    """Which images, and how they reach the network."""

    validation: float = option(
        0.1,
        "part of the training images that tickets are judged on, by class (above 0, to 0.5)",
        ge=0,
        le=MOST_VALIDATION,
    )


@dataclass(frozen=True, kw_only=True)
class TicketGridConfig(Settings):
    """Which sparse networks are trained from the one dense run."""

    sparsities: str = option(
        "4",
        "how much is pruned: a number M of evenly spaced quantiles of the weights' magnitudes (4: "
        "20, 40, 60, 80%; with --method iterative: M rounds at --rates), or a list of sparsities "
        "such as 0.5,0.8,0.9",
    )
    rewinds: str = option(
        "0", "steps or epochs of the dense run that tickets are reset to, such as 0,500,2ep"
    )
    method: str = option(
        "one-shot",
        "prune the dense network once for each sparsity, or in rounds, each from the weights that "
        "the one before has trained",
        choices=("one-shot", "iterative"),
    )
    scope: str = option(
        "global",
        "rank the magnitudes of all layers together, or prune every layer by itself",
        choices=("global", "layerwise"),
    )
    rates: str = option(
        "",
        "part of what is left that a round removes, by kind of layer, such as "
        "conv=0.1,fc=0.2,output=0.1 (0.2 where not named); without it all kinds are alike",
    )
    controls: str = option(
        "",
        "in the same grid: reinit (the masks with fresh weights), random (as many weights kept of "
        "every layer, at random places), or both: reinit,random",
    )
    seeds: int = option(
        1, "how often each is trained, with another order of the data (and draw of a control)", ge=1
    )
    instability: int = option(
        0,
        "points, 11 or more, at which the error is taken on the line between two tickets trained "
        "with different orders of the data; 0: not done",
        ge=0,
    )
    transfer: str = option(
        "", "another data set, on which the best ticket is trained against a fresh network"
    )


@dataclass(frozen=True, kw_only=True)
class TicketsConfig(Settings):
    """Everything that `sixfold tickets` takes."""

    trellis: TicketGridConfig = TicketGridConfig()
    data: TicketDataConfig = TicketDataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    engine: EngineConfig = EngineConfig()
    run: RunConfig = RunConfig()

    def cross_problems(self) -> list[str]:
        """What is wrong with the training of the dense network, and with the grid."""
        from sixfold.lottery.choices import trellis_problems

        found = [*dense_config(self).problems(), *trellis_problems(self)]
        optimizer = self.optimizer
        if rule_of(optimizer.optimizer).whole_tensors:
            found.append(
                f"--optimizer {optimizer.optimizer}: not for tickets, whose masks need an update "
                "that works element by element; give sgd, adam, or one of torch.optim"
            )
        if optimizer.freeze:
            found.append(f"--freeze {optimizer.freeze}: not for tickets, which mask all weights")
        if optimizer.schedule.startswith("plateau"):
            found.append(
                f"--schedule {optimizer.schedule}: not for tickets, which are compared at equal "
                "learning rates; give another schedule"
            )
        return found


def dense_config(config: TicketsConfig) -> TrainConfig:
    """The settings of the dense run."""
    return training_with(config, data=plain_data(config))


def plain_data(config: TicketsConfig) -> DataConfig:
    """The data settings as `sixfold train` has them, which hold the same fields."""
    names = [field.name for field in dataclasses.fields(DataConfig)]
    return DataConfig(**{name: getattr(config.data, name) for name in names})
