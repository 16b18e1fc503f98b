"""Settings of a profile, in the form from which the command line makes its options."""

import dataclasses
from dataclasses import dataclass

from sixfold.core.config import RunConfig
from sixfold.core.naming import flag_of
from sixfold.core.settings import Settings, option, same
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.training.config import (
    LocalSgdConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainConfig,
    TrainingConfig,
    training_with,
)
from sixfold.training.losses.config import LossConfig

ENGINES = ("inline", "local", "spark")


@dataclass(frozen=True, kw_only=True)
class ProfilingConfig(Settings):
    """What is measured, and where it goes."""

    run: str | None = option(
        None, "directory of a training that is only read: tell how its ranks used their time"
    )
    compare: str | None = option(
        None, "with RUN: another profile or training, whose layers and waits are put next to RUN's"
    )
    repeats: int = option(
        5,
        "plain steps, and as many whose layers are timed; medians of each are told",
        ge=1,
        le=1000,
    )
    compare_engines: str = option(
        "", "engines on which the same training is measured side by side, such as local,spark"
    )
    machine_peaks: str | None = option(
        None, "take the machine's limits from this JSON file, or measure and write it there"
    )
    sample_every: float = option(
        0.2, "seconds between samples of processors' use; 0: none", ge=0, le=60
    )
    out: str | None = option(None, "directory for the profile (default runs/profile-<network>)")
    overwrite: bool = option(False, "replace an older profile or run in that directory")


@dataclass(frozen=True, kw_only=True)
class ProfiledTrainingConfig(Settings):
    """In what batches, and with which arithmetic."""

    batch_size: int = same(TrainingConfig, "batch_size")
    seed: int = same(TrainingConfig, "seed")
    precision: str = same(TrainingConfig, "precision")
    batch_norm: str = same(TrainingConfig, "batch_norm")
    shards: int | None = same(TrainingConfig, "shards")


@dataclass(frozen=True, kw_only=True)
class ProfileConfig(Settings):
    """Everything that `sixfold profile` takes."""

    profiling: ProfilingConfig = ProfilingConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: ProfiledTrainingConfig = ProfiledTrainingConfig()
    strategy: StrategyConfig = StrategyConfig()
    local_sgd: LocalSgdConfig = LocalSgdConfig()
    engine: EngineConfig = EngineConfig()

    def cross_problems(self) -> list[str]:
        """What is wrong with the settings that `sixfold train` does not have."""
        profiling, found = self.profiling, []
        if profiling.run is not None and (given := _given(self)):
            found.append(f"{', '.join(given)}: a run is only read; leave RUN away to measure")
        if profiling.compare is not None and profiling.run is None:
            found.append(
                f"--compare {profiling.compare}: with what? Give the other one as RUN: "
                f"`sixfold profile RUN --compare {profiling.compare}`"
            )
        if 0 < profiling.sample_every < 0.02:
            every = f"{profiling.sample_every:g}"
            found.append(f"--sample-every {every}: must be 0, or from 0.02 to 60")
        if "auto" in (self.strategy.strategy, self.strategy.grid):
            found.append(
                "--strategy auto, --grid auto: a profile measures one way to divide the work; "
                "`sixfold plan` says which is best"
            )
        unknown = [name for name in engines_of(self) if name not in ENGINES]
        if unknown and profiling.compare_engines:
            found.append(
                f"--compare-engines {profiling.compare_engines}: no engine {', '.join(unknown)}; "
                f"known: {', '.join(ENGINES)} (training computes on processors; there is no engine "
                "for a GPU)"
            )
        return found


def _given(config: ProfileConfig) -> list[str]:
    """Options that differ from their defaults, besides what is read."""
    return [
        flag_of(field.name)
        for section in vars(config).values()
        for field in dataclasses.fields(section)
        if field.name not in ("run", "compare") and getattr(section, field.name) != field.default
    ]


def engines_of(config: ProfileConfig) -> list[str]:
    """The engines to be measured, in order."""
    named = [word.strip() for word in config.profiling.compare_engines.split(",") if word.strip()]
    return list(dict.fromkeys(named)) or [config.engine.engine]


def as_training(config: ProfileConfig, *, engine: str, out: str, steps: int) -> TrainConfig:
    """The training of which a profile is made, on an engine, in a run directory."""
    return training_with(
        config,
        training=TrainingConfig(**vars(config.training), steps=steps, evaluate_every=0.0),
        engine=dataclasses.replace(config.engine, engine=engine),
        run=RunConfig(out=out, overwrite=True, checkpoint_every=steps),
    )
