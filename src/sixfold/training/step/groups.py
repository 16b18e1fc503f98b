"""The texts of settings of single parameters, read without torch."""

import dataclasses
import math

from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig

SPARED = ("norms", "biases")
"""What `--no-decay` may name."""


def parse_group(flag: str, text: str) -> tuple[str, float]:
    """Pattern and value of `PATTERN=VALUE`.

    Raises:
        UserError: if it is not of this form.
    """
    pattern, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not pattern or not 0 <= number < float("inf"):
        raise UserError(
            f"{flag} {text}: expected PATTERN=VALUE with a number of at least 0, such as "
            "'head.*=0.1'"
        )
    return pattern.strip(), number


def group_problems(config: OptimizerConfig) -> list[str]:
    """What is wrong with the form of groups, whatever the network is; one line each."""
    found: list[str] = []
    for flag, groups in (
        ("--lr-group", config.lr_group),
        ("--weight-decay-group", config.weight_decay_group),
        ("--unfreeze", config.unfreeze),
    ):
        for group in groups:
            try:
                parse_group(flag, group)
            except UserError as error:
                found += error.problems
    for word in config.no_decay.split(",") if config.no_decay else ():
        if word.strip() not in SPARED:
            found.append(f"--no-decay {config.no_decay}: expected norms, biases, or norms,biases")
            break
    if config.unfreeze and not config.freeze:
        found.append(f"--unfreeze {config.unfreeze[0]}: nothing is frozen; give --freeze PATTERN")
    if config.freeze and not all(frozen_patterns(config)):
        found.append(
            f"--freeze {config.freeze}: expected patterns such as 'features.*,stem', separated by "
            "commas"
        )
    return found


def frozen_patterns(config: OptimizerConfig) -> list[str]:
    """The patterns of `--freeze`."""
    return [word.strip() for word in config.freeze.split(",")] if config.freeze else []


def unfreezing(config: OptimizerConfig) -> list[tuple[str, float]]:
    """The patterns of `--unfreeze`, each with the epoch from which it is trained."""
    return [parse_group("--unfreeze", text) for text in config.unfreeze]


def unfreezing_steps(config: OptimizerConfig, steps_per_epoch: int) -> list[int]:
    """The steps, from 0, from which more is trained than before, in order."""
    steps = {_step_of(epoch, steps_per_epoch) for _, epoch in unfreezing(config)}
    return sorted(steps - {0})


def at_step(config: OptimizerConfig, step: int, steps_per_epoch: int) -> OptimizerConfig:
    """The settings at a step: what is trained by then is so from the beginning."""
    texts = [
        f"{pattern}={0 if _step_of(epoch, steps_per_epoch) <= step else epoch}"
        for pattern, epoch in unfreezing(config)
    ]
    return dataclasses.replace(config, unfreeze=tuple(texts))


def _step_of(epoch: float, steps_per_epoch: int) -> int:
    return math.ceil(round(epoch * steps_per_epoch, 6))
