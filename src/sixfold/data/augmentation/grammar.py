"""From the text of `--augment` to what is done."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from sixfold.core.checks import unknown
from sixfold.core.errors import raise_problems
from sixfold.data.augmentation.pipeline import Augment
from sixfold.data.augmentation.registry import AUGMENTATIONS
from sixfold.data.augmentation.spec import Chosen, Setting

NONE = "none"


def parse_augment(text: str) -> Augment:
    """Read `--augment`: ``none``, or names of augmentations, each with its numbers after colons.

    Raises:
        UserError: with everything that is wrong.

    >>> parse_augment("crop:2,flip")
    Augment(pad=2, flip=True, alternate=False, changes=(), mixes=())
    >>> parse_augment("flip,randaugment:2:9").changes
    (Chosen(name='randaugment', settings=(2.0, 9.0)),)
    """
    words = [word.strip() for word in text.split(",")]
    if words == [NONE]:
        return Augment()
    problems: list[str] = []
    chosen: dict[str, Chosen] = {}
    for word in words:
        name, *numbers = word.split(":")
        if word == NONE:
            problems.append(f"--augment {text}: none stands alone")
        elif name not in AUGMENTATIONS:
            known = [*AUGMENTATIONS, NONE] if len(words) == 1 else AUGMENTATIONS
            problems.append(f"--augment {word}: {unknown('augmentation', name, known)}")
        elif name in chosen:
            problems.append(f"--augment {text}: {name} stands there twice")
        else:
            settings = AUGMENTATIONS[name].settings
            problems += _wrong(word, settings, numbers)
            chosen[name] = Chosen(name, _numbers(settings, numbers))
    if {"flip", "flip-alternate"} <= chosen.keys():
        problems.append(f"--augment {text}: flip and flip-alternate exclude each other")
    raise_problems(problems)
    ordered = [chosen[name] for name in AUGMENTATIONS if name in chosen]
    return Augment(
        pad=int(chosen["crop"].settings[0]) if "crop" in chosen else 0,
        flip="flip" in chosen,
        alternate="flip-alternate" in chosen,
        changes=tuple(each for each in ordered if AUGMENTATIONS[each.name].change),
        mixes=tuple(each for each in ordered if AUGMENTATIONS[each.name].mix),
    )


def range_problems(augment: Augment, dtype: np.dtype[Any]) -> list[str]:
    """Augmentations that need 8-bit pixels where a data set has others, one line each."""
    if dtype == np.uint8:
        return []
    names = [each.name for each in augment.changes if not AUGMENTATIONS[each.name].any_range]
    known = [name for name, row in AUGMENTATIONS.items() if row.any_range]
    return [
        f"--augment {name}: changes colours of 8-bit pixels, and these images hold floating-point "
        f"numbers: expected {', '.join(known)}"
        for name in names
    ]


def form(name: str) -> str:
    """How an augmentation is written.

    >>> form("randaugment"), form("flip")
    ('randaugment[:N[:M]]', 'flip')
    """
    names = [setting.name for setting in AUGMENTATIONS[name].settings]
    return name + "".join(f"[:{each}" for each in names) + "]" * len(names)


def _wrong(item: str, settings: tuple[Setting, ...], numbers: list[str]) -> Iterable[str]:
    if len(numbers) > len(settings):
        yield f"--augment {item}: expected {form(item.split(':')[0])}"
        return
    for setting, word in zip(settings, numbers, strict=False):
        value = _number(word)
        is_whole = not setting.whole or value == math.floor(value)
        if not (setting.low <= value <= setting.high and is_whole):
            kind = "a whole number" if setting.whole else "a number"
            yield (
                f"--augment {item}: {setting.name} is {word!r}: expected {kind} from "
                f"{setting.low:g} to {setting.high:g}"
            )


def _numbers(settings: tuple[Setting, ...], numbers: list[str]) -> tuple[float, ...]:
    given = [_number(word) for word in numbers]
    return tuple(given) + tuple(setting.default for setting in settings[len(given) :])


def _number(word: str) -> float:
    """The number of a word; -inf if it is none, which is in no range."""
    try:
        value = float(word)
    except ValueError:
        return -math.inf
    return value if math.isfinite(value) else -math.inf
