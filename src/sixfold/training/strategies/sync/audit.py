"""The audit: some shards are computed once more by another rank, and compared bit for bit.

In a step that is drawn every rank computes one shard, or more, of the rank before it again, from
the weights, buffers and samples of the step; so the ranks take the same time and do not wait for
each other. A shard is audited with the probability that is asked for. What is drawn follows from
the seed and the step alone, and nothing is left behind: the training has the same bits without it.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
from torch import Tensor

from sixfold.core.errors import AuditError, PeerLostError, UnfitRankError
from sixfold.core.random_keys import key
from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.logical_shards import owned_shards
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import restore_randomness, save_randomness
from sixfold.distributed.process_group.communicator import bytes_of
from sixfold.training.step.batches import BatchPlan
from sixfold.training.step.step import Step

DIGEST_BYTES = 16

Digests = dict[int, bytes]
"""Of shards, by number."""


class Audit:
    """Audits the steps of one rank.

    Args:
        comm: the process group.
        step: how a shard is computed.
        plan: which samples each shard has.
        share: of the shards that are audited.
        excludes: whether the others go on without a rank that was wrong.
        third: computes a shard of a step where two ranks are all there are; see `arbiter`.

    Attributes:
        shards: how many were audited so far, by all ranks.
    """

    def __init__(
        self,
        comm: Communicator,
        step: Step,
        plan: BatchPlan,
        share: float,
        *,
        excludes: bool = False,
        third: Callable[[int, int], bytes] = lambda _number, _shard: b"",
    ) -> None:
        self._excludes, self._third = excludes, third
        self._world, self._step, self._plan, self._share = comm, step, plan, share
        self._payload: Tensor | None = None
        self._order = (-1, np.empty(0, np.int64))
        self.shards = 0

    def drawn(self, number: int, count: int) -> list[list[int]]:
        """The shards of each rank's run that are audited in a step; empty if none are.

        Args:
            number: of the step, from 0.
            count: L, its number of logical shards.
        """
        comm = self._world
        active = min(comm.size, count)
        if active < 2:  # nobody else has the sums of a synchronised batch-norm, or is there
            return []
        place, chance = divmod(key(self._plan.seed, "audit", number), 1 << 32)
        found = []
        for rank in range(active):
            run = owned_shards(count, comm.size, rank)
            most = min(int(self._share * len(run) + chance / (1 << 32)), len(run))
            found.append(sorted(run[(place + index) % len(run)] for index in range(most)))
        return found if any(found) else []

    def compare(self, number: int, drawn: Sequence[Sequence[int]], own: Digests) -> None:
        """Compute the shards of the rank before again, and compare everybody's.

        Args:
            number: of the step, from 0, whose shards have just been computed.
            drawn: from `drawn`.
            own: this rank's shards of those.

        Raises:
            AuditError: on every rank, if a shard has come out otherwise.
            UnfitRankError: on the rank that was wrong, if it is to be excluded.
            PeerLostError: on the others then.
        """
        comm, ranks = self._world, len(drawn)
        told = b""
        if comm.rank < ranks:
            before = drawn[comm.rank - 1]
            again = {shard: self._again(number, shard) for shard in before}
            told = b"".join([*own.values(), *again.values()])
        sizes = [len(drawn[rank]) + len(drawn[rank - 1]) for rank in range(ranks)]
        heard = self._told_by_all(told, dict(enumerate(sizes)))
        self.shards += sum(map(len, drawn))
        for owner, shards in enumerate(drawn):
            auditor = (owner + 1) % ranks
            firsts, seconds = heard[owner][: len(shards)], heard[auditor][len(drawn[auditor]) :]
            for shard, first, second in zip(shards, firsts, seconds, strict=True):
                if first != second:
                    self._fail(number, shard, {owner: first, auditor: second}, ranks)

    def _told_by_all(self, told: bytes, sizes: Mapping[int, int]) -> dict[int, list[bytes]]:
        """What some ranks tell everybody: so many digests each."""
        comm = self._world
        boxes = {rank: np.empty(size * DIGEST_BYTES, np.uint8) for rank, size in sizes.items()}
        if comm.rank in boxes:
            boxes[comm.rank][:] = np.frombuffer(told, np.uint8)
            sends = dict.fromkeys(comm.others, boxes[comm.rank])
        else:
            sends = {}
        comm.exchange(sends, {rank: box for rank, box in boxes.items() if rank != comm.rank})
        cuts = {rank: range(0, len(box), DIGEST_BYTES) for rank, box in boxes.items()}
        return {
            rank: [box[cut : cut + DIGEST_BYTES].tobytes() for cut in cuts[rank]]
            for rank, box in boxes.items()
        }

    def _again(self, number: int, shard: int) -> bytes:
        """A shard's digest, computed here and now."""
        epoch = self._plan.place(number)[0]
        if self._order[0] != epoch:
            self._order = epoch, self._plan.order(epoch)
        if self._payload is None:
            self._payload = self._step.new_payload()
        samples, randomness = self._plan.shard(number, shard, self._order[1]), save_randomness()
        self._step.shard_again(number, samples, self._payload)
        restore_randomness(randomness)
        return digest(self._payload)

    def _fail(self, number: int, shard: int, found: Mapping[int, bytes], ranks: int) -> None:
        """Find out who is wrong, by a third rank or by both computing it again, and raise."""
        (owner, first), (auditor, second) = found.items()
        judges = [(auditor + 1) % ranks] if ranks > 2 else [owner, auditor]
        told = self._again(number, shard) if self._world.rank in judges else b""
        heard = self._told_by_all(told, dict.fromkeys(judges, 1))
        hosts = all_gather_data(self._world, self._world.host)
        last = {rank: digests[0] for rank, digests in heard.items()}

        def name(rank: int) -> str:
            return f"{hosts[rank]} (rank {rank})"

        who = {second: owner, first: auditor}
        if ranks > 2:
            (third,) = judges
            wrong = who.get(last[third])
            others = f"{name(third)} agrees with "
        else:
            # One that now gives what the other had has erred once.
            wrong = owner if last[owner] == second else auditor if last[auditor] == first else None
            others = "computed again, it is that of "
            if wrong is None:
                told = self._third(number, shard) if self._world.rank == 0 else b""
                wrong = who.get(bytes.fromhex(all_gather_data(self._world, told.hex())[0]))
                others = "the launcher agrees with "
        what = f"audit of step {number + 1}: the gradient of shard {shard} differs"
        if wrong is None:
            more = "" if ranks > 2 else "; with three workers a third one decides"
            raise AuditError(
                f"{what} between {name(owner)} and {name(auditor)}, and it cannot be told which is "
                f"wrong{more}; {_STOPPED}"
            )
        right = auditor if wrong == owner else owner
        if self._excludes and self._world.elastic:
            text = f"{what}: {name(wrong)} has computed it wrongly, {others}{name(right)}"
            if self._world.rank == right:
                self._world.report({"kind": "note", "text": f"{text}; the others go on without it"})
            if self._world.rank == wrong:
                raise UnfitRankError(right, f"{text}; this rank leaves")
            raise PeerLostError(wrong, text)
        raise AuditError(
            f"{what}: {name(wrong)} has computed it wrongly, {others}{name(right)}; {_STOPPED}, "
            "without this host"
        )


_STOPPED = "training stops before this step's update, go on with --resume from the last checkpoint"


def digest(payload: Tensor) -> bytes:
    """A hash of what a shard amounts to."""
    return blake2b(bytes_of(payload.numpy()).data, digest_size=DIGEST_BYTES).digest()
