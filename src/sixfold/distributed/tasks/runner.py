"""A job: its members spread over the workers of an engine, dynamically, each done exactly once.

Layout of the job's folder::

    members/<identity>/    one folder a member
        result.json        its result; its presence means that the member is done
        progress.json      how far it is
        tries.json         how often it was begun in this run of the job
        ...                what the work itself keeps there

A member is recognised by its identity alone, so a job that was stopped, or that is planned anew
with more members, goes on with what is there. The folder must lie where all workers see it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.distributed.engines import Engine
from sixfold.distributed.tasks.assignment import Assignment, CoordinatorClient, Work, finished
from sixfold.distributed.tasks.progress import ProgressMonitor
from sixfold.distributed.tasks.task import Task, identities, in_order, priorities

OnEvent = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job."""

    results: dict[str, dict[str, Any]]  # of every member that is done, by name
    failures: dict[str, str]  # why the others are not, by name
    # when, where and how long each member that is done ran, by name
    records: dict[str, dict[str, Any]]
    done_before: list[str]  # names of those that were done already when the job began
    wall_s: float  # seconds that this run of the job took
    busy_s: float  # seconds that workers spent on members in this run, added up


def member_folder(folder: Path, identity: str) -> Path:
    """Where a member of the job in `folder` keeps its files."""
    return folder / "members" / identity


def run_job(
    folder: Path,
    members: Sequence[Task],
    work: Work,
    engine: Engine,
    *,
    workers: int,
    retries: int = 2,
    on_event: OnEvent | None = None,
    log: Path | None = None,
) -> Outcome:
    """Do the work of all members that are not done yet.

    Whoever is free takes the ready member on which most work hangs. A member whose worker dies is
    given to another, at most `retries` times; one that fails is told in the outcome, with those
    that need it, and the others go on.

    Args:
        folder: of the job, on storage that all workers share; made if absent.
        members: of the job. Several with equal settings are done once.
        work: what is done for a member.
        engine: where.
        workers: how many members run at a time.
        retries: after deaths of a member's worker.
        on_event: called with the state of all members every second.
        log: file for everything that workers print.

    Raises:
        ValueError: if names repeat or needs cannot be satisfied.
        KeyboardInterrupt: after all workers were stopped; what is done stays done.
    """
    began = time.monotonic()
    names = identities(members)
    folders = {name: member_folder(folder, identity) for name, identity in names.items()}
    token = secrets.token_hex(8)
    records = {
        name: record
        for name, identity in names.items()
        if (record := finished(folders[name], identity)) is not None
    }
    done_before = list(records)
    failures: dict[str, str] = {}
    items = _to_do(members, names, records)
    places = {name: index for index, member in enumerate(items) for name in member.names}
    (folder / "members").mkdir(parents=True, exist_ok=True)
    with ProgressMonitor(members, folders, workers, token, on_event or (lambda _: None)) as board:
        for name, record in records.items():
            board.settle(name, "kept", record["seconds"], record["result"].get("accuracy"))

        def accept(index: int, answer: Mapping[str, Any]) -> None:
            for name in items[index].names:
                if "failed" in answer:
                    failures[name] = answer["failed"]
                    board.settle(name, "failed", 0.0, None)
                else:
                    records[name] = dict(answer)
                    accuracy = answer["result"].get("accuracy")
                    board.settle(name, "done", answer["seconds"], accuracy)

        engine.pool(
            CoordinatorClient(work=work, retries=retries),
            [
                Assignment(
                    name=item.member.name,
                    identity=names[item.member.name],
                    settings=item.member.settings,
                    folder=folders[item.member.name],
                    needs={need: folders[need] for need in item.member.needs},
                    token=token,
                )
                for item in items
            ],
            workers=workers,
            # One more, so that a member which kills its workers gives up by itself.
            retries=retries + 1,
            after=[
                sorted({places[need] for need in item.member.needs if need in places})
                for item in items
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


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A piece of work, and the names of all members that it is the work of."""

    member: Task
    names: tuple[str, ...]


def _to_do(
    members: Sequence[Task], names: Mapping[str, str], done: Mapping[str, Any]
) -> list[_Item]:
    """What is to be handed out, most urgent first."""
    order = priorities(members)
    same: dict[str, list[Task]] = {}
    for member in in_order(members):
        if member.name not in done:
            same.setdefault(names[member.name], []).append(member)
    items = [_Item(member=found[0], names=tuple(m.name for m in found)) for found in same.values()]
    return sorted(items, key=lambda item: -max(order[name] for name in item.names))
