"""Reading Spark's event logs: what is told of tasks, and what is passed over."""

import json
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import RunError
from sixfold.studies.sweep.events import jobs_of, read_jobs


def start(job: int, stages: list[int], at: int, name: str = "x") -> dict[str, Any]:
    return {
        "Event": "SparkListenerJobStart",
        "Job ID": job,
        "Submission Time": at,
        "Stage IDs": stages,
        "Properties": {"spark.job.description": name},
    }


def stage(number: int, at: int) -> dict[str, Any]:
    info = {"Stage ID": number, "Submission Time": at}
    return {"Event": "SparkListenerStageSubmitted", "Stage Info": info}


def task(number: int, launch: int, finish: int, **more: Any) -> dict[str, Any]:
    times = {"deserialize": 0, "run": 0, "serialize": 0, "fetched": 0} | more
    return {
        "Event": "SparkListenerTaskEnd",
        "Stage ID": number,
        "Task Info": {
            "Launch Time": launch,
            "Finish Time": finish,
            "Getting Result Time": times["fetched"],
            "Failed": times.get("failed", False),
            "Killed": False,
        },
        "Task Metrics": {
            "Executor Deserialize Time": times["deserialize"],
            "Executor Run Time": times["run"],
            "Result Serialization Time": times["serialize"],
            "Result Size": 77,
            "Shuffle Read Metrics": {"Remote Bytes Read": 5, "Local Bytes Read": 6},
        },
    }


def end(job: int, at: int, result: str = "JobSucceeded") -> dict[str, Any]:
    return {
        "Event": "SparkListenerJobEnd",
        "Job ID": job,
        "Completion Time": at,
        "Job Result": {"Result": result},
    }


def lines(*events: dict[str, Any]) -> list[str]:
    return [json.dumps(event) for event in events]


def test_the_time_of_a_task_is_divided_as_sparks_page_does() -> None:
    (job,) = jobs_of(
        lines(
            {"Event": "SparkListenerApplicationStart"},
            start(0, [0], 1000, "mine"),
            stage(0, 1002),
            task(0, 1005, 1055, deserialize=4, run=20, serialize=1, fetched=1045),
            task(0, 1010, 1030, run=15, deserialize=9),  # more than its time: no delay
            end(0, 1060),
        )
    )
    assert job.description == "mine"
    assert job.seconds == pytest.approx(0.060)
    assert job.launch_wait_s == pytest.approx(0.003)
    first, second = job.tasks
    assert first.fetch_s == pytest.approx(0.010)
    assert first.scheduler_delay_s == pytest.approx(0.050 - 0.004 - 0.020 - 0.001 - 0.010)
    assert second.scheduler_delay_s == 0
    assert job.parts()["run"] == pytest.approx(0.0175)
    assert (first.result_bytes, first.shuffle_bytes) == (77, 11)


def test_tasks_belong_to_the_job_of_their_stage() -> None:
    found = jobs_of(
        lines(
            start(0, [0, 1], 0),
            start(1, [2], 5),
            stage(0, 1),
            stage(2, 6),
            task(2, 10, 20),
            task(0, 11, 21),
            end(1, 30),
            stage(1, 22),
            task(1, 26, 27),
            end(0, 31),
        )
    )
    assert [len(job.tasks) for job in found] == [2, 1]
    assert found[0].launch_wait_s == pytest.approx(0.010 + 0.004)


def test_what_failed_or_has_not_ended_is_left_out() -> None:
    found = jobs_of(
        [
            *lines(
                start(0, [0], 0),
                task(0, 1, 9, failed=True),
                task(0, 10, 12),
                end(0, 13),
                start(1, [1], 20),
                end(1, 21, "JobFailed"),
                start(2, [2], 30),
                {**task(2, 31, 32), "Task Metrics": None},
            ),
            '{"Event": "SparkListenerJobE',
        ]
    )
    (job,) = found
    assert len(job.tasks) == 1


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has left no event log"):
        read_jobs(tmp_path / "none")
