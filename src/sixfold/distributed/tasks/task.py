"""A task of a job: what it computes, recognised by a hash of its settings and dependencies."""

import hashlib
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of a job's work."""

    name: str  # for people and for other tasks' `dependencies`; unique within the job
    # plain data that decide the result, together with the results of `dependencies`. Where the work
    # is done, and how it is called, do not belong here
    settings: Mapping[str, Any]
    dependencies: tuple[str, ...] = ()  # names of tasks whose results this one uses
    # how long it is expected to take, in any unit that all tasks of the job share
    cost: float = 1.0


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, each behind its dependencies; a `ValueError` if there is no such order."""
    by_name = {task.name: task for task in tasks}
    if len(by_name) != len(tasks):
        raise ValueError("tasks of a job must have different names")
    for task in tasks:
        for name in task.dependencies:
            if name not in by_name:
                raise ValueError(f"{task.name} needs {name!r}, which is no task of the job")
    try:
        names = TopologicalSorter({t.name: t.dependencies for t in tasks}).static_order()
        return [by_name[name] for name in names]
    except CycleError as error:
        raise ValueError(f"tasks need each other: {error.args[1]}") from None


def cache_keys(tasks: Sequence[Task]) -> dict[str, str]:
    """What each task is recognised by: a hash of its settings and of those it stands on.

    Names do not count: a job that is planned anew finds the results of the old plan.

    >>> a, b = Task(name="a", settings={"x": 1}), Task(name="b", settings={"x": 1})
    >>> len(set(cache_keys([a, b]).values()))
    1
    """
    found: dict[str, str] = {}
    for task in in_order(tasks):
        needs = [found[name] for name in task.dependencies]
        text = json.dumps({"settings": task.settings, "needs": needs}, sort_keys=True)
        found[task.name] = hashlib.sha256(text.encode()).hexdigest()[:20]
    return found


def priorities(tasks: Sequence[Task]) -> dict[str, float]:
    """How much work hangs on each task: its own cost and the dearest chain behind it.

    Handing out the largest first is longest-first for independent tasks, and keeps a long chain
    from being begun late.

    >>> chain = [Task(name="a", settings={}, cost=1.0),
    ...          Task(name="b", settings={}, cost=5.0, dependencies=("a",))]
    >>> priorities(chain)
    {'b': 5.0, 'a': 6.0}
    """
    behind = dict.fromkeys((task.name for task in tasks), 0.0)
    found: dict[str, float] = {}
    for task in reversed(in_order(tasks)):
        found[task.name] = task.cost + behind[task.name]
        for name in task.dependencies:
            behind[name] = max(behind[name], found[task.name])
    return found


def makespan(tasks: Sequence[Task], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds until the last task ends, if each takes `seconds` and a free worker never waits.

    >>> tasks = [Task(name=n, settings={}, cost=c) for n, c in (("a", 1), ("b", 1), ("c", 2))]
    >>> makespan(tasks, {"a": 1.0, "b": 1.0, "c": 2.0}, 2)
    2.0
    """
    order = priorities(tasks)
    waiting = sorted(tasks, key=lambda task: -order[task.name])
    done: set[str] = set()
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        while len(running) < workers:
            ready = next((t for t in waiting if done.issuperset(t.dependencies)), None)
            if ready is None:
                break
            waiting.remove(ready)
            heapq.heappush(running, (now + seconds[ready.name], ready.name))
        now, name = heapq.heappop(running)
        done.add(name)
    return now
