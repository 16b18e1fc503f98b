"""Decisions follow from the settings and what trials reach, whoever ends first."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sixfold.studies.tune.schedule import Job, Plan, Schedule

PLANS = st.builds(
    Plan,
    trials=st.integers(1, 14),
    rungs=st.integers(1, 4),
    reduction=st.integers(2, 3),
    parallel=st.integers(1, 6),
    hyperband=st.booleans(),
)
SEEDS = st.integers(0, 10**6)


def reached(seed: int, job: Job) -> float | None:
    """What a trial reaches at a rung; few values, so that there are ties. Some fail."""
    drawn = random.Random(f"{seed} {job}").random()
    return None if drawn < 0.1 else round(drawn, 1)


def never_failing(seed: int, job: Job) -> float | None:
    return round(random.Random(f"{seed} {job}").random(), 1)


def make(plan: Plan, seed: int) -> Schedule:
    def images(choice: Mapping[str, Any]) -> float:
        return 1.0 + random.Random(f"{seed} {choice['x']}").randrange(4)

    def propose(number: int, trials: Any) -> dict[str, Any] | None:
        # Depends on all that is known, as a sampler does.
        known = sorted((t.number, *sorted(t.reached.items()), t.failed) for t in trials)
        return {"x": random.Random(f"{number} {known}").randrange(10**6)}

    return Schedule(plan, propose, images)


def in_order(
    plan: Plan, seed: int, value: Callable[[int, Job], float | None] = reached
) -> Schedule:
    """One worker takes the jobs as they are decided."""
    schedule = make(plan, seed)
    waiting = schedule.start()
    while waiting:
        job = waiting.pop(0)
        waiting += schedule.settle(job, value(seed, job))
    return schedule


def choices(schedule: Schedule) -> list[tuple[int, Mapping[str, Any]]]:
    return [(trial.first, trial.choice) for trial in schedule.trials]


@given(plan=PLANS, seed=SEEDS, workers=st.integers(1, 6), luck=st.randoms(use_true_random=False))
def test_decisions_do_not_depend_on_workers_or_on_who_ends_first(
    plan: Plan, seed: int, workers: int, luck: random.Random
) -> None:
    schedule = make(plan, seed)
    waiting = schedule.start()
    running: list[Job] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(waiting.pop(0))
        job = running.pop(luck.randrange(len(running)))
        waiting += schedule.settle(job, reached(seed, job))
    usual = in_order(plan, seed)
    assert schedule.decided == usual.decided
    assert choices(schedule) == choices(usual)


@given(plan=PLANS, seed=SEEDS, data=st.data())
def test_a_search_that_is_killed_at_any_moment_decides_alike_and_does_nothing_twice(
    plan: Plan, seed: int, data: st.DataObject
) -> None:
    kept: dict[Job, float | None] = {}  # results on the disk
    made: list[Job] = []
    for _ in range(4):  # the last run is not killed
        left = data.draw(st.integers(0, 6)) if len(made) < 18 else 10**9
        schedule = make(plan, seed)
        waiting = schedule.start()
        while waiting:
            job = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            if job not in kept:
                if left == 0:
                    break
                left -= 1
                made.append(job)
                kept[job] = reached(seed, job)
                if data.draw(st.booleans()) and left == 0:
                    break  # done, and nobody has heard of it
            waiting += schedule.settle(job, kept[job])
    schedule = make(plan, seed)
    waiting = schedule.start()
    while waiting:
        job = waiting.pop(0)
        if job not in kept:
            made.append(job)
            kept[job] = reached(seed, job)
        waiting += schedule.settle(job, kept[job])
    assert schedule.decided == in_order(plan, seed).decided
    assert sorted(made) == sorted(schedule.decided)
    assert len(set(made)) == len(made)


def slowly(plan: Plan, seed: int) -> list[Job]:
    """The definition, step by step, from a list of jobs with their times on the clock."""
    schedule = make(plan, seed)  # for choices and lengths alone
    jobs: list[tuple[float, float, Job]] = []
    firsts: list[int] = []
    now = 0.0
    while True:
        running = [(end, k) for k, (_, end, _) in enumerate(jobs) if end > now]
        known = [job for _, end, job in jobs if end <= now]
        begun = {job for *_, job in jobs}
        free, job = plan.parallel - len(running), None
        if free > 0:
            job = _choose(plan, seed, known, begun, firsts)
        if job is not None:
            if job.trial == len(firsts):
                firsts.append(schedule._bracket(job.trial))
                job = Job(job.trial, firsts[-1])
                add(schedule, job, known, begun, seed, firsts)
            first = firsts[job.trial]
            done = plan.part(job.rung - 1) if job.rung > first else 0.0
            images = schedule._images(schedule.trials[job.trial].choice)
            jobs.append((now, now + (plan.part(job.rung) - done) * images, job))
        elif running:
            now = min(running)[0]
        else:
            return [job for *_, job in jobs]


def add(
    schedule: Schedule, job: Job, known: list[Job], begun: set[Job], seed: int, firsts: list[int]
) -> None:
    from sixfold.studies.tune.schedule import Trial

    for trial in schedule.trials:
        own = [other for other in known if other.trial == trial.number]
        trial.reached = {o.rung: v for o in own if (v := reached(seed, o)) is not None}
        trial.failed = any(reached(seed, other) is None for other in own)
    choice = schedule._propose(job.trial, schedule.trials)
    assert choice is not None
    schedule.trials.append(Trial(number=job.trial, first=firsts[-1], choice=choice))


def _choose(
    plan: Plan, seed: int, known: list[Job], begun: set[Job], firsts: list[int]
) -> Job | None:
    for rung in range(plan.rungs - 2, -1, -1):
        for first in range(rung + 1):
            own = [j for j in known if j.rung == rung and firsts[j.trial] == first]
            value = {j: reached(seed, j) for j in own}
            own.sort(key=lambda j: (-math.inf if (v := value[j]) is None else v, -j.trial))
            for job in own[::-1][: len(own) // plan.reduction]:
                if value[job] is not None and Job(job.trial, rung + 1) not in begun:
                    return Job(job.trial, rung + 1)
    if len(firsts) < plan.trials:
        return Job(len(firsts), -1)
    if set(begun) - set(known):
        return None
    good = [job for job in known if reached(seed, job) is not None]
    if not good or max(job.rung for job in good) == plan.rungs - 1:
        return None
    failed = {job.trial for job in known if reached(seed, job) is None}
    able = [job for job in good if job.trial not in failed]
    if not able:
        return None
    top = max(job.rung for job in able)
    best = max(
        (job for job in able if job.rung == top),
        key=lambda job: (reached(seed, job) or 0.0, -job.trial),
    )
    return Job(best.trial, top + 1)


@given(plan=PLANS, seed=SEEDS)
def test_decisions_are_those_of_the_definition(plan: Plan, seed: int) -> None:
    assert in_order(plan, seed).decided == slowly(plan, seed)


@given(plan=PLANS, seed=SEEDS)
def test_every_trial_goes_up_rung_by_rung(plan: Plan, seed: int) -> None:
    schedule = in_order(plan, seed, never_failing)
    decided = schedule.decided
    assert len(set(decided)) == len(decided)
    assert len(schedule.trials) == plan.trials
    for trial in schedule.trials:
        own = [job.rung for job in decided if job.trial == trial.number]
        assert own == list(range(trial.first, trial.first + len(own)))
    assert schedule.complete, "the best is trained to the end"


def test_the_best_of_a_rung_is_promoted_and_the_steps_follow() -> None:
    plan = Plan(trials=9, rungs=3, reduction=3, parallel=1)
    assert [plan.steps(rung, 100) for rung in range(3)] == [12, 34, 100]
    schedule = Schedule(plan, lambda number, _: {"x": number}, lambda _: 1.0)
    (job,) = schedule.start()
    while True:
        new = schedule.settle(job, -float(job.trial))
        if not new:
            break
        (job,) = new
    tops = {trial.number: max(trial.reached) for trial in schedule.trials}
    assert tops == {0: 2, 1: 1, 2: 1, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 8: 0}


def test_hyperband_gives_every_first_rung_about_as_many_images() -> None:
    plan = Plan(trials=60, rungs=3, reduction=3, parallel=4, hyperband=True)
    schedule = in_order(plan, 1, never_failing)
    count = [sum(trial.first == first for trial in schedule.trials) for first in range(3)]
    assert count == [33, 16, 11]  # 60 in the ratio 3 : 1.5 : 1
