"""What is searched: from `NAME=WHAT` to the settings of a trial."""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError
from sixfold.core.values import value_type
from sixfold.studies.sweep.plan import identity
from sixfold.studies.sweep.vary import Varied, applied, parse_all, parse_name, parse_one
from sixfold.studies.tune.config import TuneConfig, base_config
from sixfold.training.config import TrainConfig
from sixfold.training.selection import METRICS, seconds
from sixfold.training.strategies.registry import STRATEGIES

FLAG = "--search"
DIGITS = 6
"""Significant digits of a value from a range, so that a command with it can be read."""

MOST_COUNTED = 4096
"""Choices up to which all that are left are gone through when new ones become rare."""

_JUDGED = "trials would be judged on different images"
_REFUSED = {
    "seed": "seeds are repetitions; the best of them says nothing",
    "engine": "results do not depend on it",
    "master": "results do not depend on it",
    "spark_conf": "results do not depend on it",
    "max_restarts": "results do not depend on it",
    "max_time": "it stops trainings by the clock",
    "deterministic": "the winner must equal a plain training",
    **dict.fromkeys(
        ("data", "validation", "test_split", "target", "on_error", "reread", "pixel_range"),
        _JUDGED,
    ),
    **dict.fromkeys(("image_column", "label_column", "weight_column"), _JUDGED),
}


@dataclass(frozen=True, kw_only=True)
class Span:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False  # whether their logarithms are evenly spread
    step: float | None = None
    whole: bool = False

    def value(self, number: float) -> int | float:
        """A number of it as a setting holds it, with few digits."""
        if self.whole:
            return int(number)
        near = float(f"{number:.{10 if self.step else DIGITS}g}")
        return min(max(near, self.low), self.high)

    @property
    def count(self) -> float:
        """How many numbers it has."""
        if self.step is None and not self.whole:
            return math.inf
        return math.floor((self.high - self.low) / (self.step or 1) + 1e-9) + 1


@dataclass(frozen=True, kw_only=True)
class Dimension(Varied):
    """A setting that is searched: one of `values`, or a number of `span`."""

    span: Span | None = None

    @property
    def count(self) -> float:
        """How many values it may have."""
        return len(self.values) if self.span is None else self.span.count

    @property
    def words(self) -> str:
        """What is searched, in words."""
        if self.span is None:
            return ", ".join(map(str, self.values))
        step = f" in steps of {self.span.step:g}" if self.span.step else ""
        log = ", logarithmic" if self.span.log else ""
        return f"{self.span.low:g} to {self.span.high:g}{step}{log}"


Choice = Mapping[str, Any]
"""A value for each dimension, by name."""


def parse_search(texts: Sequence[str]) -> list[Dimension]:
    """Read `--search`; a `UserError` with everything that cannot be read.

    >>> lr, batch = parse_search(["lr=log:1e-4:1e-1", "batch-size=16,32"])
    >>> lr.words, batch.values
    ('0.0001 to 0.1, logarithmic', (16, 32))
    """
    return parse_all(texts, FLAG, _dimension)


def _dimension(text: str, flag: str) -> Dimension:
    name, rest, section, hint = parse_name(text, flag)
    if name in _REFUSED:
        raise UserError(f"{flag} {name}: {_REFUSED[name]}")
    kind = None if section is None else value_type(hint)
    words = rest.strip().split(":")
    if words[0] in ("log", "uniform") and kind in (None, int, float):
        span = _span(words, text, kind)
        if section == "data":
            raise UserError(
                f"{flag} {text!r}: data are prepared before the search begins: give values, such "
                f"as {name.replace('_', '-')}=16,32"
            )
        return Dimension(name=name, section=section or "model", values=(), span=span)
    found = parse_one(text, flag)
    if len(found.values) < 2:
        given = name.replace("_", "-")
        raise UserError(
            f"{flag} {text!r}: one value is no choice: give several, or a range such as "
            f"{given}=uniform:LOW:HIGH or {given}=log:LOW:HIGH"
        )
    return Dimension(name=name, section=found.section, values=found.values)


def _span(words: Sequence[str], text: str, kind: type[Any] | None) -> Span:
    """Read `log:LOW:HIGH` or `uniform:LOW:HIGH[:STEP]`."""
    log = words[0] == "log"
    try:
        numbers = [float(word) for word in words[1:]]
        low, high, *more = numbers
        step = more[0] if more else None
        right = len(more) <= (0 if log else 1) and all(map(math.isfinite, numbers))
    except (ValueError, IndexError):
        right = False
    if not right:
        form = "log:LOW:HIGH" if log else "uniform:LOW:HIGH or uniform:LOW:HIGH:STEP"
        raise UserError(f"{FLAG} {text!r}: expected {form}, in numbers")
    # An argument of the network is whole where all that is written is.
    whole = kind is int or (kind is None and all(number == int(number) for number in numbers))
    if kind is None and any("." in word or "e" in word.lower() for word in words[1:]):
        whole = False
    if whole and any(number != int(number) for number in numbers):
        raise UserError(f"{FLAG} {text!r}: expected whole numbers")
    if not low < high or (log and low <= 0) or (step is not None and not 0 < step <= high - low):
        what = " and LOW above 0" if log else " and STEP above 0, at most HIGH - LOW"
        raise UserError(f"{FLAG} {text!r}: LOW must be below HIGH{what}")
    return Span(low=low, high=high, log=log, step=step, whole=whole)


def trial_config(base: TrainConfig, dimensions: Sequence[Dimension], choice: Choice) -> TrainConfig:
    """The settings of the training with a choice."""
    return applied(base, [(one, choice[one.name]) for one in dimensions])


def fingerprint(config: TrainConfig) -> str:
    """What tells trials apart."""
    return json.dumps(identity(config), sort_keys=True)


def all_choices(dimensions: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Every choice of a search that has a number of them."""
    values = []
    for one in dimensions:
        span, own = one.span, one.values
        if span is not None:
            step = span.step or 1
            own = tuple(span.value(span.low + k * step) for k in range(int(span.count)))
        values.append(own)
    for found in itertools.product(*values):
        yield {one.name: value for one, value in zip(dimensions, found, strict=True)}


def corners(base: TrainConfig, dimensions: Sequence[Dimension]) -> list[TrainConfig]:
    """Settings with each value and each end of a range once, the others at their first."""
    ends = {
        one.name: one.values
        if one.span is None
        else (one.span.value(one.span.low), one.span.value(one.span.high))
        for one in dimensions
    }
    first = {name: values[0] for name, values in ends.items()}
    choices = [first, *({**first, name: v} for name, own in ends.items() for v in own[1:])]
    return [trial_config(base, dimensions, choice) for choice in choices]


def listed(base: TrainConfig, dimensions: Sequence[Dimension], *sections: str) -> list[TrainConfig]:
    """Settings with every combination of what is searched in some sections."""
    own = [one for one in dimensions if one.section in sections and one.span is None]
    found = (trial_config(base, own, choice) for choice in all_choices(own))
    return list({fingerprint(config): config for config in found}.values())


def search_problems(config: TuneConfig) -> list[str]:
    """What is wrong with the search, as far as options tell."""
    search, found = config.tune, []
    dimensions: list[Dimension] = []
    if not search.search:
        found.append("say what to search: --search lr=log:1e-4:1e-1, say; may be repeated")
    try:
        dimensions = parse_search(search.search)
    except UserError as error:
        found += error.problems
    if search.metric and search.metric not in METRICS:
        found.append(f"--metric {search.metric}: {unknown('metric', search.metric, METRICS)}")
    if config.selection.max_time:
        try:
            seconds(config.selection.max_time)
        except UserError as error:
            found += error.problems
    if config.compute.tuning is not None:
        found.append(
            f"--tuning {config.compute.tuning}: measured settings of execution are not for "
            "searches; give --micro-batch"
        )
    base = base_config(config)
    configs = [base]
    if not found:
        configs = corners(base, dimensions)
        found += _strategy_problems(configs, dimensions)
    return list(dict.fromkeys([*found, *(p for one in configs for p in one.problems())]))


def _strategy_problems(
    configs: Sequence[TrainConfig], dimensions: Sequence[Dimension]
) -> list[str]:
    """What would make trials differ from a plain training, or from each other by chance."""
    found = []
    names = dict.fromkeys(config.strategy.strategy for config in configs)
    for name in names:
        spec = STRATEGIES.get(name)
        if name == "auto" or (spec is not None and not spec.repeatable):
            found.append(
                f"--strategy {name}: not for searches, whose trainings must give the same bits "
                "when they are repeated; give sync, local_sgd or model_parallel"
            )
    most = max(config.engine.workers or 1 for config in configs)
    others = [name for name in names if name != "sync"]
    if others and not found and most < 2:
        found.append(
            f"--strategy {', '.join(others)}: each trial has one worker (--workers are those that "
            "take trials): give --search workers=2,4, whose ranks take turns"
        )
    if "workers" in {one.name for one in dimensions} and not others:
        found.append("--search workers: with --strategy sync results do not depend on them")
    return found


def without_workers(config: TrainConfig) -> TrainConfig:
    """The same training by one worker, where its result does not depend on their number."""
    if config.strategy.strategy != "sync":
        return config
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, workers=1))
