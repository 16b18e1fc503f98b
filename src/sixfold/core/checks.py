"""Checks of settings that every command uses; one line a problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from sixfold.core.naming import flag_of, meant


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A line that says a name is unknown, with the nearest known ones.

    >>> unknown("model", "lenet6", ["lenet5", "slide"])
    "unknown model 'lenet6': did you mean lenet5? (known: lenet5, slide)"
    """
    known = sorted(known)
    near = meant(name, known)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {what} {name!r}: {hint}(known: {', '.join(known)})"


def choice_problems(config: Any) -> list[str]:
    """Values that are none of the few that a setting allows, over all sections of a tree."""
    found = []
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        for field in dataclasses.fields(values):
            value, choices = getattr(values, field.name), field.metadata["choices"]
            if choices and value not in choices:
                flag = flag_of(field.name)
                found.append(
                    f"{flag} {value}: " + unknown(flag.removeprefix("--"), str(value), choices)
                )
    return found


def seed_problems(seed: int) -> list[str]:
    """What is wrong with a seed: torch takes those of 64 bits."""
    if 0 <= seed < 1 << 63:
        return []
    return [f"--seed {seed}: must not be negative, and below 2^63"]
