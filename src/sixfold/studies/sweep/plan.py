"""From the settings of a sweep to the members of a job, and the checks before any of them runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sixfold.core.config import RunConfig
from sixfold.core.run_directory import as_json
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.tasks import Task
from sixfold.studies.sweep.config import SweepQualityConfig, SweepTimeConfig, TrainingsConfig
from sixfold.studies.sweep.vary import Combination, Varied, combinations, parse_vary
from sixfold.training.config import TrainConfig, training_with

PILOT_STEPS = 8
"""Steps of a trial that tells how long a step takes: three to warm up, and a few to be timed."""

MOST_STEPS = 20_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run."""

    combinations: tuple[Combination, ...]
    members: tuple[Task, ...]  # of the job
    of: Mapping[str, tuple[int, int]]  # member -> number of its combination, and of the repeat
    # Member -> settings of its training, but for the number of steps of one that follows a pilot.
    configs: Mapping[str, TrainConfig]

    @property
    def varied(self) -> dict[str, list[Any]]:
        """The values of every setting that is varied, in order."""
        names = self.combinations[0].values
        return {
            name: list(dict.fromkeys(one.values[name] for one in self.combinations))
            for name in names
        }


def base_config(config: TrainingsConfig) -> TrainConfig:
    """The settings that all trainings of a sweep share.

    Where trainings are compared by what they reach, the engine is that of the job: each training is
    one worker's, unless workers are varied.
    """
    alone = isinstance(config, SweepQualityConfig)
    engine = EngineConfig(engine="inline", workers=1) if alone else config.engine
    return training_with(config, engine=engine, run=RunConfig())


def chosen_names(config: SweepQualityConfig) -> list[str]:
    """Names of the settings whose best value is chosen."""
    words = [word.strip().replace("-", "_") for word in config.sweep.choose.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def choose_problems(config: SweepQualityConfig) -> list[str]:
    """What is wrong with what is varied and chosen, where `--vary` can be read."""
    varied = {one.name: one for one in parse_vary(config.sweep.vary)}
    names = chosen_names(config)
    found = [
        f"--choose {name}: is not varied; give --vary {name}=..., or leave it out"
        for name in names
        if name not in varied
    ]
    if "seed" in names:
        found.append("--choose seed: seeds are repetitions; the best of them says nothing")
    if any(text.partition("=")[0].strip() in ("engine", "master") for text in config.sweep.vary):
        found.append(
            "--vary engine, master: results do not depend on them; `sixfold sweep time` times them"
        )
    found += _worker_problems(config, varied)
    if names and not config.data.validation and "validation" not in varied:
        found.append(
            "--choose: values are chosen on the validation part, never on the test part; give "
            "--validation 0.1, say"
        )
    return found


def _worker_problems(config: SweepQualityConfig, varied: Mapping[str, Varied]) -> list[str]:
    """What would make trainings equal, without a word, by how many workers each has."""
    strategies = varied["strategy"].values if "strategy" in varied else (config.strategy.strategy,)
    others = [name for name in strategies if name != "sync"]
    most = max(varied["workers"].values) if "workers" in varied else 1
    if others and most < 2:
        option = "--vary strategy" if "strategy" in varied else "--strategy"
        return [
            f"{option}: each training of this sweep has one worker (--workers are those that take "
            f"trainings), and with one worker {', '.join(others)} equals sync bit for bit: give "
            "--vary workers=2, whose ranks take turns"
        ]
    if "workers" in varied and not others:
        return [
            "--vary workers: with --strategy sync results do not depend on them; `sixfold sweep "
            "time` times them"
        ]
    return []


def all_combinations(config: TrainingsConfig) -> list[Combination]:
    """Every combination with its settings; a `UserError` if `--vary` cannot be read."""
    return combinations(base_config(config), parse_vary(config.sweep.vary))


def time_plan(config: SweepTimeConfig, found: Sequence[Combination]) -> Plan:
    """The members of a sweep over time: pilots, then all combinations in turn, again and again.

    Taking turns spreads what changes on the machine over all combinations alike. Combinations of
    one engine stand together in each turn, since an engine is started anew when another was used.
    """
    needs_pilot = config.training.steps is None and config.training.epochs is None
    order = sorted(range(len(found)), key=lambda k: _engine_of(found[k].config))
    members: list[Task] = []
    configs: dict[str, TrainConfig] = {}
    of: dict[str, tuple[int, int]] = {}
    pilots: dict[int, str] = {}

    def add(number: int, repeat: int, name: str, settings: dict[str, Any], needs: str = "") -> None:
        one = found[number]
        members.append(
            Task(
                name=name,
                settings={"train": identity(one.config), **settings},
                dependencies=(needs,) if needs else (),
                # Dearer members are handed out first: so earlier repeats come first.
                cost=1 + 1e-3 * (config.sweep.repeats - repeat),
            )
        )
        configs[name], of[name] = one.config, (number, repeat)

    for number in order:
        training = found[number].config.training
        if needs_pilot and training.steps is None and training.epochs is None:
            pilots[number] = f"{found[number].name} pilot"
            add(number, -1, pilots[number], {"task": "pilot"})
    for repeat in range(config.sweep.repeats):
        for number in order:
            settings: dict[str, Any] = {"task": "time", "repeat": repeat}
            if config.sweep.parallel > 1:  # what runs beside a training is part of its time
                settings["at_a_time"] = config.sweep.parallel
            if number in pilots:
                settings["seconds"] = config.sweep.seconds
            name = f"{found[number].name} #{repeat + 1}"
            add(number, repeat, name, settings, pilots.get(number, ""))
    return Plan(combinations=tuple(found), members=tuple(members), of=of, configs=configs)


def quality_plan(found: Sequence[Combination]) -> Plan:
    """The members of a sweep over quality: each combination once."""
    members = [
        Task(
            name=one.name,
            settings={"task": "quality", "train": identity(one.config)},
            cost=_cost(one.config),
        )
        for one in found
    ]
    return Plan(
        combinations=tuple(found),
        members=tuple(members),
        of={one.name: (number, 0) for number, one in enumerate(found)},
        configs={one.name: one.config for one in found},
    )


def identity(config: TrainConfig) -> dict[str, Any]:
    """What decides the figures of a training: all settings but where it is kept."""
    settings = as_json(config)
    del settings["run"]
    return settings


def _engine_of(config: TrainConfig) -> tuple[str, ...]:
    engine = dataclasses.replace(config.engine, workers=None)
    return tuple(map(str, as_json(engine).values()))


def _cost(config: TrainConfig) -> float:
    """About how long a training takes, in any unit: small batches take longer for each image."""
    training, images = config.training, config.data.max_images or 10_000
    if training.steps is not None:
        return training.steps * (training.batch_size + 10.0)
    epochs = training.epochs if training.epochs is not None else 10.0
    return epochs * images * (1 + 10.0 / training.batch_size)
