"""From the settings to the distortions that a network is evaluated under."""

from __future__ import annotations

import math

from sixfold.core.errors import UserError
from sixfold.prediction.robustness.config import DistortionConfig
from sixfold.prediction.robustness.distortions import KINDS, Distortion


def strengths(kind: str, text: str) -> list[float]:
    """The strengths of one kind, in rising order, each once.

    >>> strengths("noise", "0.1, 0.05,0.1")
    [0.05, 0.1]
    """
    found: set[float] = set()
    least = KINDS[kind].least
    for word in filter(None, (word.strip() for word in text.split(","))):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not least < value < math.inf:
            raise UserError(
                f"--{kind} {word!r}: expected numbers above {least:g} ({KINDS[kind].unit}), with "
                f"commas between, or '' to leave {kind} out"
            )
        found.add(value)
    return sorted(found)


def planned(config: DistortionConfig) -> list[Distortion]:
    """Every kind at every strength, kinds in the order of `KINDS`."""
    found: list[Distortion] = []
    problems: list[str] = []
    for kind in KINDS:
        try:
            found += [
                Distortion(kind=kind, strength=strength, seed=config.seed)
                for strength in strengths(kind, getattr(config, kind))
            ]
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return found


def strength_problems(config: DistortionConfig) -> list[str]:
    """What is wrong with the strengths, one line each."""
    try:
        planned(config)
    except UserError as error:
        return list(error.problems)
    return []
