"""Choices of settings by Optuna's samplers, each from a seed of its own and what was judged."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sixfold.studies.tune.schedule import Trial
from sixfold.studies.tune.space import MOST_COUNTED, Choice, Dimension, all_choices

TRIES = 50
"""Draws after which a sampler that gives known choices only is left for another way."""


class Sampler:
    """Chooses settings that were not tried before.

    Args:
        dimensions: what is searched.
        kind: `tpe` or `random`.
        seed: of all choices.
        top: the rung at which trials are complete.
        fingerprint: tells choices apart by the trainings that they stand for.
    """

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        *,
        kind: str,
        seed: int,
        top: int,
        fingerprint: Callable[[Choice], str],
    ) -> None:
        self._dimensions, self._kind, self._seed, self._top = dimensions, kind, seed, top
        self._fingerprint = fingerprint
        self._space = {one.name: _distribution(one) for one in dimensions}
        self._seen: set[str] = set()

    def propose(self, number: int, trials: Sequence[Trial]) -> dict[str, Any] | None:
        """The choice of a trial; None if all there are have been tried.

        It follows from the seed, the number, and the trials as they are; not from earlier calls.
        """
        self._seen = {self._fingerprint(trial.choice) for trial in trials}
        study = self._study(trials)
        for attempt in range(2 * TRIES):
            random = self._kind == "random" or attempt >= TRIES
            study.sampler = self._sampler(number, attempt, random=random)
            with _quietly():
                drawn = study.ask(self._space)
            choice = {one.name: _value(one, drawn.params[one.name]) for one in self._dimensions}
            if self._fingerprint(choice) not in self._seen:
                return choice
        if math.prod(one.count for one in self._dimensions) > MOST_COUNTED:
            return None
        left = [c for c in all_choices(self._dimensions) if self._fingerprint(c) not in self._seen]
        place = np.random.default_rng([self._seed, number]).integers(max(len(left), 1))
        return left[place] if left else None

    def _sampler(self, number: int, attempt: int, *, random: bool) -> Any:
        from optuna.samplers import RandomSampler, TPESampler

        words = np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)
        made = RandomSampler if random else TPESampler
        return made(seed=int(words[0]))

    def _study(self, trials: Sequence[Trial]) -> Any:
        import optuna

        study = new_study()
        states = optuna.trial.TrialState
        for trial in trials if self._kind == "tpe" else ():
            values: dict[int, float] = {**trial.reached}
            state, value = states.PRUNED, None
            if trial.failed:
                values[trial.goal] = math.nan  # the worst
            elif self._top in trial.reached:
                state, value = states.COMPLETE, trial.reached[self._top]
            elif not trial.reached:
                state = states.RUNNING
            made = optuna.trial.create_trial(
                state=state,
                value=value,
                params={one.name: _param(one, trial.choice[one.name]) for one in self._dimensions},
                distributions=self._space,
                intermediate_values=values,
            )
            study.add_trial(made)
        return study


def importances(dimensions: Sequence[Dimension], trials: Sequence[Trial]) -> dict[str, float]:
    """How much of the variance of what trials reached goes with each setting, by fANOVA.

        Hutter, Hoos, Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance,
        ICML 2014

    Taken at the rung that most trials have reached; empty where that says nothing.
    """
    import optuna

    rungs = sorted({rung for trial in trials for rung in trial.reached})
    if not rungs:
        return {}
    rung = max(rungs, key=lambda one: (sum(one in trial.reached for trial in trials), -one))
    judged = [trial for trial in trials if math.isfinite(trial.reached.get(rung, math.nan))]
    if len(judged) < 4 or len({trial.reached[rung] for trial in judged}) < 2:
        return {}
    study, space = new_study(), {one.name: _distribution(one) for one in dimensions}
    for trial in judged:
        params = {one.name: _param(one, trial.choice[one.name]) for one in dimensions}
        value = trial.reached[rung]
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=space))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with _quietly():
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def new_study() -> Any:
    """An empty study; the larger, the better."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def optuna_problems() -> list[str]:
    """A line if Optuna is not there."""
    if importlib.util.find_spec("optuna") is not None:
        return []
    return ["sixfold tune needs Optuna: pip install 'sixfold[tune]'"]


def _distribution(one: Dimension) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    span = one.span
    if span is None:
        return CategoricalDistribution([str(value) for value in one.values])
    if span.whole:
        step = int(span.step or 1)
        last = int(span.low) + int(span.count - 1) * step
        return IntDistribution(int(span.low), last, log=span.log, step=step)
    high = span.low + (span.count - 1) * span.step if span.step else span.high
    return FloatDistribution(span.low, high, log=span.log, step=span.step)


def _value(one: Dimension, drawn: Any) -> Any:
    """What a setting holds, from what Optuna has drawn."""
    if one.span is not None:
        return one.span.value(drawn)
    return next(value for value in one.values if str(value) == drawn)


def _param(one: Dimension, value: Any) -> Any:
    return str(value) if one.span is None else value


def _quietly() -> warnings.catch_warnings[None]:
    """Without Optuna's warnings of what is experimental."""
    return warnings.catch_warnings(action="ignore")
