"""Tasks are done exactly once, whatever dies, on every engine."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.spark_masters import EngineProcess

from sixfold.core.run_directory import read_json
from sixfold.distributed.engines import Engine, open_engine
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.tasks import Assignment, Task, run_job


@pytest.fixture(scope="module")
def local() -> Iterator[Engine]:
    with open_engine("local") as engine:
        yield engine


def work(marks: Path, assignment: Assignment) -> dict[str, Any]:
    """Adds up settings and needs; leaves a mark for every time it is called, and may misbehave."""
    settings = assignment.settings
    tries = len(list(marks.glob(f"{assignment.name}-*")))
    (marks / f"{assignment.name}-{tries}").touch()
    if tries < settings.get("deaths", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if settings.get("raises"):
        raise LookupError("not here")
    assignment.report_progress(part=0.5, epoch=1.0, accuracy=0.25)
    time.sleep(settings.get("sleep", 0.0))
    total = settings["x"]
    for folder in assignment.dependencies.values():
        total += (read_json(folder / "result.json") or {})["result"]["sum"]
    return {"sum": total, "accuracy": 0.5}


MEMBERS = [
    Task(name="c", settings={"x": 3}, dependencies=("a", "b")),
    Task(name="a", settings={"x": 1}),
    Task(name="b", settings={"x": 2}, dependencies=("a",)),
    Task(name="twin of a", settings={"x": 1}),
]


def marks_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_members_follow_what_they_need_and_equal_ones_are_done_once(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    job, do = tmp_path / "job", functools.partial(work, marks)
    outcome = run_job(job, MEMBERS, do, InlineEngine(), workers=1)
    assert {name: result["sum"] for name, result in outcome.results.items()} == {
        "a": 1,
        "twin of a": 1,
        "b": 3,
        "c": 7,
    }
    assert marks_of(marks) == ["a-0", "b-0", "c-0"]
    again = run_job(job, MEMBERS, do, InlineEngine(), workers=1)
    assert again.results == outcome.results
    assert sorted(again.done_before) == ["a", "b", "c", "twin of a"]
    assert again.busy_s == 0
    more = [*MEMBERS, Task(name="d", settings={"x": 9}, dependencies=("b",))]
    assert run_job(job, more, do, InlineEngine(), workers=1).results["d"]["sum"] == 12
    assert marks_of(marks) == ["a-0", "b-0", "c-0", "d-0"]


def test_tasks_may_be_added_and_those_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    job, do = tmp_path / "job", functools.partial(work, marks)
    told: list[str] = []

    def then(name: str, answer: Mapping[str, Any]) -> list[Task]:
        told.append(name)
        total = answer["result"]["sum"]
        more = [Task(name=f"{name}{k}", settings={"x": total + 1}) for k in range(2)]
        return more if total < 3 else []

    first = [Task(name="n", settings={"x": 1})]
    outcome = run_job(job, first, do, InlineEngine(), workers=1, then=then)
    assert sorted(outcome.results) == ["n", "n0", "n00", "n01", "n1", "n10", "n11"]
    assert len(marks_of(marks)) == 3, "equal tasks are done once"
    told.clear()
    again = run_job(job, first, do, InlineEngine(), workers=1, then=then)
    assert again.results == outcome.results
    assert sorted(told) == sorted(again.done_before) == sorted(outcome.results)
    assert len(marks_of(marks)) == 3


def test_changed_settings_are_done_anew_with_all_that_stands_on_them(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    job, do = tmp_path / "job", functools.partial(work, marks)
    run_job(job, MEMBERS, do, InlineEngine(), workers=1)
    changed = [*MEMBERS[:2], Task(name="b", settings={"x": 5}, dependencies=("a",))]
    outcome = run_job(job, changed, do, InlineEngine(), workers=1)
    assert outcome.results["c"]["sum"] == 10
    assert marks_of(marks) == ["a-0", "b-0", "b-1", "c-0", "c-1"]


def test_a_failed_member_takes_those_along_that_need_it_and_no_other(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    members = [
        Task(name="bad", settings={"x": 0, "raises": True}),
        Task(name="after", settings={"x": 1}, dependencies=("bad",)),
        Task(name="good", settings={"x": 2}),
    ]
    job, do = tmp_path / "job", functools.partial(work, marks)
    outcome = run_job(job, members, do, InlineEngine(), workers=1)
    assert list(outcome.results) == ["good"]
    assert outcome.failures == {
        "bad": "LookupError: not here",
        "after": "needs bad, which has no result",
    }
    run_job(job, members, do, InlineEngine(), workers=1)
    assert marks_of(marks) == ["bad-0", "bad-1", "good-0"]  # failures are tried again, no others


def test_killed_workers_cost_a_try_and_nothing_else(local: Engine, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    members = [
        Task(name="m0", settings={"x": 0, "deaths": 2}),
        Task(name="m1", settings={"x": 1}, dependencies=("m0",)),
        *(Task(name=f"m{i}", settings={"x": i}) for i in range(2, 8)),
    ]
    job, do = tmp_path / "job", functools.partial(work, marks)
    outcome = run_job(job, members, do, local, workers=2, retries=2)
    assert not outcome.failures
    assert {name: result["sum"] for name, result in outcome.results.items()} == {
        f"m{i}": i for i in range(8)
    }
    assert outcome.records["m0"]["tries"] == 3
    assert marks_of(marks) == sorted(["m0-0", "m0-1", "m0-2", *(f"m{i}-0" for i in range(1, 8))])


def test_a_member_that_always_kills_its_worker_does_not_end_the_job(
    local: Engine, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    members = [
        Task(name="deadly", settings={"x": 0, "deaths": 99}, cost=2.0),
        Task(name="fine", settings={"x": 1}),
    ]
    do = functools.partial(work, marks)
    outcome = run_job(tmp_path / "job", members, do, local, workers=2, retries=1)
    assert outcome.failures == {"deadly": "its worker died 2 times"}
    assert list(outcome.results) == ["fine"]


def test_a_worker_that_dies_after_its_result_was_written_is_not_asked_again(
    local: Engine, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    outcome = run_job(
        tmp_path / "job",
        [Task(name="m", settings={"x": 4})],
        _late_death(marks),
        local,
        workers=1,
    )
    assert outcome.results["m"]["sum"] == 4
    assert marks_of(marks) == ["m-0"]


def _late_death(marks: Path) -> Any:
    """Work whose worker is killed when its result is on the disk, before anybody hears of it."""

    def do(assignment: Assignment) -> dict[str, Any]:
        result = work(marks, assignment)
        target, me = assignment.folder / "result.json", os.getpid()
        if os.fork() == 0:
            while not target.exists():
                time.sleep(0.0005)
            os.kill(me, signal.SIGKILL)
            os._exit(0)
        return result

    return do


def test_listeners_see_states_and_times(local: Engine, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    heard: list[Any] = []
    members = [Task(name=f"m{i}", settings={"x": i, "sleep": 1.3}) for i in range(3)]
    do = functools.partial(work, marks)
    run_job(tmp_path / "job", members, do, local, workers=2, on_event=heard.append)
    assert all(event["kind"] == "job" for event in heard)
    states = [[line["state"] for line in event["lines"]] for event in heard]
    assert ["running", "running", "waiting"] in states
    assert states[-1] == ["done", "done", "done"]
    running = [line for event in heard for line in event["lines"] if line["state"] == "running"]
    assert any(line["accuracy"] == 0.25 and line["epoch"] == 1.0 for line in running)
    assert heard[-1]["left_s"] == 0


@pytest.mark.spark
def test_a_job_on_spark_survives_a_killed_worker(
    spark_local: EngineProcess, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    members = [*MEMBERS, Task(name="dies", settings={"x": 7, "deaths": 1})]
    do = functools.partial(work, marks)
    outcome = run_job(tmp_path / "job", members, do, spark_local, workers=2)
    assert outcome.results["c"]["sum"] == 7
    assert outcome.results["dies"]["sum"] == 7
    assert marks_of(marks) == ["a-0", "b-0", "c-0", "dies-0", "dies-1"]
