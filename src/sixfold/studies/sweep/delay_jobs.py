"""Running the jobs of a sweep over delays in a Spark session of their own, with its event log.

What tasks run are functions within functions, which travel by value: an executor needs nothing of
Sixfold.
"""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.errors import RunError, UserError
from sixfold.studies.spark_sizes import result_limit_bytes
from sixfold.studies.sweep import events
from sixfold.studies.sweep.delay_plan import JobKind, SessionPlan, too_large
from sixfold.studies.sweep.events import read_jobs

WARM_UP = 2  # runs of each job that are thrown away: they start Python workers and compile
LONGEST_JOB_S = 600.0  # after which a job is given up: nothing here takes more than a few seconds
_MARK = "sixfold-delay "


def measure_session(
    plan: SessionPlan,
    jobs: Sequence[JobKind],
    *,
    repeats: int,
    conf: Sequence[str] = (),
    report: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Run every job `repeats` times, all in turns, and read what Spark says of them.

    Gives `workers`, `session_s`, and `points`: for each job the times of its repeats.
    """
    folder = Path(tempfile.mkdtemp(prefix="sixfold-events-"))
    try:
        with _session(plan, conf, folder) as session:
            limit = result_limit_bytes(session)
            refused = too_large(jobs, limit)
            if refused:
                raise UserError(
                    f"{refused[-1].name}: results of {refused[-1].moved_bytes} bytes do not fit "
                    f"under spark.driver.maxResultSize ({limit}); use fewer --tasks or smaller "
                    "--result-bytes, or raise it with --spark-conf"
                )
            workers = plan.workers or session.all_slots()
            session.wait_for_slots(workers)
            walls = _run_all(session, jobs, repeats, report)
            session_s = session.startup_s
        found = _read(folder, jobs, repeats, walls)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"workers": workers, "master": plan.master, "session_s": session_s, "points": found}


@contextmanager
def _session(plan: SessionPlan, conf: Sequence[str], folder: Path) -> Iterator[Any]:
    """A session that writes its events to a folder; ended, and the events whole, at the end."""
    from sixfold.distributed.engines.spark_session import open_session

    session = open_session(
        plan.master,
        [
            *conf,
            *plan.conf,
            "spark.eventLog.enabled=true",
            f"spark.eventLog.dir={folder.as_uri()}",
            "spark.eventLog.compress=false",
            "spark.eventLog.rolling.enabled=false",
        ],
    )
    try:
        if session.cleanup is None:
            raise UserError(
                "a Spark session is active in this process: delays are measured in a session of "
                "their own; stop that one first"
            )
        yield session
    finally:
        session.close()


def _run_all(
    session: Any, jobs: Sequence[JobKind], repeats: int, report: Callable[[float], None]
) -> dict[tuple[int, int], float]:
    rounds = WARM_UP + repeats
    walls: dict[tuple[int, int], float] = {}
    for turn in range(rounds):
        for number, job in enumerate(jobs):
            repeat = turn - WARM_UP
            wall_s = _watched(session, job, turn, f"{_MARK}{number} {repeat}")
            if repeat >= 0:
                walls[number, repeat] = wall_s
            report((turn * len(jobs) + number + 1) / (rounds * len(jobs)))
    return walls


def _watched(session: Any, job: JobKind, seed: int, mark: str) -> float:
    from sixfold.distributed.engines.spark_job import END_S, Job, explain

    found: list[float] = []
    watched = Job(
        session.context, lambda: found.append(run_job(session.context, job, seed=seed)), mark
    )
    try:
        watched.end(patience_s=LONGEST_JOB_S)
    except BaseException:
        watched.kill()
        watched.end(patience_s=END_S)
        raise
    if isinstance(watched.error, RunError):
        raise watched.error
    if watched.error is not None:
        session.check_alive(0.5)
        raise RunError(f"{job.name}: {explain(watched.error)}") from watched.error
    if not found:
        raise RunError(f"{job.name}: has not ended within {LONGEST_JOB_S:g} s")
    return found[0]


def run_job(context: Any, job: JobKind, *, seed: int) -> float:
    """Seconds that the driver waits for a job, its own part of the work included.

    The payload's bytes are drawn from `seed`: they must not be compressed away.
    """
    runners = {"empty": _empty, "result": _result, "broadcast": _broadcast, "shuffle": _shuffle}
    began = time.perf_counter()
    brought, wanted = runners[job.kind](context, job, seed)
    wall_s = time.perf_counter() - began
    if brought != wanted:
        raise RunError(f"{job.name}: Spark brought {brought}, expected {wanted}")
    return wall_s


def _empty(context: Any, job: JobKind, _: int) -> tuple[int, int]:
    def nothing(_: Iterable[int]) -> Iterator[int]:
        return iter(())

    rows = context.parallelize(range(job.tasks), job.tasks).mapPartitions(nothing).collect()
    return len(rows), 0


def _result(context: Any, job: JobKind, seed: int) -> tuple[int, int]:
    size = job.payload_bytes

    def returned(rows: Iterable[int]) -> Iterator[bytes]:
        import random

        return (random.Random(seed * 1_000_003 + row).randbytes(size) for row in rows)

    rows = context.parallelize(range(job.tasks), job.tasks).mapPartitions(returned).collect()
    return sum(map(len, rows)), job.moved_bytes


def _broadcast(context: Any, job: JobKind, seed: int) -> tuple[int, int]:
    sent = context.broadcast(random.Random(seed).randbytes(job.payload_bytes))

    def length(_: Iterable[int]) -> Iterator[int]:
        return iter([len(sent.value)])

    rows = context.parallelize(range(job.tasks), job.tasks).mapPartitions(length).collect()
    sent.unpersist()
    return sum(rows), job.payload_bytes * job.tasks


def _shuffle(context: Any, job: JobKind, seed: int) -> tuple[int, int]:
    tasks = job.tasks
    size = max(job.payload_bytes // (tasks * tasks), 1)

    def sent(rows: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        import random

        for row in rows:
            chance = random.Random(seed * 1_000_003 + row)
            for to in range(tasks):
                yield to, chance.randbytes(size)

    def length(rows: Iterable[tuple[int, bytes]]) -> Iterator[int]:
        return iter([sum(len(data) for _, data in rows)])

    first = context.parallelize(range(tasks), tasks).mapPartitions(sent)
    rows = first.partitionBy(tasks, lambda key: key).mapPartitions(length).collect()
    return sum(rows), size * tasks * tasks


def _read(
    folder: Path, jobs: Sequence[JobKind], repeats: int, walls: dict[tuple[int, int], float]
) -> list[dict[str, Any]]:
    """What the event log says of every job; a `RunError` if a job is missing in it."""
    logs = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if len(logs) != 1:
        raise RunError(f"Spark has left {len(logs)} event logs, expected one")
    by_mark: dict[str, list[events.Job]] = {}
    for job in read_jobs(logs[0]):
        by_mark.setdefault(job.description, []).append(job)
    found = []
    for number, kind in enumerate(jobs):
        runs = []
        for repeat in range(repeats):
            own = by_mark.get(f"{_MARK}{number} {repeat}", [])
            if not own:
                raise RunError(f"Spark's event log says nothing of {kind.name}")
            runs.append(_figures(own, walls[number, repeat]))
        found.append(
            {
                "kind": kind.kind,
                "tasks": kind.tasks,
                "payload_bytes": kind.payload_bytes,
                "moved_bytes": kind.moved_bytes,
                "runs": runs,
            }
        )
    return found


def _figures(own: Sequence[events.Job], wall_s: float) -> dict[str, Any]:
    """One run of a job: an action is one job, but partitioning may add another."""
    tasks = [task for job in own for task in job.tasks]
    whole = own[-1] if len(own) == 1 else events.Job(description="", submitted_s=0.0, tasks=tasks)
    delays = [task.scheduler_delay_s for task in tasks]
    return {
        "wall_s": wall_s,
        "job_s": sum(job.seconds for job in own),
        "launch_wait_s": sum(job.launch_wait_s for job in own),
        "parts": whole.parts(),
        "longest_delay_s": float(np.max(delays)) if delays else 0.0,
        "shuffled_bytes": sum(task.shuffle_bytes for task in tasks),
        "result_bytes": sum(task.result_bytes for task in tasks),
        "tasks_run": len(tasks),
    }
