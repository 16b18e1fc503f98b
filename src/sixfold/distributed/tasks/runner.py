"""A job: its tasks spread over the workers of an engine, dynamically, each done exactly once.

Layout of the job's folder::

    members/<cache key>/   one folder a task
        result.json        its result; its presence means that the task is done
        progress.json      how far it is
        tries.json         how often it was begun in this run of the job
        ...                what the work itself keeps there

A task is recognised by its cache key alone, so a job that was stopped, or that is planned anew
with more tasks, resumes from what is there. The folder must lie where all workers see it.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.events import OnEvent
from sixfold.distributed.engines import Engine
from sixfold.distributed.tasks.assignment import Assignment, Work, Worker, finished
from sixfold.distributed.tasks.progress import ProgressMonitor
from sixfold.distributed.tasks.task import Task, cache_keys, in_order, priorities


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job."""

    results: dict[str, dict[str, Any]]  # of every task that is done, by name
    failures: dict[str, str]  # why the others are not, by name
    records: dict[str, dict[str, Any]]  # when, where and how long each ran that is done, by name
    done_before: list[str]  # names of those that were done already when the job began
    wall_s: float  # seconds that this run of the job took
    busy_s: float  # seconds that workers spent on tasks in this run, added up


Then = Callable[[str, Mapping[str, Any]], Sequence[Task]]
"""Given a task that has come to its end, and its record or why it ``failed``: tasks to be added.

Called in the launcher, once for each task, those included that were done before. A task that is
added has no `dependencies`.
"""


def run_job(
    folder: Path,
    tasks: Sequence[Task],
    work: Work,
    engine: Engine,
    *,
    workers: int,
    retries: int = 2,
    on_event: OnEvent | None = None,
    log: Path | None = None,
    then: Then | None = None,
) -> Outcome:
    """Do the work of all tasks that are not done yet; tasks with equal settings are done once.

    Whoever is free takes the ready task on which most work hangs. A task whose worker dies is given
    to another, at most `retries` times; one that fails is in the outcome, with those that depend on
    it, and the others are done. `folder` is on storage that all workers share; `on_event` is called
    with the state of all tasks every second; what workers print goes to `log`; `then` may add
    tasks. After Ctrl-C what is done stays done.
    """
    began = time.monotonic()
    token = secrets.token_hex(8)
    with ProgressMonitor(workers, token, on_event or (lambda _: None)) as monitor:
        job = _Job(folder / "members", token, monitor, then)
        items, after = job.begin(tasks)
        engine.pool(
            Worker(work=work, retries=retries),
            items,
            workers=workers,
            # One more, so that a task which kills its workers gives up by itself.
            retries=retries + 1,
            after=after,
            on_done=job.accept,
            log=log,
        )
    return Outcome(
        results={name: record["result"] for name, record in job.records.items()},
        failures=job.failures,
        records=job.records,
        done_before=job.done_before,
        wall_s=time.monotonic() - began,
        busy_s=sum(answer["seconds"] for answer in job.answers.values() if "failed" not in answer),
    )


class _Job:
    """What is known of a job's tasks while it runs."""

    def __init__(
        self, members: Path, token: str, monitor: ProgressMonitor, then: Then | None
    ) -> None:
        self._members, self._token, self._monitor = members, token, monitor
        self._then = then or (lambda _name, _answer: ())
        self._keys: dict[str, str] = {}  # by name
        self._items: list[list[Task]] = []  # those that are equal together
        self._places: dict[str, int] = {}  # in `_items`, by cache key
        self.answers: dict[int, Mapping[str, Any]] = {}  # of this run of the job, by item
        self.records: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, str] = {}
        self.done_before: list[str] = []
        members.mkdir(parents=True, exist_ok=True)

    def begin(self, tasks: Sequence[Task]) -> tuple[list[Assignment], list[list[int]]]:
        """What is to be handed out at first, most urgent first, and which each comes after."""
        order = priorities(tasks)
        items = self._add(in_order(tasks), lambda task: -order.get(task.name, 0.0))
        after = [
            {self._places.get(self._keys[name], -1) for name in task.dependencies} - {-1}
            for task, *_ in self._items
        ]
        return items, [sorted(places) for places in after]

    def accept(self, index: int, answer: Mapping[str, Any]) -> list[Assignment]:
        """Take in what became of an item; what is to be handed out more."""
        self.answers[index] = answer
        more = [new for task in self._items[index] for new in self._settle(task, answer)]
        return self._add(more)

    def _add(
        self, tasks: Iterable[Task], urgency: Callable[[Task], float] = lambda _: 0.0
    ) -> list[Assignment]:
        """Take in tasks, and those that follow as some of them are done already."""
        tasks = list(tasks)
        same: dict[str, list[Task]] = {}
        self._keys |= cache_keys(tasks)
        self._monitor.add(tasks, {task.name: self._folder(task.name) for task in tasks})
        for task in tasks:  # grows while it is gone through
            key = self._keys[task.name]
            place = self._places.get(key, -1)
            if place in self.answers:
                more = self._settle(task, self.answers[place])
            elif place >= 0:
                self._items[place].append(task)
                continue
            elif record := finished(self._members / key, key):
                self.done_before.append(task.name)
                more = self._settle(task, record, "kept")
            else:
                same.setdefault(key, []).append(task)
                continue
            self._keys |= cache_keys(more)
            self._monitor.add(more, {one.name: self._folder(one.name) for one in more})
            tasks += more
        new = sorted(same.values(), key=lambda equal: min(map(urgency, equal)))
        for equal in new:
            self._places[self._keys[equal[0].name]] = len(self._items)
            self._items.append(equal)
        return [self._assignment(task) for task, *_ in new]

    def _settle(self, task: Task, answer: Mapping[str, Any], state: str = "done") -> Sequence[Task]:
        if "failed" in answer:
            self.failures[task.name] = answer["failed"]
            self._monitor.settle(task.name, "failed")
            return self._then(task.name, answer)
        self.records[task.name] = dict(answer)
        self._monitor.settle(task.name, state, answer)
        return self._then(task.name, answer)

    def _folder(self, name: str) -> Path:
        return self._members / self._keys[name]

    def _assignment(self, task: Task) -> Assignment:
        return Assignment(
            name=task.name,
            cache_key=self._keys[task.name],
            settings=task.settings,
            folder=self._folder(task.name),
            dependencies={name: self._folder(name) for name in task.dependencies},
            token=self._token,
        )
