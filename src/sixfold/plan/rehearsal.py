"""The rehearsal of a rank's part in a step: the strategy's own code, with echoes for peers.

What is timed is everything that a rank does between two steps' ends but for its exchanges: data,
forward, backward, sums, update, log. Processor time is taken beside the clock's: it does not count
what other programs do on the machine meanwhile, and does count waiting for memory.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold import data as datasets
from sixfold.config import EngineConfig, RunConfig, TrainConfig
from sixfold.plan.echo import Exchange, echo_world
from sixfold.run_directory import RankFiles, RunDirectory
from sixfold.split.grid import Grid, Mesh, parse_grid
from sixfold.strategies.opening import open_strategy
from sixfold.training_log import TimedIterator, TrainLog

WARM_UP = 2
FEWEST = 3
MOST = 200


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is rehearsed.

    Attributes:
        mesh: the axes of the tile of which one rank's part is played, as `--grid` takes them;
            empty for a whole network.
        samples: images of a step.
        shards: logical shards of them.
        merge: whether each second step ends in a merge of local SGD between two workers.
        concurrency: ranks of a host that rehearse at the same time.
        seconds: about how long.
    """

    mesh: str = ""
    samples: int
    shards: int
    merge: bool = False
    concurrency: int = 1
    seconds: float = 0.4

    @property
    def shard(self) -> float:
        """Samples of a shard."""
        return self.samples / self.shards


def scene_config(config: TrainConfig, scene: Scene) -> TrainConfig:
    """The settings of a run whose steps are those of the scene."""
    strategy = dataclasses.replace(
        type(config.strategy)(),
        strategy="local_sgd" if scene.merge else "model_parallel" if scene.mesh else "sync",
        grid=scene.mesh,
    )
    samples = scene.samples * (2 if scene.merge else 1)
    training = dataclasses.replace(
        config.training, batch_size=samples, shards=scene.shards, epochs=None, steps=10**6
    )
    local = type(config.local_sgd)()
    if scene.merge:
        wanted = config.local_sgd.merge
        local = dataclasses.replace(
            local, local_steps=2, merge=wanted if wanted not in ("best", "genetic") else "mean"
        )
    return dataclasses.replace(
        config,
        training=training,
        beginning=type(config.beginning)(),
        strategy=strategy,
        local_sgd=local,
        engine=EngineConfig(),
        run=RunConfig(),
    )


def rehearse(
    config: TrainConfig, data: datasets.DataSet, rank: int, scene: Scene
) -> dict[str, Any]:
    """Play one rank's part until the time is over.

    Args:
        config: the settings of the run that is planned, with the data resolved.
        data: the same, open, with at least as many images as the scene's step.
        rank: whose part, modulo the number of ranks in the tile.
        scene: what is played.

    Returns:
        Plain data: seconds of every step (`steps_s`; with `merge`, `merges_s` of those that end in
        one) by the clock, of the processor in the step's thread, and of it in all threads; of its
        data and update (`data_s`, `update_s`); and the exchanges of one step.
    """
    grid = parse_grid(scene.mesh)[0] or Grid(mesh=Mesh())
    size = 2 if scene.merge else grid.size
    world, echo = echo_world(rank % size, size)
    config = scene_config(config, scene)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create()
        attempt = directory.claim()
        files = RankFiles(directory.ticket(), attempt=attempt, rank=0, host=world.host)
        strategy = open_strategy(world, config, data)
        payload_bytes = _payload_bytes(strategy)
        log = TrainLog(files, world, 0)
        steps: list[Clocks] = []
        merges: list[Clocks] = []
        data_s: list[float] = []
        updates: list[float] = []
        noted: list[Exchange] = []
        merge_noted: list[Exchange] = []
        deadline = time.perf_counter() + scene.seconds
        try:
            with datasets.prefetch(strategy.supply(0), depth=4) as supply:
                timed = TimedIterator(supply)
                ended, thread_s, process_s = _clocks()
                for number in range(MOST + WARM_UP):
                    before_s, waited_s = world.traffic.communication_s, timed.waited_s
                    seen = len(echo.noted)
                    totals = strategy.advance(number, timed, 0.0)
                    spent = {
                        "data_s": timed.waited_s - waited_s,
                        "update_s": strategy.update_s,
                    }
                    log.step(number + 1, {"loss": totals.loss, "lr": 0.0}, spent)
                    now, thread_now_s, process_now_s = _clocks()
                    answered_s = world.traffic.communication_s - before_s
                    took = (
                        now - ended - answered_s,
                        thread_now_s - thread_s - answered_s,
                        process_now_s - process_s - answered_s,
                    )
                    ended, thread_s, process_s = now, thread_now_s, process_now_s
                    is_merge = scene.merge and strategy.settled(number + 1)
                    if number >= WARM_UP:
                        (merges if is_merge else steps).append(took)
                        data_s.append(spent["data_s"])
                        updates.append(spent["update_s"])
                    if is_merge:
                        merge_noted = echo.noted[seen:]
                    else:
                        noted = echo.noted[seen:]
                    enough = len(steps) >= FEWEST and (merges or not scene.merge)
                    if enough and now > deadline:
                        break
        finally:
            log.close()
    return {
        "steps_s": [list(step) for step in steps],
        "merges_s": [list(step) for step in merges],
        "data_s": data_s,
        "update_s": updates,
        "payload_bytes": payload_bytes,
        "exchanges": [[list(e.sent), list(e.received)] for e in noted],
        "merge_exchanges": [[list(e.sent), list(e.received)] for e in merge_noted],
    }


Clocks = tuple[float, float, float]


def _clocks() -> Clocks:
    """Seconds by the clock, of this thread's work and of the process's."""
    return time.perf_counter(), time.thread_time(), time.process_time()


def _payload_bytes(strategy: Any) -> int:
    step = getattr(strategy, "step", None)
    if step is None:  # of local SGD, whose ranks add nothing up within a step
        return 0
    return int(sum(step.state.sections) * step.state.dtype.itemsize)
