"""What the measurements of a job for every step amount to: a table, plots, and a verdict."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.config import JobPerStepConfig
from sixfold.studies.lab.cost import Cost
from sixfold.studies.lab.findings import Bar, Bars, Findings, Table, ratio


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


def tell(
    cluster: Cluster, config: JobPerStepConfig, measured: list[MeasuredBatch], empty_s: float
) -> Findings:
    """Findings of the study."""
    options = config.job_per_step
    findings = Findings(
        title="One Spark job for every step",
        subtitle=f"{options.model} on {options.data}, {options.steps} steps of SGD",
    )
    findings.right = all(one.right for one in measured)
    findings.tables = [_table(cluster, measured)]
    findings.bars = [_bars(cluster, one) for one in measured]
    findings.verdict = _verdict(cluster, measured, empty_s)
    findings.data = {
        "empty_job_s": empty_s,
        "batches": [dataclasses.asdict(one) for one in measured],
    }
    return findings


def _parts(cluster: Cluster, one: MeasuredBatch) -> tuple[float, float, float]:
    """Of the median step by jobs: kernels, the rest of the tasks, and what is outside of tasks."""
    kernel_s = one.kernel_s / cluster.slots
    task_s = max(one.cost.run_s / cluster.slots - kernel_s, 0.0)
    whole_s = one.cost.wall_s + one.update_s
    return kernel_s, task_s, max(whole_s - kernel_s - task_s, 0.0)


def _table(cluster: Cluster, measured: list[MeasuredBatch]) -> Table:
    rows = []
    for one in measured:
        _, task_s, outside_s = _parts(cluster, one)
        rows.append(
            (
                f"{one.batch:,}",
                _ms(one.serial_s),
                _ms(one.long_lived_s),
                _ms(one.by_jobs_s),
                ratio(one.by_jobs_s / one.long_lived_s),
                f"{one.batch / one.long_lived_s:,.0f}",
                f"{one.batch / one.by_jobs_s:,.0f}",
                _ms(one.delay_s),
                _ms(outside_s),
                _ms(task_s),
                _ms(one.kernel_s / cluster.slots),
                "yes" if one.right else "NO",
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


def _bars(cluster: Cluster, one: MeasuredBatch) -> Bars:
    kernel_s, task_s, outside_s = _parts(cluster, one)
    return Bars(
        title=f"A step of {one.batch:,} images",
        note="Milliseconds; of the job, the median step.",
        bars=[
            Bar(name="serial", parts=((one.serial_s, "compute"),), text=_ms(one.serial_s)),
            Bar(
                name="long-lived job",
                parts=((one.long_lived_s, "compute"),),
                text=_ms(one.long_lived_s),
            ),
            Bar(
                name="job per step",
                parts=((kernel_s, "compute"), (task_s, "data"), (outside_s, "waiting")),
                text=_ms(one.by_jobs_s),
            ),
        ],
        keys=(
            ("computing", "compute"),
            ("tasks besides", "data"),
            ("outside tasks: scheduling, results, update", "waiting"),
        ),
    )


def _verdict(cluster: Cluster, measured: list[MeasuredBatch], empty_s: float) -> list[str]:
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
    fixed_s = last.by_jobs_s - last.kernel_s / cluster.slots
    per_image_s = last.kernel_s / cluster.slots / last.batch
    if fixed_s > 0 and per_image_s > 0:
        lines.append(
            f"What a job costs besides computing, {_ms(fixed_s)} ms at batch {last.batch:,}, would "
            f"be a tenth of a step at about {9 * fixed_s / per_image_s:,.0f} images "
            "(extrapolated from the largest batch measured)."
        )
    return lines
