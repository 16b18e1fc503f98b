"""`sixfold lab activations`: what it costs to keep activations anywhere but where they are."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.activations import redis_server as redis
from sixfold.studies.lab.activations.halves import Halves
from sixfold.studies.lab.activations.stores import FileStore, RedisStore, folder_problem
from sixfold.studies.lab.activations.summary import MeasuredWay, Serial, tell
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
from sixfold.studies.lab.config import ActivationsConfig, geometry_of
from sixfold.studies.lab.findings import Findings
from sixfold.studies.lab.long_lived import long_lived
from sixfold.studies.lab.problem import Problem
from sixfold.studies.lab.progress import Progress

Show = Callable[[str], None]
Run = Callable[[Meters], tuple[Passed, int]]

WAYS = ("same", "driver", "file", "redis")

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NO_LIMIT = 1 << 30
"""Bytes a job may return where Spark has no limit: what its default is."""


def problems(config: ActivationsConfig) -> list[str]:
    """What is wrong with the settings, one line each."""
    found: list[str] = []
    options = config.activations
    geometry = geometry_of(config.convolution, found)
    if geometry is not None and geometry.batch < 2:
        found.append("--max-images 1: a step of a single image cannot be divided")
    found += [unknown("way", way, WAYS) for way in options.ways.split(",") if way not in WAYS]
    if options.store and (problem := folder_problem(options.store)):
        found.append(f"--store {options.store}: {problem}")
    return found


def study(cluster: Cluster, config: ActivationsConfig, show: Show) -> Findings:
    """Measure all ways; see the module."""
    geometry = geometry_of(config.convolution, [])
    assert geometry is not None
    problem = Problem(
        geometry=geometry, block=config.convolution.block, seed=config.convolution.seed
    )
    options = config.activations
    ways = list(dict.fromkeys(options.ways.split(",")))
    parts = Progress(len(ways) + 3, show)
    parts.begin("the long-lived job")
    base = long_lived(cluster, problem, options.repeats)
    show(f"long-lived job: whole step {base.step_s:.3f} s, after a start of {base.start_s:.1f} s")
    parts.begin("serial training")
    alone = measure_serial(problem, options.repeats)
    show(f"serial: forward {alone.forward_s:.3f} s, backward {alone.backward_s:.3f} s")
    measured, notes = [], []
    for way in ways:
        parts.begin(f"activations kept by {way}")
        if way == "redis" and (missing := redis.missing()):
            notes.append(f"redis was {missing}.")
            show(f"redis: {missing}")
            continue
        with _opened(way, cluster, problem, options.store) as run:
            one = measure(cluster, way, run, alone.gradient, options.repeats, options.seconds)
        measured.append(one)
        state = "the serial gradient, bit for bit" if one.right else "WRONG gradient"
        show(f"{way}: forward {one.forward_s:.3f} s, backward {one.backward_s:.3f} s, {state}")
    parts.begin("the long-lived job again")
    base = base.and_again(long_lived(cluster, problem, options.repeats))
    return tell(problem, base, alone, measured, notes)


def measure_serial(problem: Problem, repeats: int) -> Serial:
    """Forward and backward in this process, on one thread, and whether they make up a step."""
    with one_thread():
        halves = Halves(problem)
        runs = [serial(halves) for _ in range(1 + repeats)]
        right = bool(np.array_equal(runs[0][2], of_a_step(halves)))
    return Serial(
        forward_s=statistics.median(run[0] for run in runs[1:]),
        backward_s=statistics.median(run[1] for run in runs[1:]),
        gradient=runs[0][2],
        right=right,
    )


def measure(
    cluster: Cluster, way: str, run: Run, wanted: Array, repeats: int, seconds: float
) -> MeasuredWay:
    """Run a way until it has been timed enough, after one run that warms the workers."""
    readings: list[tuple[Passed, Meters, int]] = []
    right = True
    while len(readings) <= repeats:
        meters = Meters.of(cluster.context)
        passed, chunks = run(meters)
        right = right and bool(np.array_equal(passed.gradient, wanted))
        readings.append((passed, meters, chunks))
        timed = [p.forward.wall_s + p.backward.wall_s for p, _, _ in readings[1:]]
        if sum(timed) > seconds:
            break
    middle = statistics.median_low(timed)
    passed, meters, chunks = readings[1 + timed.index(middle)]
    return MeasuredWay(
        way=way,
        times_s=timed,
        forward=passed.forward,
        backward=passed.backward,
        kernel_s=meters.kernel_s.value,
        store_s=meters.store_s.value,
        kept_bytes=meters.kept_bytes.value,
        chunks=chunks,
        right=right,
    )


@contextmanager
def _opened(way: str, cluster: Cluster, problem: Problem, url: str) -> Iterator[Run]:
    """What runs a way, with what it needs: a folder, a server."""
    with contextlib.ExitStack() as stack:
        if way == "same":
            yield lambda meters: (same_worker(cluster, problem, meters), 1)
            return
        if way == "driver":
            limit = result_limit_bytes(cluster) // 2
            yield lambda meters: through_driver(cluster, problem, limit, meters)
            return
        store: Any
        if way == "file":
            if not url:
                folder = tempfile.TemporaryDirectory(prefix="sixfold-lab-")
                url = Path(stack.enter_context(folder)).as_uri()
            store = FileStore(url)
        else:
            on_event, reached = cluster.engine.hosts()
            store = RedisStore(stack.enter_context(redis.redis_server(on_event, reached)))
        yield lambda meters: (through_store(cluster, problem, store, meters), 1)


def result_limit_bytes(cluster: Cluster) -> int:
    """How much the tasks of one job may return (spark.driver.maxResultSize)."""
    return parse_bytes(cluster.engine.session.setting("spark.driver.maxResultSize", "1g"))


def parse_bytes(text: str) -> int:
    """A size as Spark writes it; bytes where no unit is named.

    Raises:
        UserError: if it is none.

    >>> parse_bytes("1g"), parse_bytes("512mb"), parse_bytes("0")
    (1073741824, 536870912, 1073741824)
    """
    word = text.strip().lower().removesuffix("b")
    number, unit = (word[:-1], word[-1]) if word and word[-1] in _UNITS else (word, "")
    if not number.isdigit():
        raise UserError(f"spark.driver.maxResultSize={text}: expected a size such as 1g")
    return int(number) * _UNITS.get(unit, 1) or _NO_LIMIT
