"""What each setting does to what is reached: means with intervals, and paired differences.

Trainings that differ in nothing but their seed are repetitions of one cell. The effect of a value
against another of the same setting is taken over all pairs of trainings that differ in that setting
alone, seed included: the mean of the pairs' differences, with Student's interval. What settings do
only together shows as scatter of those differences; the share of variance tells how much of all
variation between trainings goes with one setting by itself (main effect of a balanced design).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.core.statistics import Interval, interval

SEED = "seed"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a choice of all values but the seed has reached."""

    values: dict[str, Any]
    accuracy: Interval  # on the test part, over seeds
    loss: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of paired differences of accuracies, with its 95% interval."""

    mean: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Level:
    """One value of a setting."""

    value: Any
    trainings: int
    accuracy: float | None = None  # mean of these; None without any
    difference: Difference | None = None  # to the first value, over pairs


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a setting does."""

    name: str
    levels: list[Level]
    share_of_variance: float | None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that came to its end."""

    values: Mapping[str, Any]  # what is varied, by name
    accuracy: float  # on the test part
    loss: float = math.nan  # on the test part; NaN if there is none
    validation: float = math.nan  # accuracy on the validation part; NaN if there is none


def chosen(
    trained: Sequence[Trained], names: Sequence[str], diverged: Sequence[Mapping[str, Any]] = ()
) -> list[Trained]:
    """Only the trainings with the best values of some settings, each combination of the others'.

    Best is the highest mean accuracy on the validation part over seeds; of equals the first. The
    test part is not looked at. Values with which any seed diverged are chosen only if there are no
    others. The chosen values are taken out of what is varied.

    >>> a = Trained(values={"lr": 1, "b": 2}, accuracy=0.1, validation=0.8)
    >>> b = Trained(values={"lr": 3, "b": 2}, accuracy=0.9, validation=0.7)
    >>> [one.accuracy for one in chosen([a, b], ["lr"])]
    [0.1]
    """

    def divided(values: Mapping[str, Any]) -> tuple[Any, Any]:
        rest = _key({k: v for k, v in values.items() if k not in names and k != SEED})
        return rest, _key({k: v for k, v in values.items() if k in names})

    lost = {divided(values) for values in diverged}
    groups: dict[Any, dict[Any, list[Trained]]] = {}
    for one in trained:
        rest, own = divided(one.values)
        groups.setdefault(rest, {}).setdefault(own, []).append(one)
    found = []
    for rest, choices in groups.items():

        def merit(own: Any, rest: Any = rest, choices: Any = choices) -> tuple[bool, float]:
            return (rest, own) not in lost, float(np.mean([t.validation for t in choices[own]]))

        for one in choices[max(choices, key=merit)]:
            values = {name: value for name, value in one.values.items() if name not in names}
            found.append(dataclasses.replace(one, values=values))
    return found


def cells(trained: Sequence[Trained], images: int) -> list[Cell]:
    """Mean accuracy of each choice of values but the seed, with its 95% interval."""
    found: dict[tuple[tuple[str, Any], ...], list[Trained]] = {}
    for one in trained:
        key = tuple((name, value) for name, value in one.values.items() if name != SEED)
        found.setdefault(key, []).append(one)
    return [
        Cell(
            values=dict(key),
            accuracy=interval([one.accuracy for one in own], images),
            loss=float(np.mean([one.loss for one in own])),
        )
        for key, own in found.items()
    ]


def effects(
    trained: Sequence[Trained], varied: Mapping[str, Sequence[Any]], images: int
) -> list[Effect]:
    """Of every varied setting but the seed: mean at each value, and difference to the first.

    Some combinations may be missing; `images` is the size of the test part.
    """
    by_values = {_key(one.values): one.accuracy for one in trained}
    accuracies = np.array([one.accuracy for one in trained])
    total = float(((accuracies - accuracies.mean()) ** 2).sum()) if len(accuracies) else 0.0
    found = []
    for name, values in varied.items():
        if len(values) < 2 or name == SEED:
            continue
        levels = []
        between = 0.0
        for value in values:
            own = [one for one in trained if one.values[name] == value]
            if not own:
                levels.append(Level(value=value, trainings=0))
                continue
            mean = float(np.mean([one.accuracy for one in own]))
            between += len(own) * (mean - float(accuracies.mean())) ** 2
            pairs = [
                one.accuracy - by_values[other]
                for one in own
                if (other := _key({**one.values, name: values[0]})) in by_values
            ]
            gap = paired(pairs, images) if value != values[0] and pairs else None
            levels.append(Level(value=value, trainings=len(own), accuracy=mean, difference=gap))
        share = between / total if total > 0 else None
        found.append(Effect(name=name, levels=levels, share_of_variance=share))
    return found


def paired(pairs: Sequence[float], images: int) -> Difference:
    """Mean of paired differences with its 95% interval.

    A single pair has no spread: its interval is that of two accuracies on so many images at 50%,
    the widest there is.
    """
    from scipy.special import stdtrit

    array = np.asarray(pairs, np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        half = 1.96 * math.sqrt(2 * 0.25 / max(images, 1))
    else:
        error = float(array.std(ddof=1)) / math.sqrt(len(array))
        half = float(stdtrit(len(array) - 1, 0.975)) * error
    # Accuracies differ by 100 points at most, whatever two pairs leave open.
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Difference(mean=mean, low=low, high=high, pairs=len(array))


def _key(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in values.items()))
