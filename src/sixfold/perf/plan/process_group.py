"""The calibration as the engine's ranks run it, all at once as in a training, and its figures."""

import dataclasses
import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from sixfold import data as datasets
from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.process_group import Communicator, alone
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.distributed.process_group.shared_memory import SharedMemory
from sixfold.perf.plan.calibration import Machine, Network, Point
from sixfold.perf.plan.kernels import measure_kernels, samples_as_plain
from sixfold.perf.plan.memory import available_bytes
from sixfold.perf.plan.probes import adding_rate, measure_links, measure_server
from sixfold.perf.plan.profiling_run import (
    ProfilingCase,
    Rehearsal,
    play_together,
    rehearse,
)
from sixfold.perf.plan.samples import spread_of
from sixfold.perf.profile.memory import forget_peak, peak_bytes
from sixfold.training.config import TrainConfig
from sixfold.training.step.optimizer import whole_optimizer
from sixfold.training.strategies.hogwild.groups import find_groups
from sixfold.training.strategies.hogwild.strategy import Commons
from sixfold.training.strategies.sync.strategy import assemble_sync

UPDATES = 15
ROUNDS = 3
"""Every scene is rehearsed so often, in turns, and the least disturbed time counts: what else a
machine does comes and goes in seconds, and can only slow things down."""


@dataclass(frozen=True, kw_only=True)
class CalibrationJob:
    """What the ranks are told."""

    # the settings of the run that is planned, with the data resolved; None to measure the machine's
    # links alone
    config: TrainConfig | None
    cases: tuple[ProfilingCase, ...] = ()  # what is rehearsed, the most needed first
    links: bool = True  # whether links are measured
    servers: bool = True  # whether parameter servers and shared memory are measured
    whole: bool = True  # whether a rank can hold the whole network
    kernels_s: float = 0.0  # seconds for which layers of many shapes are timed
    seconds: float = 50.0  # after which no rehearsal is begun any more


def calibrate_rank(job: CalibrationJob, comm: Communicator) -> dict[str, Any]:
    """Measure as one rank of a process group; every rank returns its own figures."""
    with one_thread():
        began = time.monotonic()
        found: dict[str, Any] = {
            "host": comm.host,
            "base_bytes": peak_bytes(),
            "available_bytes": available_bytes(),
            "adding_bytes_per_s": adding_rate(),
            "links": measure_links(comm) if job.links and comm.size > 1 else {},
        }
        if job.kernels_s:
            comm.barrier()
            samples = measure_kernels(comm.rank, job.kernels_s)
            found["kernels"] = samples_as_plain(samples)
            comm.barrier()
        if job.config is None:
            return found
        data = datasets.open_data(job.config.data)
        if job.whole:
            found |= _sizes(job.config, data)
        rounds = [
            [_play(job, comm, data, case, began) for case in job.cases] for _ in range(ROUNDS)
        ]
        best = [_least_disturbed(plays) for plays in zip(*rounds, strict=True)]
        found["scenes"] = [None if play is None else dataclasses.asdict(play) for play in best]
        if job.servers and job.whole:
            found["server"] = measure_server(comm, job.config, data)
            found |= _updates(comm, job.config, data)
        return found


def _sizes(config: TrainConfig, data: datasets.DataSet) -> dict[str, Any]:
    """How large the network's vectors are, and how long it takes to make it."""
    start = time.perf_counter()
    sync = assemble_sync(alone(), config, data)
    state = sync.step.state
    return {
        "opening_s": time.perf_counter() - start,
        "payload_bytes": sum(state.sections) * state.dtype.itemsize,
        "parameter_bytes": (len(state.parameters) + len(state.buffers)) * state.dtype.itemsize,
        "slots": len(sync.optimizer.slots),
    }


def _play(
    job: CalibrationJob,
    comm: Communicator,
    data: datasets.DataSet,
    case: ProfilingCase,
    began: float,
) -> Rehearsal | None:
    """One scene, on as many ranks at once as it says; None for others, and where time was over."""
    late = time.monotonic() - began > job.seconds
    if any(all_gather_data(comm, late)):
        return None
    assert job.config is not None
    found = None
    hosts = all_gather_data(comm, comm.host)
    if hosts[: comm.rank].count(comm.host) < case.concurrency:
        forget_peak()
        found = rehearse(job.config, data, comm.rank, case)
        found.peak_bytes = peak_bytes()
    comm.barrier()
    if not case.merge:
        _compare(job, comm, data, case, found)
    return found


TOGETHER = 6, 40
"""Fewest and most steps that real ranks make of a case."""


def _compare(
    job: CalibrationJob,
    comm: Communicator,
    data: datasets.DataSet,
    case: ProfilingCase,
    play: Rehearsal | None,
) -> None:
    """Let real ranks of this host make steps of a case that has just been rehearsed.

    How fast a machine is changes in seconds: so it is the ratio of the two that is kept.
    """
    assert job.config is not None
    echoed_s = median(clock for clock, _, _ in play.steps_s) if play is not None else 0.0
    told = all_gather_data(comm, [echoed_s, comm.host])
    slowest = max(seconds for seconds, _ in told)
    host = [rank for rank, (_, name) in enumerate(told) if name == comm.host]
    size = case.grid.size if case.mesh else case.concurrency
    teams = [host[k : k + size] for k in range(0, case.concurrency - size + 1, size)]
    team = next((team for team in teams if comm.rank in team), [])
    if len(team) == size and play is not None:
        steps = int(np.clip(case.seconds / 2 / slowest, *TOGETHER))
        own_s = play_together(job.config, data, comm.subgroup(team), case, steps)
        play.real = own_s / echoed_s if own_s is not None else None
    comm.barrier()


def _least_disturbed(plays: Sequence[Rehearsal | None]) -> Rehearsal | None:
    """The play whose steps took the processor least, of those that there was time for."""
    done = [play for play in plays if play is not None]
    if not done:
        return None
    processor = operator.itemgetter(1)
    best = min(done, key=lambda play: median(map(processor, play.steps_s)))
    ratios = [play.real for play in done if play.real is not None]
    best.real = median(ratios) if ratios else None
    return best


def _updates(comm: Communicator, config: TrainConfig, data: datasets.DataSet) -> dict[str, float]:
    """Seconds of an update of weights of one's own, and of weights that a whole host writes to."""
    sync = assemble_sync(alone(), config, data)
    state = sync.step.state
    optimizer = whole_optimizer(config.optimizer, state)
    gradient = torch.zeros_like(state.parameters)
    own_s = _time_update(comm, optimizer, state.parameters, gradient)
    own = next(group for group in find_groups(comm) if comm.rank in group)
    count = Commons.size_bytes(state, optimizer)
    memory = SharedMemory.create(count) if comm.rank == own[0] else None
    path = all_gather_data(comm, "" if memory is None else memory.path)[own[0]]
    if memory is None:
        memory = SharedMemory.attach(path, count)
    comm.barrier()
    memory.seal()
    commons = Commons(memory, state, optimizer)
    shared_s = _time_update(comm, optimizer, state.parameters, gradient)
    del commons
    return {"update_s": own_s, "shared_update_s": shared_s}


def _time_update(comm: Communicator, optimizer: Any, weights: Any, gradient: Any) -> float:
    took = []
    for _ in range(UPDATES):
        comm.barrier()
        start = time.perf_counter()
        optimizer.update(weights, gradient, 0.0)
        took.append(time.perf_counter() - start)
    return float(np.median(took))


FEWEST = 8
"""Steps of a rehearsal from which a spread can be read."""
QUIET = 1.25
"""Where steps take longer than so many times their processor time, other programs make the spread
by the clock, and that of processor time is taken."""

Results = Sequence[dict[str, Any]]


def machine_of(
    results: Results, *, name: str, engine: str, slots: int, startup_s: float, job_s: float
) -> Machine:
    """The machine's figures, from what `calibrate_rank` returned by rank."""
    hosts = len({found["host"] for found in results})
    return Machine(
        name=name,
        engine=engine,
        slots=slots,
        ranks=len(results),
        hosts=hosts,
        available_bytes=min(found["available_bytes"] for found in results),
        base_bytes=max(found["base_bytes"] for found in results),
        adding_bytes_per_s=float(np.median([found["adding_bytes_per_s"] for found in results])),
        startup_s=round(startup_s, 4),
        opening_s=round(max(found.get("opening_s", 0.0) for found in results), 4),
        job_s=round(job_s, 5),
        links=results[0]["links"],
    )


def network_of(results: Results, cases: Sequence[ProfilingCase]) -> Network:
    """The network's figures; scenes for which there was no time are left out."""
    from pydantic import TypeAdapter

    points: list[Point] = []
    groups: list[list[float]] = []
    read = TypeAdapter(Rehearsal).validate_python
    for number, case in enumerate(cases):
        scenes = [found["scenes"][number] for found in results]
        played = [read(scene) for scene in scenes if scene is not None]
        if not played:
            continue
        points.append(_point(case, played))
        for one in played:
            clock, processor, _ = np.asarray(one.steps_s).T
            if len(clock) >= FEWEST:
                quiet = float(np.median(clock)) < QUIET * float(np.median(processor))
                groups.append((clock if quiet else processor).tolist())
    first = results[0]
    own_s, shared_s = (
        median(found.get(name, 0.0) for found in results)
        for name in ("update_s", "shared_update_s")
    )
    return Network(
        payload_bytes=first.get("payload_bytes", 0),
        parameter_bytes=first.get("parameter_bytes", 0),
        slots=first.get("slots", 0),
        points=tuple(points),
        spread=spread_of(groups),
        server=first.get("server", {}),
        update_s=own_s,
        shared_update_s=shared_s,
    )


def _point(case: ProfilingCase, played: Sequence[Rehearsal]) -> Point:
    steps = np.asarray([np.median(one.steps_s, axis=0) for one in played])
    # Parts of a group differ, and the slowest counts; whole networks are all the same.
    clock_s, step_s, process_s = steps.max(axis=0) if case.mesh else np.median(steps, axis=0)
    if case.merge:
        merges = np.median([np.median(one.merges_s, axis=0) for one in played], axis=0)
        merges = np.maximum(merges - [clock_s, step_s, process_s], 0.0)
        clock_s, step_s, process_s = merges
    ratios = [one.real for one in played if one.real is not None]
    exchanges = [one.merge_exchanges if case.merge else one.exchanges for one in played]
    busiest = max(exchanges, key=lambda found: sum(sum(one.sent) for one in found))
    return Point(
        mesh=case.mesh,
        merge=case.merge,
        samples=case.samples,
        shards=case.shards,
        concurrency=case.concurrency,
        step_s=float(step_s),
        behind_s=float(max(process_s - step_s, 0.0)),
        clock_s=float(clock_s),
        real=median(ratios) if ratios else 0.0,
        data_s=median(value for one in played for value in one.data_s),
        update_s=median(value for one in played for value in one.update_s),
        peak_bytes=max(one.peak_bytes for one in played),
        payload_bytes=max(one.payload_bytes for one in played),
        exchanges=tuple((one.sent, one.received) for one in busiest),
    )
