"""`sixfold lab loopnest`: the designs, checked and measured beside the long-lived job."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from sixfold.core.checks import unknown
from sixfold.core.errors import problems_of
from sixfold.studies.convolution import direct
from sixfold.studies.lab.blocks import take_samples
from sixfold.studies.lab.cluster import Cluster, Cost
from sixfold.studies.lab.config import LoopnestConfig, geometry_of, numbers
from sixfold.studies.lab.findings import Findings
from sixfold.studies.lab.long_lived import long_lived
from sixfold.studies.lab.loopnest import literal
from sixfold.studies.lab.loopnest.check import Verdict, assemble, compare, compare_samples
from sixfold.studies.lab.loopnest.designs import DESIGNS, Meters, Sizes
from sixfold.studies.lab.loopnest.summary import LiteralRun, LoopnestResult, Measured, summarize
from sixfold.studies.lab.problem import Problem, problem_of
from sixfold.studies.lab.run import Progress, Show, repeated


def problems(config: LoopnestConfig) -> list[str]:
    """What is wrong with the settings, one line each."""
    found = problems_of(lambda: geometry_of(config.convolution))
    options = config.loopnest
    for name in options.designs.split(","):
        if name not in DESIGNS:
            found.append(unknown("design", name, DESIGNS))
    numbers("--iterate", options.iterate, 4, found)
    numbers("--tile", options.tile, 2, found)
    numbers("--literal-outputs", options.literal_outputs, 2, found, least=1)
    if options.grid:
        numbers("--grid", options.grid, 2, found, least=1)
    return found


def study(cluster: Cluster, config: LoopnestConfig, show: Show) -> Findings:
    """Measure all designs."""
    problem = problem_of(config.convolution)
    options = config.loopnest
    names = list(dict.fromkeys(options.designs.split(",")))
    empty_s = cluster.empty_job_s()
    show(f"an empty job of {cluster.slots} tasks takes {1000 * empty_s:.0f} ms")
    parts = Progress(len(names) + 3, show)
    parts.begin("the long-lived job")
    base = long_lived(cluster, problem, options.repeats)
    show(
        f"long-lived job: forward {base.forward_s:.3f} s, whole step {base.step_s:.3f} s, "
        f"after a start of {base.start_s:.1f} s"
    )
    measured = []
    for name in names:
        parts.begin(f"design {name}, timed for {options.seconds:g} s after a check")
        one = measure(cluster, problem, name, config)
        measured.append(one)
        show(f"design {name}: {one.cost.wall_s:.3f} s, {_checked(one)}")
    parts.begin("the designs as they were written down")
    runs = []
    for run in literal_runs(cluster, problem, names, config, empty_s):
        runs.append(run)
        state = "right" if run.right.right else f"WRONG: error {run.right.error:.1e}"
        show(f"design {run.name}, literally: {run.what} in {run.cost.wall_s:.2f} s, {state}")
    parts.begin("the long-lived job again")
    base = base.and_again(long_lived(cluster, problem, options.repeats))
    result = LoopnestResult(
        empty_job_s=empty_s,
        long_lived=base,
        multiply_adds=problem.multiply_adds,
        designs=measured,
        literal=runs,
        winner=min(measured, key=lambda one: one.cost.wall_s).name,
    )
    return summarize(problem, cluster.slots, result)


def _checked(one: Measured) -> str:
    if one.right:
        return (
            f"right: {one.small.compared:,} outputs as the direct loop nest's, "
            f"{one.samples.compared:,} samples at full size"
        )
    return f"WRONG: errors {one.small.error:.1e} (small), {one.samples.error:.1e} (full size)"


def sizes_of(config: LoopnestConfig, slots: int) -> Sizes:
    """Sizes of blocks from the settings."""
    options, found = config.loopnest, list[str]()
    a, b, c, d = numbers("--iterate", options.iterate, 4, found)
    rows, columns = numbers("--tile", options.tile, 2, found)
    across = max(part for part in range(1, math.isqrt(slots) + 1) if slots % part == 0)
    down, right = numbers("--grid", options.grid or f"{slots // across},{across}", 2, found)
    return Sizes(
        iterate=(a, b, c, d), maps=options.map_channels, tile=(rows, columns), grid=(down, right)
    )


def measure(cluster: Cluster, problem: Problem, name: str, config: LoopnestConfig) -> Measured:
    """Check a design on a few images, then run it at full size until it has been timed enough."""
    options, sizes = config.loopnest, sizes_of(config, cluster.slots)
    small = check_whole(cluster, problem, name, sizes, options.check_images)
    verdicts: list[Verdict] = []

    def run() -> tuple[Cost, Meters]:
        meters = Meters.of(cluster.context)
        blocks = DESIGNS[name].run(cluster, problem, sizes, meters)
        sampled, cost = cluster.measured(
            f"design {name}",
            lambda: [one for rdd in blocks for one in rdd.map(take_samples).collect()],
        )
        verdicts.append(compare_samples(problem, sampled))
        return cost, meters

    runs, (cost, meters) = repeated(
        run, lambda one: one[0].wall_s, repeats=options.repeats, seconds=options.seconds, warm_up=0
    )
    samples = next((verdict for verdict in verdicts if not verdict.right), verdicts[0])
    # One stage of every job makes products.
    computing = max(1, min(cost.tasks, cost.jobs * cluster.partitions))
    return Measured(
        name=name,
        small=small,
        samples=samples,
        right=small.right and samples.right,
        costs=[one for one, _ in runs],
        cost=cost,
        sent=meters.sent.value,
        replication=meters.sent.value / problem.pixels,
        kernel_s=meters.kernel_s.value,
        multiply_adds_a_task=problem.multiply_adds / computing,
    )


def check_whole(
    cluster: Cluster, problem: Problem, name: str, sizes: Sizes, images: int
) -> Verdict:
    """Every output of a few images in float64, one image a block, against the direct loop nest."""
    geometry = dataclasses.replace(problem.geometry, batch=min(images, problem.geometry.batch))
    few = Problem(geometry=geometry, block=1, seed=problem.seed, dtype="float64")
    wanted = direct.forward(few.all_images(), few.weights(), geometry)

    def action() -> list[Any]:
        runs = DESIGNS[name].run(cluster, few, sizes, Meters.of(cluster.context))
        return [block for outputs in runs for block in outputs.collect()]

    blocks, _ = cluster.measured(f"design {name}, few images", action)
    outputs, complete = assemble(few, blocks)
    return compare(few, outputs, wanted, complete=complete)


def literal_runs(
    cluster: Cluster, problem: Problem, names: list[str], config: LoopnestConfig, empty_s: float
) -> Iterator[LiteralRun]:
    """The literal forms of those designs that have one."""
    options = config.loopnest
    if not options.literal_jobs:
        return
    if "1" in names:
        yield _literal1(cluster, problem, options.literal_jobs)
    small = shrunk(problem, numbers("", options.literal_outputs, 2, []))
    wanted = direct.forward(small.all_images(), small.weights(), small.geometry)
    if "2" in names:
        run = literal.literal2(cluster, small, wanted)
        yield _literal_small(problem, small, "2", run, 1, empty_s)
    if "2b" in names:
        run = literal.literal2b(cluster, small, wanted)
        jobs = literal.jobs_of_design2b(problem)
        yield _literal_small(problem, small, "2b", run, jobs, empty_s)


def _literal1(cluster: Cluster, problem: Problem, limit: int) -> LiteralRun:
    jobs = literal.jobs_of_design1(problem)
    literal.literal1(cluster, problem, 2)  # the images are made in the workers
    run = literal.literal1(cluster, problem, limit)
    done = run.cost.jobs
    return LiteralRun(
        name="1",
        what=f"{done:,} of {jobs:,} jobs",
        right=compare(problem, run.outputs, run.wanted),
        cost=run.cost,
        records=run.records,
        jobs_in_all=jobs,
        records_in_all=jobs * problem.geometry.maps * problem.geometry.channels,
        estimate_s=run.cost.wall_s / done * jobs,
    )


def _literal_small(
    problem: Problem, small: Problem, name: str, run: literal.Literal, jobs: int, empty_s: float
) -> LiteralRun:
    """A whole literal run of a small problem, extrapolated: time of jobs, and time of records."""
    rows, columns = small.geometry.out
    record_s = max(run.cost.wall_s - run.cost.jobs * empty_s, 0.0) / run.records
    return LiteralRun(
        name=name,
        what=f"{run.records:,} records in {run.cost.jobs:,} jobs ({rows}x{columns} outputs)",
        right=compare(small, run.outputs, run.wanted),
        cost=run.cost,
        records=run.records,
        jobs_in_all=jobs,
        records_in_all=problem.multiply_adds,
        estimate_s=jobs * empty_s + record_s * problem.multiply_adds,
    )


def shrunk(problem: Problem, outputs: list[int]) -> Problem:
    """One image, cut down to so many rows and columns of outputs, in float64."""
    g = problem.geometry
    size = []
    for dim in (0, 1):
        wanted = min(outputs[dim], g.out[dim])
        reach = (wanted - 1) * g.stride[dim] + (g.kernel[dim] - 1) * g.dilation[dim] + 1
        size.append(max(1, reach - 2 * g.padding[dim]))
    geometry = dataclasses.replace(g, batch=1, size=(size[0], size[1]))
    return Problem(geometry=geometry, block=1, seed=problem.seed, dtype="float64")
