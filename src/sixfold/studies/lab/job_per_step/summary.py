"""What the measurements of a job for every step amount to: a table, plots, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.core.html.page import Bar, Bars, Table
from sixfold.studies.lab.cluster import Cost
from sixfold.studies.lab.config import JobPerStepOptions
from sixfold.studies.lab.findings import Findings, ratio, yes


@dataclass(frozen=True, kw_only=True)
class MeasuredBatch:
    """The same training in three ways at a batch size; times are of a step, in seconds."""

    batch: int  # images a step
    by_jobs_s: float  # one job a step, median
    long_lived_s: float
    serial_s: float  # by one worker in this process
    cost: Cost  # of the median step's job
    kernel_s: float  # time of computing shards in that job, over all tasks
    update_s: float  # time of the driver's sum and update in that step
    steps: list[float]  # times of all timed steps by jobs
    delay_s: float  # scheduler delay of a task, median
    right: bool  # whether all three ended with the same weights, bit for bit
    weights_sha256: list[str]  # of the weights, each hash once

    def parts(self, slots: int) -> tuple[float, float, float]:
        """Of the median step by jobs: kernels, the rest of the tasks, what is outside of tasks."""
        kernel_s = self.kernel_s / slots
        task_s = max(self.cost.run_s / slots - kernel_s, 0.0)
        whole_s = self.cost.wall_s + self.update_s
        return kernel_s, task_s, max(whole_s - kernel_s - task_s, 0.0)


@dataclass(frozen=True, kw_only=True)
class JobPerStepResult:
    """What the study has measured."""

    empty_job_s: float
    batches: list[MeasuredBatch]


def tell(slots: int, options: JobPerStepOptions, result: JobPerStepResult) -> Findings:
    """Findings of the study."""
    measured = result.batches
    return Findings(
        title="One Spark job for every step",
        subtitle=f"{options.model} on {options.data}, {options.steps} steps of SGD",
        right=all(one.right for one in measured),
        tables=[_table(slots, measured)],
        bars=[_bars(slots, one) for one in measured],
        verdict=_verdict(slots, measured, result.empty_job_s),
        result=result,
    )


def _table(slots: int, measured: list[MeasuredBatch]) -> Table:
    rows = []
    for one in measured:
        kernel_s, task_s, outside_s = one.parts(slots)
        rows.append(
            (
                f"{one.batch:,}",
                *map(_ms, (one.serial_s, one.long_lived_s, one.by_jobs_s)),
                ratio(one.by_jobs_s / one.long_lived_s),
                f"{one.batch / one.long_lived_s:,.0f}",
                f"{one.batch / one.by_jobs_s:,.0f}",
                *map(_ms, (one.delay_s, outside_s, task_s, kernel_s)),
                yes(one.right),
            )
        )
    return Table(
        title="Time of a step",
        note="Milliseconds. Scheduler delay: of a task, as Spark tells it. Outside tasks: of the "
        "step's time, what is no task's, on the average over slots: scheduling, results, the "
        "driver's sum and update. In tasks: reading broadcast and data, pickling. Equal: all three "
        "trainings ended with the same weights, bit for bit.",
        head=(
            *("batch", "serial", "long-lived", "job per step", "ratio", "long-lived images/s"),
            *("job images/s", "delay/task", "outside tasks", "in tasks", "kernels", "equal"),
        ),
        rows=rows,
    )


def _ms(value_s: float) -> str:
    value = 1000 * value_s
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _bars(slots: int, one: MeasuredBatch) -> Bars:
    kernel_s, task_s, outside_s = one.parts(slots)
    parts: dict[str, tuple[float, tuple[tuple[float, str], ...]]] = {
        "serial": (one.serial_s, ((one.serial_s, "compute"),)),
        "long-lived job": (one.long_lived_s, ((one.long_lived_s, "compute"),)),
        "job per step": (
            one.by_jobs_s,
            ((kernel_s, "compute"), (task_s, "data"), (outside_s, "waiting")),
        ),
    }
    return Bars(
        title=f"A step of {one.batch:,} images",
        note="Milliseconds; of the job, the median step.",
        bars=[Bar(name=name, parts=own, text=_ms(s)) for name, (s, own) in parts.items()],
        keys=(
            ("computing", "compute"),
            ("tasks besides", "data"),
            ("outside tasks: scheduling, results, update", "waiting"),
        ),
    )


def _verdict(slots: int, measured: list[MeasuredBatch], empty_s: float) -> list[str]:
    lines = []
    for one in measured:
        extra_s = one.by_jobs_s - one.long_lived_s
        winner = "the long-lived job wins" if extra_s > 0 else "a job per step wins"
        lines.append(
            f"Batch {one.batch:,}: {winner}; a job per step takes "
            f"{ratio(one.by_jobs_s / one.long_lived_s)} its time, {_ms(extra_s)} ms more, of which "
            f"starting and ending a job that does nothing is {_ms(empty_s)} ms."
        )
    last = measured[-1]
    fixed_s = last.by_jobs_s - last.kernel_s / slots
    per_image_s = last.kernel_s / slots / last.batch
    if fixed_s > 0 and per_image_s > 0:
        lines.append(
            f"What a job costs besides computing, {_ms(fixed_s)} ms at batch {last.batch:,}, would "
            f"be a tenth of a step at about {9 * fixed_s / per_image_s:,.0f} images "
            "(extrapolated from the largest batch measured)."
        )
    return lines
