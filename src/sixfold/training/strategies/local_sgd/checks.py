"""Checks of the settings of local SGD that need neither data nor network."""

import dataclasses
from typing import Any

from sixfold.training.config import LocalSgdConfig, TrainConfig

_ONLY_FOR = {
    "outer_lr": "nesterov",
    "outer_momentum": "nesterov",
    "population": "genetic",
    "generations": "genetic",
    "elite": "genetic",
    "mutation_rate": "genetic",
    "mutation_scale": "genetic",
}
"""Setting to the one rule that it is for."""


def local_sgd_problems(config: TrainConfig) -> list[str]:
    """Everything that is wrong with these settings, one line each."""
    local = config.local_sgd
    changed = [
        field.name
        for field in dataclasses.fields(local)
        if getattr(local, field.name) != field.default
    ]
    found = [
        f"{_flag(local, name)}: only for --aggregation {_ONLY_FOR[name]}, not {local.aggregation}"
        for name in changed
        if _ONLY_FOR.get(name, local.aggregation) != local.aggregation
    ]
    return [*found, *_round_problems(config)]


def _flag(local: LocalSgdConfig, name: str) -> str:
    value: Any = getattr(local, name)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"--{name.replace('_', '-')} {text}"


def _round_problems(config: TrainConfig) -> list[str]:
    local, found = config.local_sgd, []
    if local.aggregation in ("best", "genetic") and config.data.validation == 0:
        found.append(
            f"--aggregation {local.aggregation}: selects on the validation part, and there is "
            "none; set one aside with --validation 0.1"
        )
    workers = config.engine.workers
    if workers is not None and local.groups > max(workers, 1):
        found.append(f"--groups {local.groups}: must lie between 1 and the number of --workers")
    if local.swap_every is not None and local.groups == 1:
        found.append(
            f"--swap-every {local.swap_every}: there is one group only; give --groups 2 or more"
        )
    batch = config.training.batch_size
    if workers is not None and workers > batch >= 1:
        found.append(
            f"--batch-size {batch}: each of {workers} workers needs an image of every batch; give "
            f"at least {workers}, or fewer --workers"
        )
    if local.elite >= local.population:
        found.append(f"--elite {local.elite}: must be below --population {local.population}")
    return found
