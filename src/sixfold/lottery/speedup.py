"""How much faster the search is on many workers: expected before the members run, and measured.

With T1 the time that one worker would need for everything, TW the time that W workers need,

    S = T1 / TW        E = S / W

TW is the dense run on all W workers, then the members on single ones, as
`sixfold.distributed.tasks.makespan` plays it through (Amdahl: what does not divide, here the dense
run's own loss and the last members that run while other workers are idle, bounds S). T1 is expected
from the dense run's own steps: the seconds that its ranks spent on computing, reading and updating,
added up.

Measured, T1 is the dense run's share plus the seconds that members took while W of them ran side
by side. Where cores share memory and caches these are more than one worker alone would need, which
flatters S; `docs/tickets.md` has the comparison that does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.run_directory import read_json_lines
from sixfold.distributed.tasks import Outcome, Task, makespan


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """S and E of a search; what follows the blank line is known of one that has run."""

    one_worker_s: float  # T1
    all_workers_s: float  # TW
    speedup: float
    efficiency: float
    job_s: float = 0.0  # of the members

    busy_s: float | None = None  # that workers spent on members
    members_busy: float | None = None  # the same as a part of all workers' time
    overhead_per_member_s: float | None = None

    @classmethod
    def of(cls, one_s: float, many_s: float, workers: int, **more: float) -> Speedup:
        """From T1 and TW."""
        speedup = one_s / many_s
        return cls(
            one_worker_s=one_s,
            all_workers_s=many_s,
            speedup=speedup,
            efficiency=speedup / workers,
            **more,
        )


def dense_work_s(run: Path) -> float:
    """Seconds that one worker would need for the steps of a training, its ranks' work added up."""
    total = 0.0
    for path in sorted((run / "timeline").glob("rank-*.jsonl")):
        for line in read_json_lines(path):
            total += line.get("compute_s", 0.0) + line.get("data_s", 0.0)
            if path.name == "rank-0000.jsonl":  # every rank makes the whole update
                total += line.get("update_s", 0.0)
    return total


def expected(
    members: Sequence[Task], *, step_s: float, dense_s: float, dense_work: float, workers: int
) -> Speedup:
    """S and E of the whole search before any member has run; `dense_work` is one worker's."""
    seconds = {member.name: member.cost * step_s for member in members}
    job_s = makespan(members, seconds, workers)
    return Speedup.of(dense_work + sum(seconds.values()), dense_s + job_s, workers, job_s=job_s)


def measured(outcome: Outcome, *, dense_s: float, dense_work: float, workers: int) -> Speedup:
    """The same from what has happened; of the members that this run of the job has done."""
    done = len({r["identity"] for n, r in outcome.records.items() if n not in outcome.done_before})
    return Speedup.of(
        dense_work + outcome.busy_s,
        dense_s + outcome.wall_s,
        workers,
        job_s=outcome.wall_s,
        busy_s=outcome.busy_s,
        members_busy=outcome.busy_s / (outcome.wall_s * workers),
        overhead_per_member_s=(outcome.wall_s * workers - outcome.busy_s) / max(done, 1),
    )
