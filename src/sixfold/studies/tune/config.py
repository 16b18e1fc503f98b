"""Settings of `sixfold tune`."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.config import TRUST_MODEL, resume_problems
from sixfold.core.settings import Settings, option
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.studies.sweep.config import named_problems
from sixfold.training.config import (
    ComputeConfig,
    InitializationConfig,
    LocalSgdConfig,
    OptimizerConfig,
    SelectionConfig,
    StrategyConfig,
    TrainConfig,
    TrainingConfig,
)
from sixfold.training.losses.config import LossConfig


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Settings):
    """What is searched, and how."""

    search: tuple[str, ...] = option(
        (),
        "a setting and what it may be: lr=log:1e-4:1e-1, momentum=uniform:0:0.99, "
        "width=uniform:16:64:16 (in steps of 16), optimizer=sgd,adamw; any setting of `sixfold "
        "train`, or model.NAME for an argument of the network; '|' between values that hold "
        "commas; may be repeated",
        form="NAME=WHAT",
    )
    trials: int = option(20, "how many choices of settings are tried", ge=1)
    metric: str = option(
        "",
        "metric of the validation part by which trials are judged (default accuracy, or loss where "
        "labels are no classes)",
    )
    sampler: str = option(
        "tpe",
        "how settings are chosen: by what earlier trials reached (tree-structured Parzen "
        "estimators), or at random",
        choices=("tpe", "random"),
    )
    pruner: str = option(
        "asha",
        "which trials are trained further: the best of each length (asha); the same, with some "
        "that begin with a longer one (hyperband); all to the end (none)",
        choices=("asha", "hyperband", "none"),
    )
    rungs: int = option(
        3,
        "lengths at which trials are compared: with 3 a ninth of the training, a third and all",
        ge=1,
        le=10,
    )
    reduction: int = option(
        3, "one in so many trials is trained further, so many times as long", ge=2
    )
    parallel: int = option(
        4,
        "trials that are decided on before the first of them is judged, whatever the number of "
        "workers, of which no more are used",
        ge=1,
    )
    search_seed: int = option(0, "seed of the choices", ge=0, lt=2**32)

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """What a network, loss or the like that only the run names would be refused for."""
        return named_problems(self.search if "search" in taken else (), file)


@dataclass(frozen=True, kw_only=True)
class TrialSelectionConfig(SelectionConfig):
    """What each trial selects on the validation part, and when the search stops."""

    max_time: str = option(
        "", "begin no training after this time, such as 30m or 1h30m; --resume goes on"
    )


@dataclass(frozen=True, kw_only=True)
class TuneRunConfig(Settings):
    """Where the search is kept."""

    out: str | None = option(None, "directory (default runs/tune-<hash of the settings>)")
    resume: bool = option(
        False, "go on with what is in the directory; --trials and --max-time may be others"
    )
    overwrite: bool = option(False, "replace an older search in the directory")
    trust_model: bool = option(False, TRUST_MODEL)
    checkpoint_every: int | None = option(
        None, "steps between checkpoints of a trial (default: every epoch, and every minute)", ge=1
    )

    def cross_problems(self) -> list[str]:
        """What does not go together."""
        return resume_problems(self)


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Settings):
    """Everything that `sixfold tune` takes."""

    tune: SearchConfig = SearchConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    selection: TrialSelectionConfig = TrialSelectionConfig()
    compute: ComputeConfig = ComputeConfig()
    initialization: InitializationConfig = InitializationConfig()
    strategy: StrategyConfig = StrategyConfig()
    local_sgd: LocalSgdConfig = LocalSgdConfig()
    engine: EngineConfig = EngineConfig()
    run: TuneRunConfig = TuneRunConfig()

    def cross_problems(self) -> list[str]:
        """What is wrong with the search itself."""
        from sixfold.studies.tune.space import search_problems

        return search_problems(self)


def base_config(config: TuneConfig) -> TrainConfig:
    """The settings that all trials share: each is a training of one worker's."""
    names = [field.name for field in dataclasses.fields(SelectionConfig)]
    selection = {name: getattr(config.selection, name) for name in names}
    shared = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(TrainConfig)
        if field.name not in ("selection", "engine", "tracking", "run")
    }
    return TrainConfig(
        **shared,
        selection=SelectionConfig(**selection | {"max_time": ""}),
        engine=EngineConfig(engine="inline", workers=1),
    )
