"""A member of a job: what it computes, told apart by a hash of its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of a job's work."""

    name: str  # for people and for other members' `needs`; unique within the job
    # plain data that decide the result, together with the results of `needs`. Where the work is
    # done, and how it is called, do not belong here
    settings: Mapping[str, Any]
    needs: tuple[str, ...] = ()  # names of members whose results this one uses
    # how long it is expected to take, in any unit that all members of the job share
    cost: float = 1.0


def in_order(members: Sequence[Task]) -> list[Task]:
    """The members, each behind all that it needs; a `ValueError` if there is no such order."""
    by_name = {member.name: member for member in members}
    if len(by_name) != len(members):
        raise ValueError("members of a job must have different names")
    for member in members:
        for need in member.needs:
            if need not in by_name:
                raise ValueError(f"{member.name} needs {need!r}, which is no member of the job")
    try:
        names = TopologicalSorter({m.name: m.needs for m in members}).static_order()
        return [by_name[name] for name in names]
    except CycleError as error:
        raise ValueError(f"members need each other: {error.args[1]}") from None


def identities(members: Sequence[Task]) -> dict[str, str]:
    """What each member is recognised by: a hash of its settings and of those it stands on.

    Names do not count: a job that is planned anew finds the results of the old plan.

    >>> a, b = Task(name="a", settings={"x": 1}), Task(name="b", settings={"x": 1})
    >>> len(set(identities([a, b]).values()))
    1
    """
    found: dict[str, str] = {}
    for member in in_order(members):
        text = json.dumps(
            {"settings": member.settings, "needs": [found[need] for need in member.needs]},
            sort_keys=True,
        )
        found[member.name] = hashlib.sha256(text.encode()).hexdigest()[:20]
    return found


def priorities(members: Sequence[Task]) -> dict[str, float]:
    """How much work hangs on each member: its own cost and the dearest chain behind it.

    Handing out the largest first is longest-first for independent members, and keeps a long chain
    from being begun late.

    >>> chain = [Task(name="a", settings={}, cost=1.0),
    ...          Task(name="b", settings={}, cost=5.0, needs=("a",))]
    >>> priorities(chain)
    {'b': 5.0, 'a': 6.0}
    """
    behind = dict.fromkeys((member.name for member in members), 0.0)
    found: dict[str, float] = {}
    for member in reversed(in_order(members)):
        found[member.name] = member.cost + behind[member.name]
        for need in member.needs:
            behind[need] = max(behind[need], found[member.name])
    return found
