"""`sixfold lab activations`: what it costs to keep activations anywhere but where they are."""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sixfold.core.checks import unknown
from sixfold.core.errors import problems_of
from sixfold.core.html.page import Bar, Bars, Table
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.activations import redis_server as redis
from sixfold.studies.lab.activations.halves import Halves
from sixfold.studies.lab.activations.stores import FileStore, RedisStore, Store, folder_problem
from sixfold.studies.lab.activations.ways import (
    Meters,
    Passed,
    of_a_step,
    same_worker,
    serial,
    through_driver,
    through_store,
)
from sixfold.studies.lab.cluster import Cluster, Cost
from sixfold.studies.lab.config import ActivationsConfig, ActivationsOptions, geometry_of
from sixfold.studies.lab.findings import Findings, megabytes, percent, ratio, seconds, yes
from sixfold.studies.lab.long_lived import LongLived, long_lived
from sixfold.studies.lab.problem import Problem, problem_of
from sixfold.studies.lab.run import Progress, Show, repeated
from sixfold.studies.spark_sizes import result_limit_bytes

NAMES = {"same": "same worker", "driver": "driver", "file": "file store", "redis": "Redis"}
"""The ways, by the names that `--ways` takes."""


@dataclass(frozen=True, kw_only=True)
class Serial:
    """Forward and backward of all shards in one process on one thread."""

    forward_s: float  # all shards forward
    backward_s: float  # then all backward
    gradient_is_that_of_a_step: bool  # bit for bit


@dataclass(frozen=True, kw_only=True)
class MeasuredWay:
    """A way to keep activations."""

    way: str
    times_s: list[float]  # both stages, of every timed run
    forward: Cost  # of the forward stage in the median run
    backward: Cost  # of the backward stage
    total_s: float  # of both
    kernel_s: float  # time inside the network's kernels, over all tasks
    store_s: float  # time of encoding, keeping, fetching and decoding, over all tasks
    kept_bytes: int  # activations
    chunks: int  # in how many parts the step was made
    right: bool  # whether the gradient had the bits of the serial one, every time


@dataclass(frozen=True, kw_only=True)
class ActivationsResult:
    """What the study has measured."""

    long_lived: LongLived
    serial: Serial
    ways: list[MeasuredWay]


def summarize(
    problem: Problem, base: LongLived, alone: Serial, measured: list[MeasuredWay], notes: list[str]
) -> Findings:
    """Findings of the study."""
    g = problem.geometry
    return Findings(
        title="Forward and backward as two stages",
        subtitle=f"{g.batch:,} images {g.channels}x{g.size[0]}x{g.size[1]}, the slide network's "
        f"layers with kernel {g.maps} {g.kernel[0]}x{g.kernel[1]}x{g.channels}",
        right=alone.gradient_is_that_of_a_step and all(one.right for one in measured),
        notes=notes,
        tables=[_table(base, alone, measured)],
        bars=[_bars(base, alone, measured)],
        verdict=_verdict(base, measured),
        result=ActivationsResult(long_lived=base, serial=alone, ways=measured),
    )


def _table(base: LongLived, alone: Serial, measured: list[MeasuredWay]) -> Table:
    total = alone.forward_s + alone.backward_s
    rows: list[tuple[str, ...]] = [
        ("long-lived job", "", "", seconds(base.step_s), "1x", *("0", "", "0", "", "")),
        (
            *("serial, one thread", seconds(alone.forward_s), seconds(alone.backward_s)),
            *(seconds(total), ratio(total / base.step_s), "0", "", "0", ""),
            yes(alone.gradient_is_that_of_a_step),
        ),
    ]
    for one in measured:
        rows.append(
            (
                NAMES[one.way],
                seconds(one.forward.wall_s) if one.forward.jobs else "",
                seconds(one.backward.wall_s) if one.forward.jobs else "",
                seconds(one.total_s),
                ratio(one.total_s / base.step_s),
                megabytes(one.kept_bytes),
                f"{one.chunks}",
                f"{one.forward.jobs + one.backward.jobs}",
                percent(one.kernel_s, one.forward.run_s + one.backward.run_s),
                yes(one.right),
            )
        )
    return Table(
        title="A step over all images",
        note="Kept: activations between the stages. Kernel: part of the tasks' time inside the "
        "network's kernels. Equal: the gradient has the bits of the serial one.",
        head=(
            *("activations in", "forward s", "backward s", "total s", "x long-lived"),
            *("kept MB", "chunks", "jobs", "kernel %", "equal"),
        ),
        rows=rows,
    )


def _bars(base: LongLived, alone: Serial, measured: list[MeasuredWay]) -> Bars:
    bars = [
        Bar(name="long-lived job", parts=((base.step_s, "update"),), text=f"{base.step_s:.3f} s"),
        Bar(
            name="serial, one thread",
            parts=((alone.forward_s, "compute"), (alone.backward_s, "communication")),
            text=f"{alone.forward_s + alone.backward_s:.3f} s",
        ),
    ]
    for one in sorted(measured, key=lambda way: way.total_s):
        parts: tuple[tuple[float, str], ...] = ((one.total_s, "update"),)
        if one.forward.jobs:
            parts = ((one.forward.wall_s, "compute"), (one.backward.wall_s, "communication"))
        bars.append(Bar(name=NAMES[one.way], parts=parts, text=f"{one.total_s:.3f} s"))
    return Bars(
        title="Time of a step",
        note="Median run.",
        bars=bars,
        keys=(("forward", "compute"), ("backward", "communication"), ("both at once", "update")),
    )


def _verdict(base: LongLived, measured: list[MeasuredWay]) -> list[str]:
    order = sorted(measured, key=lambda one: one.total_s)
    if not order:
        return []
    best = order[0]
    lines = [
        f"Of the ways that start jobs, {NAMES[best.way]} wins: {best.total_s:.2f} s, "
        f"{ratio(best.total_s / base.step_s)} the long-lived job ({base.step_s:.2f} s)."
    ]
    same = next((one for one in measured if one.way == "same"), None)
    for one in order:
        if one is same or not one.kept_bytes:
            continue
        extra = "" if same is None else f"{ratio(one.total_s / same.total_s)} the same worker; "
        lines.append(
            f"{NAMES[one.way]}: {extra}{megabytes(one.kept_bytes)} MB leave the worker and come "
            f"back, {one.store_s:.2f} s of the tasks' time are spent keeping and fetching them "
            f"beside {one.kernel_s:.2f} s of kernels"
            + (f", in {one.chunks} chunks." if one.chunks > 1 else ".")
        )
    lines.append(
        "Locality wins because activations are many times larger than what a step must send: "
        "weights and gradients."
    )
    return lines


Run = Callable[[Meters], Passed]


def problems(config: ActivationsConfig) -> list[str]:
    """What is wrong with the settings, one line each."""
    options = config.activations
    found = problems_of(lambda: geometry_of(config.convolution))
    if config.convolution.images == 1:
        found.append("--images 1: a step of a single image cannot be divided")
    found += [unknown("way", way, NAMES) for way in options.ways.split(",") if way not in NAMES]
    if options.store and (problem := folder_problem(options.store)):
        found.append(f"--store {options.store}: {problem}")
    return found


def study(cluster: Cluster, config: ActivationsConfig, show: Show) -> Findings:
    """Measure all ways."""
    problem = problem_of(config.convolution)
    options = config.activations
    ways = list(dict.fromkeys(options.ways.split(",")))
    parts = Progress(len(ways) + 3, show)
    parts.begin("the long-lived job")
    base = long_lived(cluster, problem, options.repeats)
    show(f"long-lived job: whole step {base.step_s:.3f} s, after a start of {base.start_s:.1f} s")
    parts.begin("serial training")
    alone, gradient = measure_serial(problem, options.repeats)
    show(f"serial: forward {alone.forward_s:.3f} s, backward {alone.backward_s:.3f} s")
    measured, notes = [], []
    for way in ways:
        parts.begin(f"activations kept by {way}")
        if way == "redis" and (missing := redis.missing()):
            notes.append(f"redis was {missing}.")
            show(f"redis: {missing}")
            continue
        with _opened(way, cluster, problem, options.store) as run:
            one = measure(cluster, way, run, gradient, options)
        measured.append(one)
        state = "the serial gradient, bit for bit" if one.right else "WRONG gradient"
        show(
            f"{way}: forward {one.forward.wall_s:.3f} s, backward {one.backward.wall_s:.3f} s, "
            f"{state}"
        )
    parts.begin("the long-lived job again")
    base = base.and_again(long_lived(cluster, problem, options.repeats))
    return summarize(problem, base, alone, measured, notes)


def measure_serial(problem: Problem, repeats: int) -> tuple[Serial, Array]:
    """Forward and backward in this process, on one thread; and the (P,) gradient."""
    with one_thread():
        halves = Halves(problem)
        forward_s, backward_s, gradients = zip(
            *(serial(halves) for _ in range(1 + repeats)), strict=True
        )
        right = bool(np.array_equal(gradients[0], of_a_step(halves)))
    timed = Serial(
        forward_s=statistics.median(forward_s[1:]),
        backward_s=statistics.median(backward_s[1:]),
        gradient_is_that_of_a_step=right,
    )
    return timed, gradients[0]


def measure(
    cluster: Cluster, way: str, run: Run, wanted: Array, options: ActivationsOptions
) -> MeasuredWay:
    """Run a way until it has been timed enough, after one run that warms the workers."""
    right: list[bool] = []

    def once() -> tuple[Passed, Meters]:
        meters = Meters.of(cluster.context)
        passed = run(meters)
        right.append(bool(np.array_equal(passed.gradient, wanted)))
        return passed, meters

    def wall_s(one: tuple[Passed, Meters]) -> float:
        return one[0].forward.wall_s + one[0].backward.wall_s

    runs, (passed, meters) = repeated(
        once, wall_s, repeats=options.repeats, seconds=options.seconds
    )
    return MeasuredWay(
        way=way,
        times_s=[wall_s(one) for one in runs],
        forward=passed.forward,
        backward=passed.backward,
        total_s=wall_s((passed, meters)),
        kernel_s=meters.kernel_s.value,
        store_s=meters.store_s.value,
        kept_bytes=meters.kept_bytes.value,
        chunks=passed.chunks,
        right=all(right),
    )


@contextmanager
def _opened(way: str, cluster: Cluster, problem: Problem, url: str) -> Iterator[Run]:
    with contextlib.ExitStack() as stack:
        if way == "same":
            yield lambda meters: same_worker(cluster, problem, meters)
            return
        if way == "driver":
            # What the tasks of one job may return; where Spark has no limit, what its default is.
            limit = result_limit_bytes(cluster.engine.session) or 1 << 30
            yield lambda meters: through_driver(cluster, problem, limit // 2, meters)
            return
        store: Store
        if way == "file":
            if not url:
                folder = tempfile.TemporaryDirectory(prefix="sixfold-lab-")
                url = Path(stack.enter_context(folder)).as_uri()
            store = FileStore(url)
        else:
            store = RedisStore(stack.enter_context(redis.redis_server(*cluster.engine.hosts())))
        yield lambda meters: through_store(cluster, problem, store, meters)
