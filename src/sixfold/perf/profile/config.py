"""Settings of a profile, in the form from which the command line makes its options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from sixfold.core.config import LARGEST_SEED, RunConfig
from sixfold.core.settings import Settings, option
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.logical_shards import LARGEST_COUNT
from sixfold.models.config import ModelConfig
from sixfold.training.config import (
    InitializationConfig,
    LocalSgdConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainConfig,
    TrainingConfig,
)

ENGINES = ("inline", "local", "spark")


@dataclass(frozen=True, kw_only=True)
class ProfilingConfig(Settings):
    """What is measured, and where it goes."""

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

    batch_size: int = option(64, "images per step, over all workers", ge=1)
    seed: int = option(0, "seed of everything random", ge=0, lt=LARGEST_SEED)
    precision: str = option(
        "float32",
        "arithmetic; bf16: layers compute with bfloat16, weights and sums stay float32",
        choices=("float32", "float64", "bf16"),
    )
    batch_norm: str = option(
        "shard",
        "statistics of batch-norm: each logical shard's own, or the whole batch's",
        choices=("shard", "sync"),
    )
    shards: int | None = option(
        None,
        "logical shards a step (a power of two; default: from the batch size)",
        ge=1,
        le=LARGEST_COUNT,
    )


@dataclass(frozen=True, kw_only=True)
class ProfileConfig(Settings):
    """Everything that `sixfold profile` takes."""

    profiling: ProfilingConfig = field(default_factory=ProfilingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: ProfiledTrainingConfig = field(default_factory=ProfiledTrainingConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    local_sgd: LocalSgdConfig = field(default_factory=LocalSgdConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def cross_problems(self) -> list[str]:
        """What is wrong with the settings that `sixfold train` does not have."""
        return _cross_problems(self)


def engines_of(config: ProfileConfig) -> list[str]:
    """The engines to be measured, in order."""
    named = [word.strip() for word in config.profiling.compare_engines.split(",") if word.strip()]
    return list(dict.fromkeys(named)) or [config.engine.engine]


def _cross_problems(config: ProfileConfig) -> list[str]:
    profiling, found = config.profiling, []
    if 0 < profiling.sample_every < 0.02:
        found.append(f"--sample-every {profiling.sample_every:g}: must be 0, or from 0.02 to 60")
    if "auto" in (config.strategy.strategy, config.strategy.grid):
        found.append(
            "--strategy auto, --grid auto: a profile measures one way to divide the work; "
            "`sixfold plan` says which is best"
        )
    unknown = [name for name in engines_of(config) if name not in ENGINES]
    if unknown and profiling.compare_engines:
        found.append(
            f"--compare-engines {profiling.compare_engines}: no engine {', '.join(unknown)}; "
            "known: "
            f"{', '.join(ENGINES)} (training computes on processors; there is no engine for a GPU)"
        )
    return found


def as_training(config: ProfileConfig, *, engine: str, out: str, steps: int) -> TrainConfig:
    """The training of which a profile is made.

    Args:
        config: of the profile.
        engine: on which it runs.
        out: its run directory.
        steps: its length.
    """
    training = TrainingConfig(
        **dataclasses.asdict(config.training), steps=steps, evaluate_every=0.0
    )
    return TrainConfig(
        data=config.data,
        model=config.model,
        optimizer=config.optimizer,
        training=training,
        initialization=InitializationConfig(),
        strategy=config.strategy,
        local_sgd=config.local_sgd,
        engine=dataclasses.replace(config.engine, engine=engine),
        run=RunConfig(out=out, overwrite=True, checkpoint_every=steps),
    )
