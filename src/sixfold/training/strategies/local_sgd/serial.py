"""The serial run beside local SGD: the same images, one after another, by one worker.

In every round it learns first from the images of worker 0, in the same batches, then from those of
worker 1, and so on: block k of its deltas is what serial training makes of the very images from
which worker k has made its delta. It has a trajectory of its own, which begins where the local
phase begins, and takes n times as long as a worker's round.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sixfold.distributed.process_group import Communicator
from sixfold.training.step.step import Shard, StepTotals
from sixfold.training.strategies.local_sgd.merge import Facts, Merger
from sixfold.training.strategies.local_sgd.plan import LocalPlan
from sixfold.training.strategies.local_sgd.worker_state import WorkerState, WorkerStateAccess
from sixfold.training.strategies.sync.strategy import Sync


def local_step(
    trainer: Sync, plan: LocalPlan, number: int, shards: Iterator[Shard], lr: float
) -> StepTotals | None:
    """A worker's step on images of its own; None if it has none.

    `trainer` is synchronous training with one rank; `shards` yields the step's shards.
    """
    if not plan.count(number):
        return None
    trainer.plan, trainer.step.draw.seed = plan, plan.seed
    return trainer.train_step(number, shards, lr)


class SerialRun:
    """Trains serially over the images of all workers, on rank 0.

    `trainer` is synchronous training with one rank; `body` reads and writes what it changes, and
    always leaves it as it was found.
    """

    def __init__(
        self, comm: Communicator, trainer: Sync, body: WorkerStateAccess, plans: Sequence[LocalPlan]
    ) -> None:
        self._world, self._trainer, self._body, self._plans = comm, trainer, body, plans

    def follow(
        self, serial: WorkerState, first: int, rates: Sequence[float], merger: Merger
    ) -> tuple[WorkerState, Facts, Tensor]:
        """Train over a round's images, from its first step on, with the learning rate of each step.

        Gives the serial run after the round; statistics of its deltas, per block and over all; and
        the delta over all, (P,) float64. `merger` is for the statistics.
        """
        weights = self._body.weights
        kept = self._body.read()
        self._body.write(serial)
        blocks = []
        begin = before = serial.vector[:weights].double()
        try:
            for plan in self._plans:
                shards = plan.between(first, first + len(rates))
                for number, lr in enumerate(rates, start=first):
                    local_step(self._trainer, plan, number, shards, lr)
                    self._world.keep_alive()
                after = self._body.state.parameters.double()
                blocks.append(merger.movements(before, after - before))
                before = after
            found = self._body.read()
        finally:
            self._body.write(kept)
        whole = merger.movements(begin, before - begin)
        layers = {
            name: {
                "absolute": [block[name][0] for block in blocks],
                "percent": [block[name][1] for block in blocks],
                "absolute_all": whole[name][0],
                "percent_all": whole[name][1],
            }
            for name in whole
        }
        return found, {"layers": layers}, before - begin


def cosine(left: Tensor, right: Tensor) -> float | None:
    """The cosine between two deltas; None if one of them is zero."""
    norms = float(torch.linalg.vector_norm(left)) * float(torch.linalg.vector_norm(right))
    return float(left @ right) / norms if norms else None
