"""Synchronous data parallel.

Every rank computes some of a step's logical shards, the gradients of all shards are added, and
every rank makes the same update:

    w(t+1) = update( w(t),  1/n  sum over shards s  of  gradient of the loss of s at w(t) )

Guarantee: equal to serial training bit for bit, for any number of ranks and on any engine, since
the sum is made in a fixed tree over the shards (`sixfold.shards`). With ``--exact false`` each
rank first adds its own shards; the result then depends on the number of ranks, by rounding alone.

Traffic: each rank sends about twice the payload (gradient, buffers, loss) a step.

When a rank dies the step cannot be finished: the gang ends, and starts again from the last
checkpoint if the engine has restarts left. Nothing is lost but time.

Chen et al., "Revisiting distributed synchronous SGD", 2016, without their backup workers.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from itertools import islice

from sixfold.collectives import rank_all_reduce, tree_all_reduce
from sixfold.errors import NonFiniteLossError
from sixfold.shards import Node, owned_shards
from sixfold.step.optimizer import Optimizer
from sixfold.step.step import Shard, Step, StepTotals
from sixfold.world import Buffer, World


class Sync:
    """The strategy `sync`.

    Args:
        world: the gang.
        step: the network and how its shards are computed.
        optimizer: the update rule.
        exact: add in the fixed tree (True) or by rank (False).

    Attributes:
        update_s: seconds that the last update of the weights took.
    """

    def __init__(self, world: World, step: Step, optimizer: Optimizer, *, exact: bool) -> None:
        self.world, self.step, self.optimizer = world, step, optimizer
        self._reduce = tree_all_reduce if exact else rank_all_reduce
        self.update_s = 0.0
        self._total = step.new_payload()

    def advance(self, number: int, count: int, shards: Iterator[Shard], lr: float) -> StepTotals:
        """Make one step.

        Args:
            number: of the step, from 0.
            count: L, its number of logical shards.
            shards: yields this rank's shards of the step, in order; no more are taken.
            lr: learning rate of the step.

        Raises:
            NonFiniteLossError: if the loss is infinite or NaN; the weights are left as they were.
            PeerLostError: if a rank is gone.
        """
        world, step = self.world, self.step
        own = owned_shards(count, world.size, world.rank)

        # Ranks without a shard do not take part in the sums within a step.
        active = dataclasses.replace(world, size=min(world.size, count))

        def total_sum(partials: list[tuple[Node, Buffer]], out: Buffer) -> Buffer:
            return tree_all_reduce(active, partials, count, out=out)

        partials = step.partials(number, islice(shards, len(own)), total_sum)
        self._reduce(world, partials, count, out=self._total.numpy())
        step.release()
        totals = step.finish(self._total)
        if not math.isfinite(totals.loss):
            raise NonFiniteLossError(
                f"the loss of step {number + 1} is {totals.loss}: training stops, the last "
                "checkpoint is kept; try a smaller --lr, or --warmup"
            )
        begin = time.perf_counter()
        self.optimizer.update(step.state.parameters, totals.gradient, lr)
        self.update_s = time.perf_counter() - begin
        return totals
