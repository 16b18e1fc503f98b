"""The launcher of a calibration: has the engine's ranks measure, and puts the figures together."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.processor import processor_name
from sixfold.data import DataSet
from sixfold.distributed.engines import Engine
from sixfold.distributed.engines.engine import GroupResult
from sixfold.perf.plan.calibration import (
    BUSY,
    Calibration,
    Machine,
    Network,
    network_key,
    place_of,
)
from sixfold.perf.plan.candidates import LARGEST_MESH, Workload, cases, meshes
from sixfold.perf.plan.memory import available_bytes, state_bytes
from sixfold.perf.plan.model import Model
from sixfold.perf.plan.process_group import (
    ROUNDS,
    CalibrationJob,
    calibrate_rank,
    machine_of,
    network_of,
)
from sixfold.perf.plan.profile import Profile
from sixfold.perf.plan.profiling_run import ProfilingCase
from sixfold.training.config import TrainConfig
from sixfold.training.step.rules import state_vectors
from sixfold.training.step.schedule import budget
from sixfold.training.strategies.model_parallel.grid import Grid, Mesh
from sixfold.training.strategies.registry import keeps_mirrors

if TYPE_CHECKING:
    from torch import nn

BUDGET_S = 50.0
"""Of the minute that a calibration may take; the rest is to start, and for the last rehearsal."""
SCENE_S = (0.1, 0.25)
"""Least and most seconds of a rehearsal, of which there are `ROUNDS` for each scene."""
JOBS = 3
KERNELS_S = 15.0
"""For timing layers of many shapes, on every rank others."""


def calibrate(
    config: TrainConfig,
    opened: DataSet,
    engine: Engine,
    workers: int,
    *,
    known: Calibration | None = None,
    batches: Sequence[int] = (),
    fitting: Sequence[Mesh] | None = None,
    inexact: bool = True,
    rehearsed: bool = True,
    on_event: OnEvent = lambda _: None,
) -> Calibration:
    """Measure what is not known yet of machine and network.

    Args:
        config: the settings of the run that is planned, with the data resolved.
        opened: the data.
        engine: where it would run.
        workers: how many ranks it would have.
        known: an earlier calibration of the same machine.
        batches: more batch sizes whose shards are to be rehearsed.
        fitting: meshes to be rehearsed; all that divide the network and the workers if absent.
        inexact: whether strategies are wanted that do not equal serial training.
        rehearsed: whether the network may be run; otherwise it is estimated from kernel times.
        on_event: called with progress.
    """
    began = time.monotonic()
    # On inline ranks take turns, however many cores there are.
    slots = 1 if engine.name == "inline" else engine.slots()
    ranks = max(min(workers, slots), 2)
    if fitting is None:
        fitting = fitting_meshes(config, opened, workers)
    wanted = cases(
        config,
        workers,
        fitting,
        batch_norm=has_norms(config, opened),
        concurrency=min(ranks, slots),
        batches=batches,
        inexact=inexact,
    )
    wanted = [case for case in wanted if case.samples <= len(opened.train)]
    refused = refusals(config, opened, ranks)
    wanted = [case for case in wanted if case.grid.mesh.size not in refused]
    key = network_key(config)
    if not rehearsed:
        return _estimated(config, opened, engine, (ranks, slots), known, wanted, on_event)
    missing = _missing(wanted, known, key)
    server = inexact and 1 not in refused
    if known is not None and not missing and _suffices(known, key, workers, slots, server=server):
        return known
    links = "" if known is not None else f"links between {ranks} ranks, and "
    text = f"measuring {links}{len(missing)} rehearsals of steps on one rank (up to a minute)"
    on_event({"kind": "note", "text": text})
    seconds = min(max(BUDGET_S / (ROUNDS * max(len(missing), 1)), SCENE_S[0]), SCENE_S[1])
    missing = [dataclasses.replace(case, seconds=seconds) for case in missing]
    job = CalibrationJob(
        config=config,
        cases=tuple(missing),
        servers=inexact,
        whole=1 not in refused,
        seconds=BUDGET_S,
    )
    group = engine.run_ranks(functools.partial(calibrate_rank, job), ranks)
    network = network_of(group.results, missing)
    machine = known.machine if known is not None else None
    if machine is None or machine.ranks < ranks:
        machine = _machine(engine, group, slots)
    if workers > slots and not machine.crowded:
        machine = _crowd(machine, engine, min(workers, 2 * slots))
    calibration = known or Calibration(machine=machine, networks={})
    calibration = dataclasses.replace(calibration, machine=machine).with_network(key, network)
    on_event({"kind": "note", "text": f"measured for {time.monotonic() - began:.0f} s"})
    return calibration


def model_of(
    config: TrainConfig, calibration: Calibration, opened: DataSet
) -> tuple[Model, list[str]]:
    """The step model of a training, and what must be said of it."""
    training = config.training
    work = Workload(
        batch_size=training.batch_size,
        steps=budget(training, len(opened.train)).total_steps,
        batch_norm=has_norms(config, opened),
        shards=training.shards,
        local_steps=config.local_sgd.local_steps,
        merge_every=config.strategy.merge_every,
        servers=config.strategy.servers,
        exact=config.strategy.deterministic,
        mirrors=keeps_mirrors(config),
    )
    network = calibration.networks[network_key(config)]
    profile = Profile(network=network)
    notes = []
    busy = network.busyness()
    if busy > BUSY:
        notes.append(
            f"the machine was busy: steps took {busy:.1f} times their processor time while they "
            "were measured; the times predicted are those of an idle machine"
        )
    if training.batch_norm == "sync" and work.batch_norm:
        notes.append(
            "exchanges within synchronised batch-norm are not in the prediction of sync: it is "
            "too short by two small exchanges a norm and step"
        )
    return Model(calibration=calibration, profile=profile, work=work), notes


def _estimated(
    config: TrainConfig,
    opened: DataSet,
    engine: Engine,
    ranks_and_slots: tuple[int, int],
    known: Calibration | None,
    wanted: Sequence[ProfilingCase],
    on_event: OnEvent,
) -> Calibration:
    """A calibration in which the network is estimated; kernels are timed where they are not yet."""
    from sixfold.perf.plan.estimate import estimate

    ranks, slots = ranks_and_slots
    machine = known.machine if known is not None else None
    if machine is None or not machine.kernels:
        on_event({"kind": "note", "text": f"timing layers of many shapes for {KERNELS_S:.0f} s"})
        job = CalibrationJob(config=None, kernels_s=KERNELS_S)
        group = engine.run_ranks(functools.partial(calibrate_rank, job), ranks)
        machine = machine or _machine(engine, group, slots)
        rows = [row for found in group.results for row in found["kernels"]]
        machine = dataclasses.replace(machine, kernels=rows)
    network = estimate(config, _on_meta(config, opened), opened.shape, machine, wanted)
    base = known or Calibration(machine=machine, networks={})
    return dataclasses.replace(base, machine=machine).with_network(network_key(config), network)


def _machine(engine: Engine, group: GroupResult, slots: int) -> Machine:
    return machine_of(
        group.results,
        name=f"{processor_name()}, {slots} cores",
        engine=engine.name,
        slots=slots,
        startup_s=group.startup_s,
        job_s=_job_s(engine, slots),
    )


def _on_meta(config: TrainConfig, opened: DataSet) -> nn.Module:
    """The network without its weights."""
    from sixfold.models.meta_initialization import build_on_meta

    classes, seed = opened.outputs, config.training.seed
    return build_on_meta(config.model, shape=opened.shape, classes=classes, seed=seed).network


def refusals(
    config: TrainConfig, opened: DataSet, ranks: int, available: int | None = None
) -> dict[int, str]:
    """Groups whose ranks cannot hold their weights, which are not even rehearsed.

    Number of ranks in a group (1: the whole network) -> why, where so many `ranks` of a host
    rehearse at the same time.
    """
    numbers = sum(parameter.numel() for parameter in _on_meta(config, opened).parameters())
    itemsize = 8 if config.training.precision == "float64" else 4
    least = state_bytes(numbers, state_vectors(config.optimizer), 1, itemsize)
    has = available_bytes() if available is None else available
    names = {size: f"a group of {size} ranks" for size in range(2, LARGEST_MESH + 1)}
    return {
        size: (
            f"{what} does not fit into memory: weights, gradients and the optimizer's state alone "
            f"take {least / size / 1e9:.1f} GB a rank, {ranks * least / size / 1e9:.1f} GB a host, "
            f"which has {has / 1e9:.1f} GB"
        )
        for size, what in {1: "the whole network on every rank", **names}.items()
        if ranks * least / size > has
    }


def _suffices(known: Calibration, key: str, workers: int, slots: int, *, server: bool) -> bool:
    """Whether links were measured among so many ranks, and a parameter server where wanted."""
    network, machine = known.networks.get(key), known.machine
    links = machine.ranks >= workers if workers <= slots else bool(machine.crowded)
    return links and (not server or (network is not None and bool(network.server)))


def _missing(
    wanted: Iterable[ProfilingCase], known: Calibration | None, key: str
) -> list[ProfilingCase]:
    network: Network | None = known.networks.get(key) if known is not None else None
    done = {place_of(point) for point in (network.points if network is not None else ())}
    return [case for case in wanted if place_of(case) not in done]


def _job_s(engine: Engine, slots: int) -> float:
    """Seconds of an empty job, once the engine is warm."""
    took = []
    for _ in range(JOBS):
        began = time.monotonic()
        engine.pool(_nothing, list(range(slots)), workers=slots)
        took.append(time.monotonic() - began)
    return sorted(took)[len(took) // 2]


def _nothing(item: int) -> int:
    return item


def _crowd(machine: Machine, engine: Engine, ranks: int) -> Machine:
    """The machine with its links measured among more ranks than cores; as it is on a cluster."""
    job = CalibrationJob(config=None)
    try:
        found = engine.run_ranks(functools.partial(calibrate_rank, job), ranks)
    except UserError:  # the cluster has no room for more ranks than slots
        return machine
    return dataclasses.replace(machine, crowded=found.results[0]["links"])


def fitting_meshes(config: TrainConfig, opened: DataSet, workers: int) -> list[Mesh]:
    """The meshes by which both workers and network can be divided."""
    from sixfold.training.strategies.model_parallel.strategy import division_problems

    found, shape, classes = [], opened.shape, opened.outputs
    sizes = [size for size in range(2, min(workers, LARGEST_MESH) + 1) if workers % size == 0]
    for mesh in chain.from_iterable(map(meshes, sizes)):
        if mesh.rows > shape[1] or mesh.cols > shape[2]:
            continue
        strategy = dataclasses.replace(
            config.strategy, strategy="model_parallel", grid=str(Grid(mesh=mesh))
        )
        trial = dataclasses.replace(config, strategy=strategy)
        if not division_problems(trial, mesh.size, shape=shape, classes=classes):
            found.append(mesh)
    return found


def has_norms(config: TrainConfig, opened: DataSet) -> bool:
    """Whether the network has batch-norm."""
    from sixfold.training.step.norm_sync import has_batch_norm

    return has_batch_norm(_on_meta(config, opened))
