"""The sum over a step's logical shards, each computed by the rank that owns it."""

import dataclasses
from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from sixfold.distributed.collectives import rank_all_reduce, tree_all_reduce
from sixfold.distributed.logical_shards import Node, owned_shards
from sixfold.distributed.process_group import Buffer, Communicator
from sixfold.training.step.step import Shard, Step
from sixfold.training.strategies.sync.audit import Audit, Digests, digest


class ShardSum:
    """Computes the own shards of a step and adds up everybody's.

    Args:
        comm: the ranks among which the shards are divided.
        step: how a shard is computed.
        exact: add in the fixed tree (True) or by rank (False).
        audit: compares shards that are computed twice; None: none are.
    """

    def __init__(
        self, comm: Communicator, step: Step, *, exact: bool, audit: Audit | None = None
    ) -> None:
        self._world, self._step, self._audit = comm, step, audit
        self._reduce = tree_all_reduce if exact else rank_all_reduce

    def add_up(self, number: int, count: int, shards: Iterator[Shard], out: Tensor) -> None:
        """Write the payload of the whole step.

        Args:
            number: of the step, from 0.
            count: L, its number of logical shards.
            shards: yields this rank's shards; no more are taken than belong to the step.
            out: (payload,), overwritten; the same on every rank afterwards.
        """
        comm, step = self._world, self._step
        if comm.size == count == 1 and self._audit is None and step.lockstep is None:
            step.shard_payload(number, next(shards), out)  # which is the sum
            return
        own = owned_shards(count, comm.size, comm.rank)

        # Ranks without a shard do not take part in the sums within a step.
        active = dataclasses.replace(comm, size=min(comm.size, count))

        def total_sum(partials: list[tuple[Node, Buffer]], out: Buffer) -> Buffer:
            return tree_all_reduce(active, partials, count, out=out)

        drawn = [] if self._audit is None else self._audit.drawn(number, count)
        audited: Digests = {}

        def note(shard: int, payload: Tensor) -> None:
            if any(shard in run for run in drawn):
                audited[shard] = digest(payload)

        try:
            partials = step.partials(number, islice(shards, len(own)), total_sum, note)
            if drawn and self._audit is not None:
                self._audit.compare(number, drawn, audited)
            self._reduce(comm, partials, count, out=out.numpy())
        finally:
            step.release()
