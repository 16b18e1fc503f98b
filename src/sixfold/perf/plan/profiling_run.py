"""The rehearsal of a rank's part in a step: the strategy's own code, with echoes for peers.

What is timed is everything that a rank does between two steps' ends but for its exchanges: data,
forward, backward, sums, update, log. Processor time is taken beside the clock's: it does not count
what other programs do on the machine meanwhile, and does count waiting for memory.

A rank's part follows from its number, the number of ranks and what the peers send. With a transport
whose peers repeat what they are sent, it computes what it would among n ranks, and every exchange
is noted with its bytes. The values are nonsense, and finite.

Echoes answer at once, from a cache that is warm. So a few steps of the same case are made by real
ranks too (`play_together`), and what their own part takes by the clock corrects the rehearsals.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from sixfold import data as datasets
from sixfold.core.config import RunConfig
from sixfold.core.run_directory import RankFiles, RunDirectory
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.echo import Exchange, Loopback, echo_world
from sixfold.perf.plan.calibration import BUSY
from sixfold.training.config import TrainConfig
from sixfold.training.log import StepClock, TimedIterator, TrainLog
from sixfold.training.step.step import Shard
from sixfold.training.strategies.local_sgd.strategy import LocalSgd
from sixfold.training.strategies.model_parallel.grid import Grid, parse_grid
from sixfold.training.strategies.registry import build_strategy
from sixfold.training.strategies.strategy import Strategy

WARM_UP = 2
FEWEST = 3
MOST = 200


@dataclass(frozen=True, kw_only=True)
class ProfilingCase:
    """What is rehearsed."""

    # the axes of the group of which one rank's part is played, as `--grid` takes them; empty for a
    # whole network
    mesh: str = ""
    samples: int  # images of a step
    shards: int  # logical shards of them
    merge: bool = False  # whether each second step ends in a merge of local SGD between two workers
    concurrency: int = 1  # ranks of a host that rehearse at the same time
    seconds: float = 0.4  # about how long

    @property
    def grid(self) -> Grid:
        """The group's ranks; one for a whole network."""
        return parse_grid(self.mesh)[0] or Grid()

    @property
    def shard(self) -> float:
        """Samples of a shard."""
        return self.samples / self.shards


def scene_config(config: TrainConfig, case: ProfilingCase) -> TrainConfig:
    """The settings of a run whose steps are those of the scene."""
    strategy = dataclasses.replace(
        type(config.strategy)(),
        strategy="local_sgd" if case.merge else "model_parallel" if case.mesh else "sync",
        grid=case.mesh,
    )
    samples = case.samples * (2 if case.merge else 1)
    training = dataclasses.replace(
        config.training, batch_size=samples, shards=case.shards, epochs=None, steps=10**6
    )
    local = type(config.local_sgd)()
    if case.merge:
        wanted = config.local_sgd.aggregation
        local = dataclasses.replace(
            local,
            local_steps=2,
            aggregation=wanted if wanted not in ("best", "genetic") else "mean",
        )
    return dataclasses.replace(
        config,
        training=training,
        initialization=type(config.initialization)(),
        strategy=strategy,
        local_sgd=local,
        engine=EngineConfig(),
        run=RunConfig(),
    )


def rehearse(
    config: TrainConfig, data: datasets.DataSet, rank: int, case: ProfilingCase
) -> Rehearsal:
    """Play one rank's part (modulo the number of ranks in the group) until the time is over."""
    size = 2 if case.merge else case.grid.size
    comm, loopback = echo_world(rank % size, size)
    with _stage(comm, scene_config(config, case), data) as (strategy, shards, log):
        takes = _Takes(comm, loopback, strategy, log, case)
        takes.play(shards)
    takes.found.payload_bytes = _payload_bytes(strategy)
    return takes.found


def play_together(
    config: TrainConfig,
    data: datasets.DataSet,
    group: Communicator,
    case: ProfilingCase,
    steps: int,
) -> float | None:
    """Seconds by the clock of a rank's own part in a step among real peers: the median of `steps`.

    Every rank of the group must call this. A whole network is trained by `sync`, each rank with the
    shards of the case. None if other programs had the core in most of the steps.
    """
    ranks = 1 if case.mesh else group.size
    case = dataclasses.replace(case, samples=case.samples * ranks, shards=case.shards * ranks)
    took = []
    with _stage(group, scene_config(config, case), data) as (strategy, shards, log):
        for number in range(WARM_UP + steps):
            clock, worked = StepClock(group.traffic, shards), time.thread_time()
            totals = strategy.train_step(number, shards, 0.0)
            _, parts = clock.stop(strategy.update_s)
            worked = time.thread_time() - worked
            log.step(number + 1, {"loss": totals.loss, "lr": 0.0}, parts)
            own_s = parts["compute_s"] + parts["update_s"]
            if number >= WARM_UP and own_s + parts["communication_s"] < BUSY * worked:
                took.append(own_s + parts["data_s"])
    return median(took) if 2 * len(took) > steps else None


@contextlib.contextmanager
def _stage(
    comm: Communicator, config: TrainConfig, data: datasets.DataSet
) -> Iterator[tuple[Strategy, TimedIterator[Shard], TrainLog]]:
    """A rank that is ready for its first step, in a directory that goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create()
        attempt = directory.claim()
        files = RankFiles(directory.ticket(), attempt=attempt, rank=0, host=comm.host)
        strategy = build_strategy(comm, config, data)
        with (
            contextlib.closing(TrainLog(files, comm, 0)) as log,
            datasets.prefetch(strategy.shards(0), depth=data.ahead) as shards,
        ):
            yield strategy, TimedIterator(shards), log


@dataclass(kw_only=True)
class Rehearsal:
    """What the steps of a rehearsal took, and their exchanges."""

    # Of every step, and of those that end in a merge: seconds by the clock, of the processor in the
    # step's thread, and of it in all threads.
    steps_s: list[Clocks] = field(default_factory=list)
    merges_s: list[Clocks] = field(default_factory=list)
    data_s: list[float] = field(default_factory=list)
    update_s: list[float] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)  # of one step
    merge_exchanges: list[Exchange] = field(default_factory=list)
    payload_bytes: int = 0
    peak_bytes: int = 0
    real: float | None = None  # how many times as long a step's own part takes among real ranks


class _Takes:
    """The steps of one rehearsal, and what each took."""

    def __init__(
        self,
        comm: Communicator,
        loopback: Loopback,
        strategy: Strategy,
        log: TrainLog,
        case: ProfilingCase,
    ) -> None:
        self._comm, self._loopback, self._strategy = comm, loopback, strategy
        self._log, self._case = log, case
        self.found = Rehearsal()

    def play(self, shards: TimedIterator[Shard]) -> None:
        """Make steps until there are enough and the time is over."""
        deadline = time.perf_counter() + self._case.seconds
        body = self._strategy.body if isinstance(self._strategy, LocalSgd) else None
        before = body.read() if body is not None else None
        clocks = _clocks()
        for number in range(MOST + WARM_UP):
            is_merge = self._step(number, shards, clocks)
            if is_merge and body is not None and before is not None:
                # Merged with echoes, weights are no network's any more.
                body.write(before)
            clocks = _clocks()
            enough = len(self.found.steps_s) >= FEWEST
            if enough and (self.found.merges_s or not self._case.merge) and clocks[0] > deadline:
                break

    def _step(self, number: int, shards: TimedIterator[Shard], began: Clocks) -> bool:
        """Make a step; whether it ended in a merge."""
        traffic, waited_s, found = self._comm.traffic, shards.waited_s, self.found
        before_s, seen = traffic.communication_s, len(self._loopback.noted)
        totals = self._strategy.train_step(number, shards, 0.0)
        data_s, update_s = shards.waited_s - waited_s, self._strategy.update_s
        spent = {"data_s": data_s, "update_s": update_s}
        self._log.step(number + 1, {"loss": totals.loss, "lr": 0.0}, spent)
        answered_s = traffic.communication_s - before_s
        first, second, third = (
            now - then - answered_s for now, then in zip(_clocks(), began, strict=True)
        )
        is_merge = self._case.merge and self._strategy.is_sync_point(number + 1)
        exchanges = self._loopback.noted[seen:]
        if is_merge:
            found.merge_exchanges = exchanges
        else:
            found.exchanges = exchanges
        if number >= WARM_UP:
            (found.merges_s if is_merge else found.steps_s).append((first, second, third))
            found.data_s.append(data_s)
            found.update_s.append(update_s)
        return is_merge


Clocks = tuple[float, float, float]


def _clocks() -> Clocks:
    """Seconds by the clock, of this thread's work and of the process's."""
    return time.perf_counter(), time.thread_time(), time.process_time()


def _payload_bytes(strategy: Any) -> int:
    step = getattr(strategy, "step", None)
    if step is None:  # of local SGD, whose ranks add nothing up within a step
        return 0
    return int(sum(step.state.sections) * step.state.dtype.itemsize)
