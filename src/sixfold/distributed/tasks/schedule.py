"""How long a job will take: the hand-out that `run_job` makes, played through with given times."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from sixfold.distributed.tasks.task import Task, priorities


def makespan(members: Sequence[Task], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds until the last member ends, if each takes `seconds` and a free worker never waits.

    >>> members = [Task(name=n, settings={}, cost=c) for n, c in (("a", 1), ("b", 1), ("c", 2))]
    >>> makespan(members, {"a": 1.0, "b": 1.0, "c": 2.0}, 2)
    2.0
    """
    order = priorities(members)
    waiting = sorted(members, key=lambda member: -order[member.name])
    done: set[str] = set()
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        while len(running) < workers:
            ready = next((m for m in waiting if done.issuperset(m.needs)), None)
            if ready is None:
                break
            waiting.remove(ready)
            heapq.heappush(running, (now + seconds[ready.name], ready.name))
        now, name = heapq.heappop(running)
        done.add(name)
    return now
