"""`sixfold lab loopnest`: the designs, checked and measured beside the long-lived job."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable
from typing import Any

from sixfold.core.checks import unknown
from sixfold.studies.convolution import direct
from sixfold.studies.convolution.geometry import Geometry
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.config import LoopnestConfig, geometry_of, numbers
from sixfold.studies.lab.cost import Cost
from sixfold.studies.lab.findings import Findings
from sixfold.studies.lab.long_lived import long_lived
from sixfold.studies.lab.loopnest import literal
from sixfold.studies.lab.loopnest.blocks import Meters, Sizes
from sixfold.studies.lab.loopnest.check import (
    Verdict,
    assemble,
    compare,
    compare_samples,
    scale_of,
    take_samples,
)
from sixfold.studies.lab.loopnest.design import DESIGNS
from sixfold.studies.lab.loopnest.summary import LiteralRun, Measured, tell
from sixfold.studies.lab.problem import Problem
from sixfold.studies.lab.progress import Progress

Show = Callable[[str], None]


def problems(config: LoopnestConfig) -> list[str]:
    """What is wrong with the settings, one line each."""
    found: list[str] = []
    geometry_of(config.convolution, found)
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
    """Measure all designs; see the module."""
    geometry = geometry_of(config.convolution, [])
    assert geometry is not None
    problem = Problem(
        geometry=geometry, block=config.convolution.block, seed=config.convolution.seed
    )
    sizes = sizes_of(config, cluster.slots)
    names = list(dict.fromkeys(config.loopnest.designs.split(",")))
    empty_s = cluster.empty_job_s()
    show(f"an empty job of {cluster.slots} tasks takes {1000 * empty_s:.0f} ms")
    parts = Progress(len(names) + 3, show)
    parts.begin("the long-lived job")
    base = long_lived(cluster, problem, config.loopnest.repeats)
    show(
        f"long-lived job: forward {base.forward_s:.3f} s, whole step {base.step_s:.3f} s, "
        f"after a start of {base.start_s:.1f} s"
    )
    measured = []
    for name in names:
        parts.begin(f"design {name}, timed for {config.loopnest.seconds:g} s after a check")
        one = measure(cluster, problem, name, sizes, config)
        measured.append(one)
        show(f"design {name}: {one.cost.wall_s:.3f} s, {told_check(one)}")
    parts.begin("the designs as they were written down")
    runs = literal_runs(cluster, problem, names, config, empty_s, show)
    parts.begin("the long-lived job again")
    base = base.and_again(long_lived(cluster, problem, config.loopnest.repeats))
    return tell(problem, cluster, base, measured, runs, empty_s)


def told_check(one: Measured) -> str:
    """Whether a design was right, in words."""
    if one.small.right and one.samples.right:
        return (
            f"right: {one.small.compared:,} outputs as the direct loop nest's, "
            f"{one.samples.compared:,} samples at full size"
        )
    return f"WRONG: errors {one.small.error:.1e} (small), {one.samples.error:.1e} (full size)"


def sizes_of(config: LoopnestConfig, slots: int) -> Sizes:
    """Sizes of blocks from the settings."""
    options, found = config.loopnest, list[str]()
    a, b, c, d = numbers("--iterate", options.iterate, 4, found)
    tile = numbers("--tile", options.tile, 2, found)
    columns = max(part for part in range(1, math.isqrt(slots) + 1) if slots % part == 0)
    grid = numbers("--grid", options.grid or f"{slots // columns},{columns}", 2, found)
    return Sizes(
        iterate=(a, b, c, d),
        maps=options.map_channels,
        tile=(tile[0], tile[1]),
        grid=(grid[0], grid[1]),
    )


def measure(
    cluster: Cluster, problem: Problem, name: str, sizes: Sizes, config: LoopnestConfig
) -> Measured:
    """Check a design on a few images, then run it at full size until it has been timed enough."""
    small = check_whole(cluster, problem, name, sizes, config.loopnest.check_images)
    costs: list[Cost] = []
    readings: list[tuple[Cost, int, float]] = []
    verdict: Verdict | None = None
    while len(costs) < config.loopnest.repeats:
        meters = Meters.of(cluster.context)

        def action(meters: Meters = meters) -> list[Any]:
            told: list[Any] = []
            for outputs in DESIGNS[name].run(cluster, problem, sizes, meters):
                told += outputs.map(take_samples).collect()
            return told

        told, cost = cluster.measured(f"design {name}", action)
        found = compare_samples(problem, told, scale_of(problem))
        verdict = found if verdict is None or not found.right else verdict
        costs.append(cost)
        readings.append((cost, meters.sent.value, meters.kernel_s.value))
        if sum(cost.wall_s for cost in costs) > config.loopnest.seconds:
            break
    assert verdict is not None
    middle = statistics.median_low(cost.wall_s for cost in costs)
    cost, sent, kernel_s = next(reading for reading in readings if reading[0].wall_s == middle)
    return Measured(
        name=name,
        small=small,
        samples=verdict,
        costs=costs,
        cost=cost,
        sent=sent,
        replication=sent / problem.pixels,
        kernel_s=kernel_s,
        multiply_adds_a_task=problem.multiply_adds / computing_tasks(cluster, cost),
    )


def computing_tasks(cluster: Cluster, cost: Cost) -> int:
    """Tasks in which products are made: one stage of every job."""
    return max(1, min(cost.tasks, cost.jobs * cluster.partitions))


def check_whole(
    cluster: Cluster, problem: Problem, name: str, sizes: Sizes, images: int
) -> Verdict:
    """Every output of a few images in float64, one image a block, against the direct loop nest."""
    geometry = dataclasses.replace(problem.geometry, batch=min(images, problem.geometry.batch))
    few = Problem(geometry=geometry, block=1, seed=problem.seed, dtype="float64")
    wanted = direct.forward(few.all_images(), few.weights(), geometry)

    def action() -> list[Any]:
        meters = Meters.of(cluster.context)
        runs = DESIGNS[name].run(cluster, few, sizes, meters)
        return [block for outputs in runs for block in outputs.collect()]

    blocks, _ = cluster.measured(f"design {name}, few images", action)
    outputs, complete = assemble(few, blocks)
    return compare(outputs, wanted, scale_of(few), few.dtype, complete=complete)


def literal_runs(
    cluster: Cluster,
    problem: Problem,
    names: list[str],
    config: LoopnestConfig,
    empty_s: float,
    show: Show,
) -> list[LiteralRun]:
    """The literal forms of those designs that have one."""
    options = config.loopnest
    runs: list[LiteralRun] = []
    if not options.literal_jobs:
        return runs
    if "1" in names:
        runs.append(_literal1(cluster, problem, options.literal_jobs))
    small = shrunk(problem, numbers("", options.literal_outputs, 2, []))
    wanted = direct.forward(small.all_images(), small.weights(), small.geometry)
    for name, run, jobs in (
        ("2", literal.literal2, 1),
        ("2b", literal.literal2b, literal.jobs_of_design2b(problem)),
    ):
        if name in names:
            runs.append(
                _literal_small(problem, small, name, run(cluster, small, wanted), jobs, empty_s)
            )
    for one in runs:
        state = "right" if one.right.right else f"WRONG: error {one.right.error:.1e}"
        show(f"design {one.name}, literally: {one.what} in {one.run.cost.wall_s:.2f} s, {state}")
    return runs


def _literal1(cluster: Cluster, problem: Problem, limit: int) -> LiteralRun:
    """Some of design 1's jobs at full size."""
    jobs = literal.jobs_of_design1(problem)
    literal.literal1(cluster, problem, 2)  # the images are made in the workers
    run = literal.literal1(cluster, problem, limit)
    right = compare(run.outputs, run.wanted, scale_of(problem), problem.dtype, complete=True)
    done = run.cost.jobs
    return LiteralRun(
        name="1",
        what=f"{done:,} of {jobs:,} jobs",
        right=right,
        run=run,
        jobs_in_all=jobs,
        records_in_all=jobs * problem.geometry.maps * problem.geometry.channels,
        estimate_s=run.cost.wall_s / done * jobs,
    )


def _literal_small(
    problem: Problem,
    small: Problem,
    name: str,
    run: literal.Literal,
    jobs: int,
    empty_s: float,
) -> LiteralRun:
    """A whole literal run of a small problem, extrapolated: time of jobs, and time of records."""
    rows, columns = small.geometry.out
    record_s = max(run.cost.wall_s - run.cost.jobs * empty_s, 0.0) / run.records
    return LiteralRun(
        name=name,
        what=f"{run.records:,} records in {run.cost.jobs:,} jobs ({rows}x{columns} outputs)",
        right=compare(run.outputs, run.wanted, scale_of(small), small.dtype, complete=True),
        run=run,
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
    geometry: Geometry = dataclasses.replace(g, batch=1, size=(size[0], size[1]))
    return Problem(geometry=geometry, block=1, seed=problem.seed, dtype="float64")
