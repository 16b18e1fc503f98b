"""What the measurements of the designs amount to: tables, plots, and a verdict."""

from dataclasses import dataclass

from sixfold.core.html.page import Bar, Bars, Table
from sixfold.studies.lab.cluster import Cost
from sixfold.studies.lab.findings import Findings, megabytes, millions, percent, ratio, seconds, yes
from sixfold.studies.lab.long_lived import LongLived
from sixfold.studies.lab.loopnest.check import Verdict
from sixfold.studies.lab.loopnest.designs import DESIGNS
from sixfold.studies.lab.problem import Problem

LONG_LIVED = "long-lived job"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A design, checked and measured."""

    name: str
    small: Verdict  # every output of a few images, in float64, against the direct loop nest
    samples: Verdict  # samples of the full size against the definition
    right: bool  # whether all that was compared was right
    costs: list[Cost]  # of every timed run
    cost: Cost  # of the median run
    sent: int  # elements of input that were cut out for tasks, in that run
    replication: float  # the same, as a multiple of the input
    kernel_s: float  # time inside the kernels, over all tasks, in that run
    multiply_adds_a_task: float  # of the whole problem, divided by the tasks that compute

    def parts(self, slots: int, empty_s: float) -> tuple[float, float, float]:
        """Where the time went: kernels, starting jobs, and the rest, in seconds."""
        kernel_s = min(self.kernel_s / slots, self.cost.wall_s)
        jobs_s = min(self.cost.jobs * empty_s, self.cost.wall_s - kernel_s)
        return kernel_s, jobs_s, self.cost.wall_s - kernel_s - jobs_s


@dataclass(frozen=True, kw_only=True)
class LiteralRun:
    """The literal form of a design, run in part or at a small size."""

    name: str
    what: str  # was run
    right: Verdict  # its result against the direct loop nest
    cost: Cost
    records: int  # products that were made, one a record
    jobs_in_all: int  # at full size
    records_in_all: int  # at full size
    estimate_s: float  # time at full size
    extrapolated: bool = True


@dataclass(frozen=True, kw_only=True)
class LoopnestResult:
    """What the study has measured."""

    empty_job_s: float
    long_lived: LongLived
    multiply_adds: int  # of the whole problem
    designs: list[Measured]
    literal: list[LiteralRun]
    winner: str  # name of the fastest design


def summarize(problem: Problem, slots: int, result: LoopnestResult) -> Findings:
    """Findings of the study."""
    g, runs = problem.geometry, result.literal
    findings = Findings(
        title="The convolution's loops, divided on Spark",
        subtitle=f"{g.batch:,} images {g.channels}x{g.size[0]}x{g.size[1]}, kernel "
        f"{g.maps} {g.kernel[0]}x{g.kernel[1]}x{g.channels}, stride {g.stride}, padding "
        f"{g.padding}, dilation {g.dilation}: {millions(problem.multiply_adds)} million "
        "multiply-adds",
        right=all(m.right for m in result.designs) and all(r.right.right for r in runs),
        tables=[_table(slots, result)],
        bars=[_time_bars(slots, result)],
        verdict=_verdict(slots, result),
        result=result,
    )
    if runs:
        findings.tables.append(_literal_table(result))
        findings.bars.append(_all_bars(result))
        findings.notes.append(
            "The literal forms were not run at full size: their times there are extrapolated "
            "(design 1 by its number of jobs; 2 and 2b by their number of jobs and of records)."
        )
    return findings


def _table(slots: int, result: LoopnestResult) -> Table:
    base = result.long_lived
    first = (LONG_LIVED, seconds(base.forward_s), "1x", ratio(base.forward_s / base.step_s), "1x")
    rows: list[tuple[str, ...]] = [(*first, "0", "0", "0", "0", "", "", "")]
    for one in result.designs:
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
                percent(one.kernel_s, slots * cost.wall_s),
                yes(one.right),
            )
        )
    return Table(
        title="Designs at full size, in blocks",
        note="x forward, x step: times of the convolution, and of a whole training step, in the "
        f"long-lived job (step {seconds(base.step_s)} s). Replication: elements of input cut out "
        "for tasks, zeros around images included where they are sent, over those of the images. "
        "Kernel: part of all slots' time inside the kernels.",
        head=(
            *("design", "time s", "x forward", "x step", "replication", "shuffled MB"),
            *("broadcast MB", "jobs", "tasks", "M mult-adds/task", "kernel %", "right"),
        ),
        rows=rows,
    )


def _time_bars(slots: int, result: LoopnestResult) -> Bars:
    forward_s = result.long_lived.forward_s
    bars = [Bar(name=LONG_LIVED, parts=((forward_s, "compute"),), text=f"{forward_s:.3f} s")]
    colours = ("compute", "waiting", "communication")
    for one in sorted(result.designs, key=lambda m: m.cost.wall_s):
        name = f"design {one.name}" if one.name[0].isdigit() else one.name
        parts = tuple(zip(one.parts(slots, result.empty_job_s), colours, strict=True))
        bars.append(Bar(name=name, parts=parts, text=f"{one.cost.wall_s:.2f} s"))
    return Bars(
        title="Where the time goes",
        note="Seconds of wall time, median run. Kernels: their time divided by the slots. Jobs: "
        "their number times that of an empty job. The rest: pickling, shuffles, copies, waiting.",
        bars=bars,
        keys=tuple(zip(("kernels", "starting jobs", "moving numbers"), colours, strict=True)),
    )


def _literal_table(result: LoopnestResult) -> Table:
    rows = [
        (
            run.name,
            run.what,
            seconds(run.cost.wall_s),
            f"{1000 * run.cost.wall_s / run.cost.jobs:.0f}",
            f"{run.jobs_in_all:,}",
            f"{run.records_in_all:,}",
            seconds(run.estimate_s),
            ratio(run.estimate_s / result.long_lived.forward_s),
            yes(run.right.right),
        )
        for run in result.literal
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


def _all_bars(result: LoopnestResult) -> Bars:
    base_s = result.long_lived.forward_s
    found = [(LONG_LIVED, base_s, False)]
    found += [(f"{one.name}, in blocks", one.cost.wall_s, False) for one in result.designs]
    found += [(f"{run.name}, literally", run.estimate_s, True) for run in result.literal]
    return Bars(
        title="Time as a multiple of the convolution in the long-lived job",
        note="Logarithmic. Hatched: extrapolated.",
        bars=[
            Bar(name=name, parts=((s, "length"),), text=ratio(s / base_s), estimated=estimated)
            for name, s, estimated in sorted(found, key=lambda entry: entry[1])
        ],
        log=True,
    )


def _verdict(slots: int, result: LoopnestResult) -> list[str]:
    base_s, empty_s = result.long_lived.forward_s, result.empty_job_s
    order = sorted(result.designs, key=lambda m: m.cost.wall_s)
    best, worst = order[0], order[-1]
    lines = [
        f"{best.name} wins ({DESIGNS[best.name].what}): {best.cost.wall_s:.2f} s, "
        f"{ratio(best.cost.wall_s / base_s)} the convolution in the long-lived job. "
        + _reason(best, slots, empty_s)
    ]
    if worst is not best:
        lines.append(
            f"{worst.name} is the slowest: {worst.cost.wall_s:.2f} s, "
            f"{ratio(worst.cost.wall_s / best.cost.wall_s)} the best. "
            + _reason(worst, slots, empty_s)
        )
    lines += [
        f"Taken literally, design {run.name} makes {run.records_in_all:,} records in "
        f"{run.jobs_in_all:,} jobs: {seconds(run.estimate_s)} s (extrapolated), "
        f"{ratio(run.estimate_s / base_s)} the long-lived job."
        for run in result.literal
    ]
    lines.append(
        "The long-lived job wins over all of them because images, weights and results stay in "
        f"the ranks: no job is started for a step ({1000 * empty_s:.0f} ms each here), and nothing "
        "is pickled."
        if base_s < best.cost.wall_s
        else "At this size the long-lived job is not faster than the best design."
    )
    return lines


def _reason(one: Measured, slots: int, empty_s: float) -> str:
    kernel, jobs, moving = (part / one.cost.wall_s for part in one.parts(slots, empty_s))
    sent = (
        f"it sends the input {one.replication:.3g} times and shuffles "
        f"{megabytes(one.cost.shuffle_bytes)} MB"
        if one.cost.shuffle_bytes > 1e5
        else "it shuffles nothing"
    )
    return (
        f"Its kernels take {kernel:.0%} of the time, starting {one.cost.jobs:,} "
        f"job{'s' if one.cost.jobs > 1 else ''} {jobs:.0%}, moving numbers {moving:.0%}: {sent}."
    )
