"""The texts of settings of single parameters, read without torch."""

from __future__ import annotations

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
    if config.freeze and not all(frozen_patterns(config)):
        found.append(
            f"--freeze {config.freeze}: expected patterns such as 'features.*,stem', separated by "
            "commas"
        )
    return found


def frozen_patterns(config: OptimizerConfig) -> list[str]:
    """The patterns of `--freeze`."""
    return [word.strip() for word in config.freeze.split(",")] if config.freeze else []
