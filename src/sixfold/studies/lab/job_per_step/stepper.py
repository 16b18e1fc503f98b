"""Synchronous SGD as one Spark job a step.

    for every step:
        broadcast   weights and buffers
        map         shards of the batch -> their contributions, added as far as a task can
        reduce      on the driver: the sum over all shards, in the fixed tree
        update      on the driver

Contributions and sums are those of `sixfold.training.step` and
`sixfold.distributed.logical_shards`, so the weights have the bits of serial training. Data are
opened, and the network is built, once in every Python worker.
"""

import functools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sixfold import data as datasets
from sixfold.distributed.process_group import Buffer, alone
from sixfold.studies.lab.blocks import Partial, timed, total_of
from sixfold.studies.lab.cluster import Cluster, Cost
from sixfold.training.checkpoint import model_tensors, weights_sha256
from sixfold.training.config import TrainConfig
from sixfold.training.step.schedule import parse_schedule
from sixfold.training.step.step import Shard, Step
from sixfold.training.strategies.sync.strategy import Sync, assemble_sync, diverged


@dataclass(frozen=True, kw_only=True)
class TimedStep:
    """What a step took."""

    cost: Cost  # of its job, the broadcast included
    kernel_s: float  # time of computing shards, over all tasks
    update_s: float  # time of the driver's sum and update

    @property
    def wall_s(self) -> float:
        return self.cost.wall_s + self.update_s


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """A training by jobs."""

    steps: list[TimedStep]
    weights_sha256: str  # of the final weights, as in a run's `result.json`


class _Worker:
    def __init__(self, config: TrainConfig) -> None:
        self.sync = _assembled(config)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def shards(self, number: int, indices: Iterable[int]) -> Iterator[Shard]:
        plan = self.sync.plan
        epoch = plan.place(number)[0]
        if self._order[0] != epoch:
            self._order = epoch, plan.order(epoch)
        for index in indices:
            yield plan.shard(number, index, self._order[1])


@functools.lru_cache(maxsize=2)
def _worker(config: TrainConfig) -> _Worker:
    return _Worker(config)


def train_by_jobs(cluster: Cluster, config: TrainConfig) -> Stepped:
    """Train; every step is a job; a `NonFiniteLossError` if the training diverges."""
    driver = _assembled(config)
    step, optimizer, schedule = driver.step, driver.optimizer, parse_schedule(config.optimizer)
    total = step.new_payload()
    steps = []
    for number in range(driver.budget.total_steps):
        count = driver.plan.count(number)
        kernel_s = cluster.context.accumulator(0.0)
        job = functools.partial(_job, cluster, config, number, count, _state(step), kernel_s)
        partials, cost = cluster.measured(f"step {number + 1}", job)
        began = time.perf_counter()
        total.copy_(torch.from_numpy(total_of(count, partials)))
        totals = step.finish(total)
        if not np.isfinite(totals.loss):
            raise diverged(number, totals.loss)
        rate = schedule.rate(number, driver.budget)
        optimizer.update(step.state.parameters, totals.gradient, rate)
        update_s = time.perf_counter() - began
        steps.append(TimedStep(cost=cost, kernel_s=kernel_s.value, update_s=update_s))
    return Stepped(steps=steps, weights_sha256=weights_sha256(model_tensors(step.state.model)))


def _job(
    cluster: Cluster,
    config: TrainConfig,
    number: int,
    count: int,
    state: tuple[Buffer, Buffer, Buffer],
    kernel_s: Any,
) -> list[Partial]:
    """Contributions of all shards of a step, as far as tasks have added them."""
    sent = cluster.broadcast(state)

    def work(indices: Iterable[int]) -> Iterator[Partial]:
        worker = _worker(config)
        step = worker.sync.step
        _load(step, sent.value)
        with timed(kernel_s):
            partials = [
                (node, value.copy())
                for node, value in step.partials(number, worker.shards(number, indices))
            ]
            step.release()
        yield from partials

    shards = cluster.context.parallelize(range(count), min(cluster.slots, count))
    partials: list[Partial] = shards.mapPartitions(work).collect()
    sent.unpersist()
    return partials


def _state(step: Step) -> tuple[Buffer, Buffer, Buffer]:
    state = step.state
    return state.parameters.numpy().copy(), state.buffers.numpy().copy(), state.counters().numpy()


def _load(step: Step, sent: tuple[Buffer, Buffer, Buffer]) -> None:
    parameters, buffers, counters = (torch.tensor(values) for values in sent)
    step.state.parameters.copy_(parameters)
    step.state.buffers.copy_(buffers)
    step.state.set_counters(counters)


def _assembled(config: TrainConfig) -> Sync:
    """The training as a process group of one has it."""
    return assemble_sync(alone(), config, datasets.open_data(config.data))
