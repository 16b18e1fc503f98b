"""The calibration as the engine's ranks run it: all of them at once, as in a training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sixfold import data as datasets
from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.process_group import Communicator, alone
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.distributed.process_group.shared_memory import SharedMemory
from sixfold.perf.plan.kernels import measure_kernels, samples_as_plain
from sixfold.perf.plan.link_probe import adding_rate, measure_links
from sixfold.perf.plan.memory import available_bytes
from sixfold.perf.plan.profiling_run import ProfilingCase, rehearse
from sixfold.perf.plan.server_probe import measure_server
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
        found["scenes"] = [_least_disturbed(plays) for plays in zip(*rounds, strict=True)]
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
) -> dict[str, Any] | None:
    """One scene, on as many ranks at once as it says; None where time was over."""
    late = time.monotonic() - began > job.seconds
    if any(all_gather_data(comm, late)):
        return None
    assert job.config is not None
    found: dict[str, Any] = {}
    hosts = all_gather_data(comm, comm.host)
    if hosts[: comm.rank].count(comm.host) < case.concurrency:
        forget_peak()
        found = rehearse(job.config, data, comm.rank, case)
        found["peak_bytes"] = peak_bytes()
    comm.barrier()
    return found


def _least_disturbed(plays: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The play whose steps took the processor least, of those that there was time for."""
    done = [play for play in plays if play is not None]
    if not done or not done[0]:
        return done[0] if done else None
    return min(done, key=lambda play: float(np.median(np.asarray(play["steps_s"])[:, 1])))


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
