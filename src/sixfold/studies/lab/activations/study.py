"""`sixfold lab activations`: what it costs to keep activations anywhere but where they are."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sixfold.core.checks import unknown
from sixfold.core.errors import problems_of
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.activations import redis_server as redis
from sixfold.studies.lab.activations.halves import Halves
from sixfold.studies.lab.activations.stores import FileStore, RedisStore, Store, folder_problem
from sixfold.studies.lab.activations.summary import NAMES, MeasuredWay, Serial, tell
from sixfold.studies.lab.activations.ways import (
    Meters,
    Passed,
    of_a_step,
    same_worker,
    serial,
    through_driver,
    through_store,
)
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.config import ActivationsConfig, ActivationsOptions, geometry_of
from sixfold.studies.lab.findings import Findings
from sixfold.studies.lab.long_lived import long_lived
from sixfold.studies.lab.problem import Problem, problem_of
from sixfold.studies.lab.run import Progress, Show, repeated
from sixfold.studies.spark_sizes import result_limit_bytes

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
    return tell(problem, base, alone, measured, notes)


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
    """What runs a way, with what it needs: a folder, a server."""
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
