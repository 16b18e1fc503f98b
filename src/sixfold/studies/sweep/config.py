"""Settings of `sixfold sweep`, in the form from which the command line makes its options."""

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.config import TRUST_MODEL, resume_problems
from sixfold.core.errors import UserError
from sixfold.core.settings import Settings, hints_of, option
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.training.config import (
    LocalSgdConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainConfig,
    TrainingConfig,
)
from sixfold.training.losses.config import LossConfig

_VARY = (
    "a setting and its values, NAME=V1,V2,...: any setting of `sixfold train`, or model.NAME for "
    "an argument of the network; '|' between values that hold commas; may be repeated: all "
    "combinations are run"
)


@dataclass(frozen=True, kw_only=True)
class _Varied(Settings):
    """Settings that vary others, of which a run's file may have named code too."""

    vary: tuple[str, ...] = option((), _VARY, form="NAME=V1,V2")

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """What a network, strategy or master that only the run names would be refused for."""
        return named_problems(self.vary if "vary" in taken else (), file)


def named_problems(texts: Collection[str], file: Path) -> list[str]:
    """Why values in `NAME=V1,V2` that only a run names are not used: they may be a stranger's."""
    sections = {key: part for part in hints_of(TrainConfig).values() for key in hints_of(part)}
    found = []
    for text in texts:
        name, _, values = text.partition("=")
        name = name.strip().replace("-", "_")
        for value in values.split("|" if "|" in values else ",") if name in sections else ():
            with contextlib.suppress(UserError):  # what cannot be read is refused elsewhere
                section = sections[name](**{name: value.strip()})
                found += section.origin_problems([name], file)
    return found


@dataclass(frozen=True, kw_only=True)
class TimeSweepConfig(_Varied):
    """Which trainings are timed."""

    repeats: int = option(3, "how often each combination is timed, all in turns", ge=1)
    seconds: float = option(
        4.0, "about how long each training lasts, where neither --steps nor --epochs says it", gt=0
    )
    bootstrap: int = option(1000, "draws of the bootstrap, for intervals of the fits", ge=0)
    parallel: int = option(
        1, "trainings that run side by side; 1: each has the machine for itself", ge=1
    )


@dataclass(frozen=True, kw_only=True)
class QualitySweepConfig(_Varied):
    """Which trainings are compared by what they reach."""

    vary: tuple[str, ...] = option(
        (), _VARY + "; seed=0,1,2 makes repetitions for intervals", form="NAME=V1,V2"
    )
    choose: str = option(
        "",
        "varied settings, with commas between, whose best value is chosen for each combination of "
        "the others, on the validation part: lr, say, where batch sizes are compared",
    )


@dataclass(frozen=True, kw_only=True)
class SweepRunConfig(Settings):
    """Where the sweep is kept."""

    out: str | None = option(None, "directory (default runs/sweep-<kind>-<hash of the settings>)")
    resume: bool = option(
        False, "go on with what is in the directory; --vary may hold more than before"
    )
    overwrite: bool = option(False, "replace an older sweep in the directory")
    trust_model: bool = option(False, TRUST_MODEL)

    def cross_problems(self) -> list[str]:
        """What does not go together."""
        return resume_problems(self)


@dataclass(frozen=True, kw_only=True)
class TrainingsConfig(Settings):
    """What sweeps over trainings take."""

    sweep: _Varied = _Varied()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    strategy: StrategyConfig = StrategyConfig()
    local_sgd: LocalSgdConfig = LocalSgdConfig()
    engine: EngineConfig = EngineConfig()
    run: SweepRunConfig = SweepRunConfig()

    def cross_problems(self) -> list[str]:
        """What is wrong with what is varied."""
        from sixfold.core.errors import problems_of
        from sixfold.studies.sweep.vary import parse_vary

        return problems_of(lambda: parse_vary(self.sweep.vary))


@dataclass(frozen=True, kw_only=True)
class SweepTimeConfig(TrainingsConfig):
    """Everything that `sixfold sweep time` takes."""

    sweep: TimeSweepConfig = TimeSweepConfig()


@dataclass(frozen=True, kw_only=True)
class SweepQualityConfig(TrainingsConfig):
    """Everything that `sixfold sweep quality` takes."""

    sweep: QualitySweepConfig = QualitySweepConfig()

    def cross_problems(self) -> list[str]:
        """What is wrong with what is varied and chosen."""
        from sixfold.studies.sweep.plan import choose_problems

        return super().cross_problems() or choose_problems(self)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(Settings):
    """Which Spark is measured."""

    master: str = option(
        "local[2]", "Spark master: local[N], local-cluster[N,CORES,MB], spark://HOST:PORT, ..."
    )
    spark_conf: tuple[str, ...] = option((), "a Spark setting; may be repeated", form="KEY=VALUE")
    workers: str = option(
        "",
        "numbers of workers, each in a session of its own: threads of local, executors of "
        "local-cluster, cores of spark:// (default: as many as the master says)",
    )

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """Which settings of a run could have Spark run another's code, or send ours elsewhere."""
        asked = EngineConfig(master=self.master, spark_conf=self.spark_conf)
        return asked.origin_problems(taken, file)


@dataclass(frozen=True, kw_only=True)
class DelaySweepConfig(Settings):
    """Which jobs are run, each with every number of tasks."""

    tasks: str = option("1,2,4,16", "numbers of tasks of a job")
    result_bytes: str = option("64K,1M,4M", "bytes that each task returns (1K: 1024)")
    broadcast_bytes: str = option("1M,16M", "bytes that the driver sends to all tasks")
    shuffle_bytes: str = option("1M,16M", "bytes that tasks send each other, over all tasks")
    repeats: int = option(5, "how often each job is run, all in turns", ge=1)
    bootstrap: int = option(1000, "draws of the bootstrap, for intervals of the fits", ge=0)


@dataclass(frozen=True, kw_only=True)
class SweepDelayConfig(Settings):
    """Everything that `sixfold sweep delay` takes."""

    delay: DelaySweepConfig = DelaySweepConfig()
    cluster: ClusterConfig = ClusterConfig()
    run: SweepRunConfig = SweepRunConfig()

    def cross_problems(self) -> list[str]:
        """What is wrong with the lists of sizes and sessions."""
        from sixfold.studies.sweep.delay_plan import delay_problems

        return delay_problems(self)


@dataclass(frozen=True, kw_only=True)
class RooflineConfig(Settings):
    """What the roofline is made from, and what is placed on it."""

    delay: str = option("", "directory of `sixfold sweep delay`: what Spark adds to a job")
    placed: str = option(
        "",
        "directories of `sixfold sweep time`, `sixfold train` and `sixfold lab`, with commas "
        "between, whose figures are placed on the roofline",
    )
    machine_peaks: str = option(
        "", "file of `sixfold profile --machine-peaks` (default: peaks are measured now, 5 s)"
    )
    precision: str = option(
        "float32", "arithmetic of the peak", choices=("float32", "bfloat16", "float64")
    )
    out: str | None = option(None, "directory (default: DELAY/roofline)")
    trust_model: bool = option(
        False, "run the code that the weights name even if it is not your project's"
    )


@dataclass(frozen=True, kw_only=True)
class SweepRooflineConfig(Settings):
    """Everything that `sixfold sweep roofline` takes."""

    roofline: RooflineConfig = RooflineConfig()

    def cross_problems(self) -> list[str]:
        """What is missing."""
        if self.roofline.delay:
            return []
        return ["give what Spark adds to a job: --delay DIR of `sixfold sweep delay`"]
