"""Spark's own account of its jobs: event logs, read task by task.

An event log is a file of JSON objects, one a line, that the driver writes
(https://spark.apache.org/docs/latest/monitoring.html); its times are whole milliseconds. The
scheduler delay of a task is what Spark's web page calls so (AppStatusUtils.schedulerDelay): the
time between its launch and its end, as the driver sees them, in which the executor neither
deserialised the task, nor ran it, nor serialised the result, and the driver did not fetch it:

    delay = max(0, (finish - launch) - deserialise - run - serialise - fetch).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold.core.errors import RunError
from sixfold.core.files import parse_json

TASK_PARTS = ("scheduler_delay", "deserialize", "run", "serialize", "fetch")
"""What the time of a task divides into, each in seconds with `_s` behind its name."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that ended well."""

    stage: int
    launch_s: float  # when the driver sent it off, Unix seconds
    finish_s: float  # when the driver had its result
    deserialize_s: float  # that the executor spent on the task's own bytes
    run_s: float  # that it spent on running it
    serialize_s: float  # that it spent on the result
    fetch_s: float  # that the driver spent on fetching a result too large to come with the message
    result_bytes: int
    shuffle_bytes: int  # read from other tasks' output

    @property
    def scheduler_delay_s(self) -> float:
        """As Spark's web page defines it."""
        spent = self.deserialize_s + self.run_s + self.serialize_s + self.fetch_s
        return max(self.finish_s - self.launch_s - spent, 0.0)


@dataclass(kw_only=True)
class Job:
    """A job that ended well."""

    description: str
    submitted_s: float
    completed_s: float = float("nan")  # Unix seconds; NaN as long as it has not
    # numbers of its stages, and when each was submitted
    stages: dict[int, float] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)  # those of its stages

    @property
    def seconds(self) -> float:
        """From submission to completion."""
        return self.completed_s - self.submitted_s

    @property
    def launch_wait_s(self) -> float:
        """From a stage's submission to its first launch, added up over stages."""
        waits = []
        for stage, at in self.stages.items():
            launches = [task.launch_s for task in self.tasks if task.stage == stage]
            if launches:
                waits.append(max(min(launches) - at, 0.0))
        return sum(waits)

    def parts(self) -> dict[str, float]:
        """Mean seconds of a task by what they went to."""
        count = max(len(self.tasks), 1)
        return {
            name: sum(getattr(task, f"{name}_s") for task in self.tasks) / count
            for name in TASK_PARTS
        }


def read_jobs(path: Path) -> list[Job]:
    """The jobs in an event log that ended well, as submitted; a `RunError` if it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            return jobs_of(file)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: Spark has left no event log") from error


def jobs_of(lines: Iterable[str]) -> list[Job]:
    """The same from the log's lines; what is no event, or of no job, is passed over."""
    jobs: dict[int, Job] = {}
    of_stage: dict[int, int] = {}
    failed: set[int] = set()
    for line in lines:
        event = _event(line)
        kind = event.get("Event")
        if kind == "SparkListenerJobStart":
            jobs[event["Job ID"]] = Job(
                description=str((event.get("Properties") or {}).get("spark.job.description", "")),
                submitted_s=event["Submission Time"] / 1000,
            )
            of_stage |= dict.fromkeys(event.get("Stage IDs", ()), event["Job ID"])
        elif kind == "SparkListenerStageSubmitted":
            stage = event["Stage Info"]
            job = jobs.get(of_stage.get(stage["Stage ID"], -1))
            if job is not None and stage.get("Submission Time"):
                job.stages[stage["Stage ID"]] = stage["Submission Time"] / 1000
        elif kind == "SparkListenerTaskEnd":
            job = jobs.get(of_stage.get(event["Stage ID"], -1))
            if job is not None and (task := _task(event)) is not None:
                job.tasks.append(task)
        elif kind == "SparkListenerJobEnd" and event["Job ID"] in jobs:
            jobs[event["Job ID"]].completed_s = event["Completion Time"] / 1000
            if (event.get("Job Result") or {}).get("Result") != "JobSucceeded":
                failed.add(event["Job ID"])
    return [
        job
        for number, job in sorted(jobs.items())
        if number not in failed and job.completed_s == job.completed_s
    ]


def _event(line: str) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except ValueError:  # the last line of a driver that was killed
        return {}
    return value if isinstance(value, dict) else {}


def _task(event: Mapping[str, Any]) -> Task | None:
    info, metrics = event["Task Info"], event.get("Task Metrics")
    if metrics is None or info.get("Failed") or info.get("Killed"):
        return None
    fetched = info.get("Getting Result Time", 0)
    read = metrics.get("Shuffle Read Metrics", {})
    return Task(
        stage=event["Stage ID"],
        launch_s=info["Launch Time"] / 1000,
        finish_s=info["Finish Time"] / 1000,
        deserialize_s=metrics["Executor Deserialize Time"] / 1000,
        run_s=metrics["Executor Run Time"] / 1000,
        serialize_s=metrics["Result Serialization Time"] / 1000,
        fetch_s=max(info["Finish Time"] - fetched, 0) / 1000 if fetched > 0 else 0.0,
        result_bytes=int(metrics.get("Result Size", 0)),
        shuffle_bytes=int(read.get("Remote Bytes Read", 0)) + int(read.get("Local Bytes Read", 0)),
    )
