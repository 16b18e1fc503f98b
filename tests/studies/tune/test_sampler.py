"""Choices follow from seed, number and history alone, and none is made twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sixfold.studies.tune.sampler import Sampler, importances
from sixfold.studies.tune.schedule import Trial
from sixfold.studies.tune.space import parse_search

DIMENSIONS = parse_search(["lr=log:1e-4:1", "momentum=uniform:0:0.9:0.1", "optimizer=sgd,adam"])


def sampler(kind: str, dimensions: Any = DIMENSIONS, seed: int = 0) -> Sampler:
    return Sampler(
        dimensions,
        kind=kind,
        seed=seed,
        top=1,
        fingerprint=lambda choice: json.dumps(choice, sort_keys=True),
    )


def history(count: int, best: float) -> list[Trial]:
    """Trials that reached the more, the nearer `lr` was to `best`."""
    trials: list[Trial] = []
    for number in range(count):
        choice = sampler("random").propose(number, trials)
        assert choice is not None
        trial = Trial(number=number, first=0, choice=choice, goal=1)
        trial.reached = {0: 0.5, 1: -abs(choice["lr"] - best)} if number % 3 else {0: 0.1}
        trial.failed = number == 4
        trials.append(trial)
    trials[-1].reached = {}  # is being trained
    return trials


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_the_same_history_gives_the_same_choice(kind: str) -> None:
    trials = history(14, 0.3)
    once = sampler(kind)
    once.propose(3, trials[:3])  # calls in between alter nothing
    assert once.propose(14, trials) == sampler(kind).propose(14, trials)
    assert once.propose(14, trials) != sampler(kind, seed=1).propose(14, trials)


def test_tpe_goes_by_what_was_reached_and_random_does_not() -> None:
    near, far = history(30, 0.9), history(30, 0.001)
    assert sampler("random").propose(30, near) == sampler("random").propose(30, far)
    draws = [
        [choice["lr"] for n in range(30, 40) if (choice := sampler("tpe").propose(n, trials))]
        for trials in (near, far)
    ]
    assert sum(draws[0]) > 3 * sum(draws[1])


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_a_search_of_few_choices_makes_each_once_and_ends(kind: str) -> None:
    dimensions = parse_search(["batch-size=8,16,32", "nesterov=true,false"])
    trials: list[Trial] = []
    while (choice := sampler(kind, dimensions).propose(len(trials), trials)) is not None:
        trials.append(Trial(number=len(trials), first=0, choice=choice, reached={0: 0.5}))
    assert len({json.dumps(trial.choice) for trial in trials}) == len(trials) == 6
    assert {type(trial.choice["nesterov"]) for trial in trials} == {bool}


def test_the_setting_that_decides_is_the_most_important() -> None:
    trials = history(20, 0.9)
    for trial in trials:
        trial.reached = {0: -abs(trial.choice["lr"] - 0.9)}
    trials[0].reached = {0: 0.0, 1: 5.0}  # the only one that was trained further
    found = importances(DIMENSIONS, trials)
    assert max(found, key=lambda name: found[name]) == "lr"
    assert sum(found.values()) == pytest.approx(1)
    assert importances(DIMENSIONS, []) == {}
