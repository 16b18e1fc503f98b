"""What the measurements of the designs amount to: tables, plots, and a verdict."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.cost import Cost
from sixfold.studies.lab.findings import (
    Bar,
    Bars,
    Findings,
    Table,
    megabytes,
    millions,
    ratio,
    seconds,
)
from sixfold.studies.lab.long_lived import LongLived
from sixfold.studies.lab.loopnest.check import Verdict
from sixfold.studies.lab.loopnest.design import DESIGNS
from sixfold.studies.lab.loopnest.literal import Literal
from sixfold.studies.lab.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A design, checked and measured."""

    name: str  # of the design
    small: Verdict  # every output of a few images, in float64, against the direct loop nest
    samples: Verdict  # samples of the full size against the definition
    costs: list[Cost]  # of every timed run
    cost: Cost  # of the median run
    sent: int  # elements of input that were cut out for tasks, in that run
    replication: float  # the same, as a multiple of the input
    kernel_s: float  # time inside the kernels, over all tasks, in that run
    multiply_adds_a_task: float  # of the whole problem, divided by the tasks that compute

    @property
    def right(self) -> bool:
        """Whether all that was compared was right."""
        return self.small.right and self.samples.right

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self) | {"right": self.right}


@dataclass(frozen=True, kw_only=True)
class LiteralRun:
    """The literal form of a design, run in part or at a small size."""

    name: str
    what: str  # what was run
    right: Verdict  # its result against the direct loop nest
    run: Literal
    jobs_in_all: int  # jobs at full size
    records_in_all: int  # products at full size, each a record
    estimate_s: float  # time at full size, extrapolated

    def as_data(self) -> dict[str, Any]:
        """Plain data; the outputs themselves are left out."""
        return {
            "name": self.name,
            "what": self.what,
            "right": dataclasses.asdict(self.right),
            "cost": dataclasses.asdict(self.run.cost),
            "records": self.run.records,
            "jobs_in_all": self.jobs_in_all,
            "records_in_all": self.records_in_all,
            "estimate_s": self.estimate_s,
            "extrapolated": True,
        }


LONG_LIVED = "long-lived job"

_HEAD = (
    "design",
    "time s",
    "x forward",
    "x step",
    "replication",
    "shuffled MB",
    "broadcast MB",
    "jobs",
    "tasks",
    "M mult-adds/task",
    "kernel %",
    "right",
)


def tell(
    problem: Problem,
    cluster: Cluster,
    base: LongLived,
    measured: list[Measured],
    runs: list[LiteralRun],
    empty_s: float,
) -> Findings:
    """Findings of the study."""
    g = problem.geometry
    findings = Findings(
        title="The convolution's loops, divided on Spark",
        subtitle=f"{g.batch:,} images {g.channels}x{g.size[0]}x{g.size[1]}, kernel "
        f"{g.maps} {g.kernel[0]}x{g.kernel[1]}x{g.channels}, stride {g.stride}, padding "
        f"{g.padding}, dilation {g.dilation}: {millions(problem.multiply_adds)} million "
        "multiply-adds",
    )
    findings.right = all(m.right for m in measured) and all(r.right.right for r in runs)
    findings.tables = [_table(cluster, base, measured)]
    findings.bars = [_time_bars(cluster, base, measured, empty_s)]
    if runs:
        findings.tables.append(_literal_table(base, runs))
        findings.bars.append(_all_bars(base, measured, runs))
        findings.notes.append(
            "The literal forms were not run at full size: their times there are extrapolated "
            "(design 1 by its number of jobs; 2 and 2b by their number of jobs and of records)."
        )
    findings.verdict = _verdict(cluster, base, measured, runs, empty_s)
    findings.data = {
        "empty_job_s": empty_s,
        "long_lived": base.as_data(),
        "multiply_adds": problem.multiply_adds,
        "designs": [m.as_data() for m in measured],
        "literal": [r.as_data() for r in runs],
        "winner": min(measured, key=lambda m: m.cost.wall_s).name,
    }
    return findings


def _table(cluster: Cluster, base: LongLived, measured: list[Measured]) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            *(LONG_LIVED, seconds(base.forward_s), "1x", ratio(base.forward_s / base.step_s)),
            *("1x", "0", "0", "0", "0", "", "", ""),
        )
    ]
    for one in measured:
        cost = one.cost
        rows.append(
            (
                one.name,
                seconds(cost.wall_s),
                ratio(cost.wall_s / base.forward_s),
                ratio(cost.wall_s / base.step_s),
                ratio(one.replication),
                megabytes(cost.shuffle_bytes),
                megabytes(cost.broadcast_bytes),
                f"{cost.jobs:,}",
                f"{cost.tasks:,}",
                millions(one.multiply_adds_a_task),
                f"{100 * _kernel_part(cluster, one):.0f}",
                "yes" if one.right else "NO",
            )
        )
    return Table(
        title="Designs at full size, in blocks",
        note="x forward, x step: times of the convolution, and of a whole training step, in the "
        f"long-lived job (step {seconds(base.step_s)} s). Replication: elements of input cut out "
        "for tasks, zeros around images included where they are sent, over those of the images. "
        "Kernel: part of all slots' time inside the kernels.",
        head=_HEAD,
        rows=rows,
    )


def _kernel_part(cluster: Cluster, one: Measured) -> float:
    return one.kernel_s / (cluster.slots * one.cost.wall_s)


def _parts(cluster: Cluster, one: Measured, empty_s: float) -> tuple[float, float, float]:
    """Where a design's time went: kernels, starting jobs, and the rest, in seconds."""
    wall_s = one.cost.wall_s
    kernel_s = min(one.kernel_s / cluster.slots, wall_s)
    jobs_s = min(one.cost.jobs * empty_s, wall_s - kernel_s)
    return kernel_s, jobs_s, wall_s - kernel_s - jobs_s


def _time_bars(cluster: Cluster, base: LongLived, measured: list[Measured], empty_s: float) -> Bars:
    bars = [
        Bar(name=LONG_LIVED, parts=((base.forward_s, "compute"),), text=f"{base.forward_s:.3f} s")
    ]
    for one in sorted(measured, key=lambda m: m.cost.wall_s):
        kernel_s, jobs_s, rest_s = _parts(cluster, one, empty_s)
        bars.append(
            Bar(
                name=f"design {one.name}" if one.name[0].isdigit() else one.name,
                parts=((kernel_s, "compute"), (jobs_s, "waiting"), (rest_s, "communication")),
                text=f"{one.cost.wall_s:.2f} s",
            )
        )
    return Bars(
        title="Where the time goes",
        note="Seconds of wall time, median run. Kernels: their time divided by the slots. Jobs: "
        "their number times that of an empty job. The rest: pickling, shuffles, copies, waiting.",
        bars=bars,
        keys=(
            ("kernels", "compute"),
            ("starting jobs", "waiting"),
            ("moving numbers", "communication"),
        ),
    )


def _literal_table(base: LongLived, runs: list[LiteralRun]) -> Table:
    rows = [
        (
            run.name,
            run.what,
            seconds(run.run.cost.wall_s),
            f"{1000 * run.run.cost.wall_s / run.run.cost.jobs:.0f}",
            f"{run.jobs_in_all:,}",
            f"{run.records_in_all:,}",
            seconds(run.estimate_s),
            ratio(run.estimate_s / base.forward_s),
            "yes" if run.right.right else "NO",
        )
        for run in runs
    ]
    return Table(
        title="Literal forms: extrapolated to full size",
        note="What was run, and what the whole would take; a record is a product, of design 1 a "
        "vector over the images.",
        head=(
            *("design", "run", "s", "ms/job", "jobs in all", "records in all"),
            *("s in all (extrapolated)", "x forward", "right"),
        ),
        rows=rows,
    )


def _all_bars(base: LongLived, measured: list[Measured], runs: list[LiteralRun]) -> Bars:
    found = [(LONG_LIVED, base.forward_s, False)]
    found += [(f"{one.name}, in blocks", one.cost.wall_s, False) for one in measured]
    found += [(f"{run.name}, literally", run.estimate_s, True) for run in runs]
    return Bars(
        title="Time as a multiple of the convolution in the long-lived job",
        note="Logarithmic. Hatched: extrapolated.",
        bars=[
            Bar(
                name=name,
                parts=((value, "length"),),
                text=ratio(value / base.forward_s),
                estimated=estimated,
            )
            for name, value, estimated in sorted(found, key=lambda entry: entry[1])
        ],
        log=True,
    )


def _verdict(
    cluster: Cluster,
    base: LongLived,
    measured: list[Measured],
    runs: list[LiteralRun],
    empty_s: float,
) -> list[str]:
    order = sorted(measured, key=lambda m: m.cost.wall_s)
    best, worst = order[0], order[-1]
    lines = [
        f"{best.name} wins ({DESIGNS[best.name].what}): {best.cost.wall_s:.2f} s, "
        f"{ratio(best.cost.wall_s / base.forward_s)} the convolution in the long-lived job. "
        + _reason(cluster, best, empty_s)
    ]
    if worst is not best:
        lines.append(
            f"{worst.name} is the slowest: {worst.cost.wall_s:.2f} s, "
            f"{ratio(worst.cost.wall_s / best.cost.wall_s)} the best. "
            + _reason(cluster, worst, empty_s)
        )
    lines += [
        f"Taken literally, design {run.name} makes {run.records_in_all:,} records in "
        f"{run.jobs_in_all:,} jobs: {seconds(run.estimate_s)} s (extrapolated), "
        f"{ratio(run.estimate_s / base.forward_s)} the long-lived job."
        for run in runs
    ]
    lines.append(
        "The long-lived job wins over all of them because images, weights and results stay in "
        f"the ranks: no job is started for a step ({1000 * empty_s:.0f} ms each here), and nothing "
        "is pickled."
        if base.forward_s < best.cost.wall_s
        else "At this size the long-lived job is not faster than the best design."
    )
    return lines


def _reason(cluster: Cluster, one: Measured, empty_s: float) -> str:
    """Where a design's time went, in a sentence."""
    parts = dict(zip(("kernel", "jobs", "moving"), _parts(cluster, one, empty_s), strict=True))
    share = {name: value / one.cost.wall_s for name, value in parts.items()}
    sent = (
        f"it sends the input {one.replication:.3g} times and shuffles "
        f"{megabytes(one.cost.shuffle_bytes)} MB"
        if one.cost.shuffle_bytes > 1e5
        else "it shuffles nothing"
    )
    return (
        f"Its kernels take {share['kernel']:.0%} of the time, starting {one.cost.jobs:,} "
        f"job{'s' if one.cost.jobs > 1 else ''} {share['jobs']:.0%}, moving numbers "
        f"{share['moving']:.0%}: {sent}."
    )
