"""From the settings of a sweep over delays to the jobs that are run in each Spark session."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sixfold.core.byte_sizes import parse_size, written
from sixfold.core.errors import UserError, problems_of
from sixfold.studies.sweep.config import ClusterConfig, SweepDelayConfig

KINDS = {
    "empty": "tasks that do nothing",
    "result": "each task returns bytes to the driver",
    "broadcast": "the driver sends bytes to all tasks",
    "shuffle": "tasks send bytes to each other",
}

_LOCAL = re.compile(r"local(\[[^]]*\])?")
_LOCAL_CLUSTER = re.compile(r"local-cluster\[\d+,(\d+,\d+)\]")


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """A job that is run again and again."""

    kind: str  # of its payload, a name of `KINDS`
    tasks: int  # m
    payload_bytes: int = 0  # as the setting says: of each task (result), or over all (others)

    @property
    def moved_bytes(self) -> int:
        return self.payload_bytes * (self.tasks if self.kind == "result" else 1)

    @property
    def name(self) -> str:
        """For people, and to find its jobs in Spark's events."""
        size = f" {written(self.payload_bytes)}" if self.payload_bytes else ""
        return f"{self.kind}{size} x {self.tasks}"


def parse_sizes(flag: str, text: str) -> list[int]:
    """Sizes in bytes, in rising order; a `UserError` if one is none.

    >>> parse_sizes("--result-bytes", "1M,64K,300")
    [300, 65536, 1048576]
    """
    found = set()
    for word in filter(None, (word.strip() for word in text.split(","))):
        try:
            size = parse_size(word)
        except ValueError:
            size = 0
        if size < 1:
            raise UserError(
                f"{flag} {word!r}: expected sizes in bytes, such as 64K,1M, or '' for none"
            )
        found.add(size)
    return sorted(found)


def parse_counts(flag: str, text: str) -> list[int]:
    """Whole numbers from 1 on, in rising order; a `UserError` if one is none."""
    found = set()
    for word in filter(None, (word.strip() for word in text.split(","))):
        if not word.isdecimal() or int(word) < 1:
            raise UserError(f"{flag} {word!r}: expected whole numbers from 1 on, such as 1,2,4")
        found.add(int(word))
    return sorted(found)


def job_kinds(config: SweepDelayConfig) -> list[JobKind]:
    """Every job, empty ones first; a `UserError` if a list cannot be read."""
    tasks = parse_counts("--tasks", config.delay.tasks)
    found = [JobKind(kind="empty", tasks=count) for count in tasks]
    for kind, flag, text in _payloads(config):
        sizes = parse_sizes(flag, text)
        found += [JobKind(kind=kind, tasks=n, payload_bytes=size) for size in sizes for n in tasks]
    return found


def _payloads(config: SweepDelayConfig) -> list[tuple[str, str, str]]:
    return [
        (kind, f"--{kind}-bytes", getattr(config.delay, f"{kind}_bytes"))
        for kind in KINDS
        if kind != "empty"
    ]


def too_large(jobs: Sequence[JobKind], limit_bytes: int) -> list[JobKind]:
    """Jobs whose results Spark would refuse to bring together (spark.driver.maxResultSize)."""
    return [
        job for job in jobs if job.kind == "result" and 0 < limit_bytes <= 1.05 * job.moved_bytes
    ]


@dataclass(frozen=True, kw_only=True)
class SessionPlan:
    """A Spark session to be measured."""

    workers: int | None  # n, or None for as many as the master has
    master: str  # its URL
    conf: tuple[str, ...] = ()  # settings besides, key=value


def sessions(config: ClusterConfig) -> list[SessionPlan]:
    """A session for each number of workers; a `UserError` if the master cannot have another.

    >>> [s.master for s in sessions(ClusterConfig(master="local-cluster[2,1,900]", workers="1,4"))]
    ['local-cluster[1,1,900]', 'local-cluster[4,1,900]']
    """
    counts = parse_counts("--workers", config.workers)
    master = re.sub(r"\s+", "", config.master)
    if not counts:
        return [SessionPlan(workers=None, master=master)]
    found = []
    for count in counts:
        if _LOCAL.fullmatch(master):
            found.append(SessionPlan(workers=count, master=f"local[{count}]"))
        elif match := _LOCAL_CLUSTER.fullmatch(master):
            found.append(SessionPlan(workers=count, master=f"local-cluster[{count},{match[1]}]"))
        elif master.startswith("spark://"):
            conf = (f"spark.cores.max={count}",)
            found.append(SessionPlan(workers=count, master=master, conf=conf))
        else:
            raise UserError(
                f"--workers {config.workers}: sizes of {master} cannot be set from here; set them "
                "with --spark-conf, and run a sweep for each"
            )
    return found


def delay_problems(config: SweepDelayConfig) -> list[str]:
    """What is wrong with the lists of sizes and sessions, and with settings of Spark."""
    found = problems_of(
        lambda: parse_counts("--tasks", config.delay.tasks),
        *(
            lambda flag=flag, text=text: parse_sizes(flag, text)
            for _, flag, text in _payloads(config)
        ),
        lambda: sessions(config.cluster),
    )
    if not config.delay.tasks.strip(" ,"):
        found.append("--tasks: give at least one number of tasks, such as 1,4,16")
    for setting in config.cluster.spark_conf:
        if "=" not in setting:
            found.append(f"--spark-conf {setting!r}: expected key=value")
        elif setting.startswith("spark.eventLog."):
            found.append(f"--spark-conf {setting}: the sweep keeps its own event log")
    return found
