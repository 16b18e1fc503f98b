"""The figures of a search that `result.json` holds."""

import dataclasses
import json
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from sixfold.core.naming import flag_of
from sixfold.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What a trial had reached at a rung."""

    rung: int
    steps: int
    value: float  # of the metric


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial."""

    number: int  # from 0, in the order in which they were chosen
    values: dict[str, Any]  # what is searched, by name
    state: str  # "complete", "paused" (not trained further) or "failed"
    reached: list[Reached]
    steps: int  # of the whole training
    reason: str = ""  # why it failed
    folder: str = ""  # its run directory, within that of the search


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best of the trials that were trained to the end."""

    number: int
    values: dict[str, Any]
    value: float
    settings: dict[str, Any]  # options of `sixfold train` that differ from the defaults
    command: str  # a plain training that gives the same weights, bit for bit
    folder: str
    weights_sha256: str
    test_accuracy: float | None = None
    test_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class TuneFigures:
    """What a search has found."""

    what: str = "tune"
    searched: dict[str, str]  # name -> what it may be, in words
    logarithmic: list[str]  # names of those that are searched so
    metric: str
    smaller_is_better: bool
    sampler: str
    pruner: str
    parts: list[float]  # how much of a training each rung is
    trials: list[TrialRow]
    best: Best | None  # None if the search was stopped before a trial was complete
    importances: dict[str, float]
    failed: int
    steps: int  # trained in all
    steps_of_all: int  # as many as all trials to the end would take
    done_before: int  # trainings between rungs that were there when the search began
    workers: int
    engine: str
    stopped_by: str = ""


@dataclass(frozen=True, kw_only=True)
class TuneRecord(TuneFigures):
    """The same as `result.json` holds it."""

    wall_s: float
    report: str
    versions: dict[str, str] = field(default_factory=dict)


def settings_of(config: TrainConfig, searched: Collection[str]) -> dict[str, Any]:
    """Options of a training that were searched or differ from the defaults.

    Those of where it runs and is kept are left out, and those that its strategy does not take.
    """
    found: dict[str, Any] = {}
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        usual = type(values)()
        for one in dataclasses.fields(values):
            value = getattr(values, one.name)
            if section.name in ("run", "engine") or value is None:
                continue
            is_taken = section.name in ("optimizer", "training") and one.name in searched
            if is_taken or value != getattr(usual, one.name):
                found[one.name] = value
    if config.strategy.strategy != "sync":
        found["workers"] = config.engine.workers
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def train_command(settings: dict[str, Any]) -> str:
    """`sixfold train` with options.

    >>> train_command({"data": "digits", "lr": 0.1, "lr_group": ["head.*=10"], "nesterov": True})
    "sixfold train --data digits --lr 0.1 --lr-group 'head.*=10' --nesterov true"
    """
    return shlex.join(["sixfold", "train", *_words(settings)])


def _words(settings: dict[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            yield flag_of(name)
            yield str(one).lower() if isinstance(one, bool) else str(one)
