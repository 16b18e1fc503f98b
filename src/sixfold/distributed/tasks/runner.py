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

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
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
) -> Outcome:
    """Do the work of all tasks that are not done yet; tasks with equal settings are done once.

    Whoever is free takes the ready task on which most work hangs. A task whose worker dies is given
    to another, at most `retries` times; one that fails is in the outcome, with those that depend on
    it, and the others are done. `folder` is on storage that all workers share; `on_event` is called
    with the state of all tasks every second; what workers print goes to `log`. After Ctrl-C what is
    done stays done.
    """
    began = time.monotonic()
    keys = cache_keys(tasks)
    folders = {name: folder / "members" / key for name, key in keys.items()}
    token = secrets.token_hex(8)
    records = {
        name: record
        for name, key in keys.items()
        if (record := finished(folders[name], key)) is not None
    }
    done_before = list(records)
    failures: dict[str, str] = {}
    items = _to_do(tasks, keys, records)
    places = {task.name: index for index, same in enumerate(items) for task in same}
    (folder / "members").mkdir(parents=True, exist_ok=True)
    with ProgressMonitor(tasks, folders, workers, token, on_event or (lambda _: None)) as monitor:
        for name, record in records.items():
            monitor.settle(name, "kept", record)

        def accept(index: int, answer: Mapping[str, Any]) -> None:
            for task in items[index]:
                if "failed" in answer:
                    failures[task.name] = answer["failed"]
                    monitor.settle(task.name, "failed")
                else:
                    records[task.name] = dict(answer)
                    monitor.settle(task.name, "done", answer)

        engine.pool(
            Worker(work=work, retries=retries),
            [
                Assignment(
                    name=task.name,
                    cache_key=keys[task.name],
                    settings=task.settings,
                    folder=folders[task.name],
                    dependencies={name: folders[name] for name in task.dependencies},
                    token=token,
                )
                for task, *_ in items
            ],
            workers=workers,
            # One more, so that a task which kills its workers gives up by itself.
            retries=retries + 1,
            after=[
                sorted({places[name] for name in task.dependencies if name in places})
                for task, *_ in items
            ],
            on_done=accept,
            log=log,
        )
    new = {record["identity"]: record for name, record in records.items() if name in places}
    return Outcome(
        results={name: record["result"] for name, record in records.items()},
        failures=failures,
        records=records,
        done_before=done_before,
        wall_s=time.monotonic() - began,
        busy_s=sum(record["seconds"] for record in new.values()),
    )


def _to_do(
    tasks: Sequence[Task], keys: Mapping[str, str], done: Mapping[str, Any]
) -> list[list[Task]]:
    """What is to be handed out, most urgent first; equal tasks together."""
    order = priorities(tasks)
    same: dict[str, list[Task]] = {}
    for task in in_order(tasks):
        if task.name not in done:
            same.setdefault(keys[task.name], []).append(task)
    return sorted(same.values(), key=lambda equal: -max(order[task.name] for task in equal))
