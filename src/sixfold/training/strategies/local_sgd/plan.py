"""Which images each worker of local SGD learns from.

The training images are dealt out once: worker k of n owns a share of them, in proportion to its
part of the batch, and visits its share in an order of its own every epoch. A step of B images is a
step of every worker on its own B/n. In the last step of an epoch some workers may have fewer
images than others, or none: hence the weights by examples.

With one worker these are the images, shards and keys of `sync`.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sixfold.core.random_keys import key
from sixfold.data import permutation
from sixfold.distributed.logical_shards import shard_bounds
from sixfold.distributed.process_group import alone
from sixfold.training.step.batches import BatchPlan
from sixfold.training.step.step import Shard


@dataclass(frozen=True, kw_only=True)
class LocalPlan(BatchPlan):
    """The batches of one worker."""

    share: NDArray[np.int64]  # (m,) the training images that it owns, ascending
    batch: int  # how many of them it takes a step

    def place(self, step: int) -> tuple[int, int, int]:
        """Epoch of a step, and its first and one-past-last place in the worker's share."""
        epoch, number = divmod(step, self.budget.steps_per_epoch)
        start, stop = (min(n * self.batch, len(self.share)) for n in (number, number + 1))
        return epoch, start, stop

    def samples(self, step: int) -> int:
        """How many images a step has for this worker; possibly none."""
        _, start, stop = self.place(step)
        return stop - start

    def count(self, step: int) -> int:
        """L, the number of logical shards of a step; 0 if it has no images for this worker."""
        return super().count(step) if self.samples(step) else 0

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The worker's share in the order in which an epoch visits it."""
        return self.share[permutation(self.seed, epoch, len(self.share))]

    def between(self, first: int, stop: int) -> Iterator[Shard]:
        """All shards of the steps from `first` up to `stop`, the last excluded."""
        budget = dataclasses.replace(self.budget, total_steps=stop)
        return dataclasses.replace(self, budget=budget).own_shards(alone(), first)


def local_plan(plan: BatchPlan, worker: int, workers: int) -> LocalPlan:
    """The batches of a worker, from those of synchronous training, with an image for each."""
    images, batch = plan.budget.images, plan.budget.batch_size
    low, high = shard_bounds(batch, workers, worker)
    deck = permutation(key(plan.seed, "share"), 0, images)
    dealt = deck[images * low // batch : images * high // batch]
    given = {field.name: getattr(plan, field.name) for field in dataclasses.fields(BatchPlan)}
    given["seed"] = plan.seed if worker == 0 else key(plan.seed, "worker", worker)
    return LocalPlan(**given, share=np.sort(dealt), batch=high - low)
