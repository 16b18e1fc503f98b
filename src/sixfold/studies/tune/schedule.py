"""Which trial is trained next, and how far: asynchronous successive halving that can be repeated.

    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020
    (https://arxiv.org/abs/1810.05934), algorithm 2

Whenever a worker is free, the uppermost rung is looked for that holds a trial among the best
1/reduction of those judged there and not yet promoted; it is trained to the next rung. Where there
is none, a new trial begins.

The departure: there, who is judged first depends on who trains how fast. Here a clock that counts
images decides. `parallel` workers that exist on paper only train as many images a second as each
other; a decision at a time of that clock knows every trial that was judged by then and no other. So
decisions follow from the settings and from what trials reach, whatever number of workers trains
them in truth, in whatever order they end, and however often the search was stopped on the way.
"""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Job(NamedTuple):
    """A training that is to be made: of a trial, from the rung before to this one."""

    trial: int
    rung: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a schedule keeps to."""

    trials: int
    rungs: int
    reduction: int
    parallel: int
    hyperband: bool = False  # whether some trials begin with a longer rung

    def part(self, rung: int) -> float:
        """How much of its training a trial has behind it at a rung."""
        return float(self.reduction) ** (rung + 1 - self.rungs)

    def steps(self, rung: int, total: int) -> int:
        """The same in steps."""
        divisor: int = self.reduction ** (self.rungs - 1 - rung)
        return -(-total // divisor)


@dataclass(kw_only=True)
class Trial:
    """A choice of settings, and what is known of it at a time of the schedule's clock."""

    number: int  # from 0
    first: int  # its first rung
    choice: Mapping[str, Any]
    reached: dict[int, float] = field(default_factory=dict)  # rung -> the larger, the better
    failed: bool = False
    goal: int = -1  # the rung that it is, or was last, trained to


Propose = Callable[[int, Sequence[Trial]], Mapping[str, Any] | None]
"""Chooses the settings of a trial by its number and the trials before; None if none are left."""


class Schedule:
    """The decisions of a search; see above.

    >>> plan = Plan(trials=3, rungs=2, reduction=2, parallel=1)
    >>> schedule = Schedule(plan, lambda number, _: {"x": number}, lambda choice: 1.0)
    >>> schedule.start()
    [Job(trial=0, rung=0)]
    >>> schedule.settle(Job(0, 0), 0.5)
    [Job(trial=1, rung=0)]
    >>> schedule.settle(Job(1, 0), 0.7)
    [Job(trial=1, rung=1)]
    """

    def __init__(
        self, plan: Plan, propose: Propose, images: Callable[[Mapping[str, Any]], float]
    ) -> None:
        """Args: `images` are those that the whole training of a choice takes."""
        self.plan, self._propose, self._images = plan, propose, images
        self.trials: list[Trial] = []
        self.decided: list[Job] = []
        self._running: list[tuple[float, int, Job]] = []  # end, place in `decided`
        self._known: dict[Job, float | None] = {}
        self._now = 0.0
        self._exhausted = False

    def start(self) -> list[Job]:
        """The first jobs."""
        return self._advance()

    def settle(self, job: Job, reached: float | None) -> list[Job]:
        """Take in what a job has reached, None if it failed; the jobs that are decided now.

        Jobs may be settled in any order.
        """
        assert job in self.decided, "settled without having been asked for"
        self._known.setdefault(job, reached)
        return self._advance()

    @property
    def complete(self) -> list[Trial]:
        """Trials that were trained to the end, the best first."""
        top = self.plan.rungs - 1
        found = [trial for trial in self.trials if top in trial.reached]
        return sorted(found, key=lambda trial: (-trial.reached[top], trial.number))

    def _advance(self) -> list[Job]:
        """Let the clock run as long as all is known that ends."""
        new: list[Job] = []
        while True:
            while len(self._running) < self.plan.parallel and (job := self._next()):
                end = self._now + self._duration(job)
                heapq.heappush(self._running, (end, len(self.decided), job))
                self.trials[job.trial].goal = job.rung
                self.decided.append(job)
                new.append(job)
            ending = [job for end, _, job in self._running if end == self._running[0][0]]
            if not ending or any(job not in self._known for job in ending):
                return new
            for _ in ending:
                self._now, _, job = heapq.heappop(self._running)
                trial, reached = self.trials[job.trial], self._known[job]
                if reached is None:
                    trial.failed = True
                else:
                    trial.reached[job.rung] = reached

    def _duration(self, job: Job) -> float:
        trial, plan = self.trials[job.trial], self.plan
        done = plan.part(job.rung - 1) if job.rung > trial.first else 0.0
        return (plan.part(job.rung) - done) * self._images(trial.choice)

    def _next(self) -> Job | None:
        return self._promotion() or self._new_trial() or self._last()

    def _promotion(self) -> Job | None:
        """The best trial, of the uppermost rung that has one, to be trained further."""
        plan = self.plan
        for rung in reversed(range(plan.rungs - 1)):
            for first in range(rung + 1):
                judged = [t for t in self.trials if t.first == first and _judged(t, rung)]
                judged.sort(key=lambda t: (-t.reached.get(rung, -math.inf), t.number))
                for trial in judged[: len(judged) // plan.reduction]:
                    if trial.goal == rung and not trial.failed:
                        return Job(trial.number, rung + 1)
        return None

    def _new_trial(self) -> Job | None:
        number = len(self.trials)
        if number >= self.plan.trials or self._exhausted:
            return None
        choice = self._propose(number, self.trials)
        if choice is None:
            self._exhausted = True
            return None
        first = self._bracket(number)
        self.trials.append(Trial(number=number, first=first, choice=choice))
        return Job(number, first)

    def _bracket(self, number: int) -> int:
        """The first rung of a trial, so that each first rung is given as many images."""
        plan = self.plan
        if not plan.hyperband:
            return 0
        rungs = range(plan.rungs)
        shares = [1 / (plan.part(first) * (plan.rungs - first)) for first in rungs]
        lacking = [
            share / sum(shares) * (number + 1) - sum(t.first == first for t in self.trials)
            for first, share in zip(rungs, shares, strict=True)
        ]
        return max(rungs, key=lambda first: (round(lacking[first], 9), -first))

    def _last(self) -> Job | None:
        """Where nothing else is left and no trial is complete: the best, one rung further."""
        if self._running or self.complete:
            return None
        for rung in reversed(range(self.plan.rungs - 1)):
            able = [t for t in self.trials if rung in t.reached and not t.failed]
            if able:
                best = max(able, key=lambda t: (t.reached[rung], -t.number))
                return Job(best.number, rung + 1)
        return None


def _judged(trial: Trial, rung: int) -> bool:
    """Whether it is known what became of a trial at a rung."""
    return rung in trial.reached or (trial.failed and trial.goal == rung)
