"""The network of local SGD between rounds: the same on all members of a group.

With several groups what is evaluated is their *consensus*, the mean over all workers, and a
checkpoint holds every group's training.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sixfold.core.errors import UserError
from sixfold.data import BatchMaker, Part
from sixfold.distributed.collectives import all_gather_data, gather
from sixfold.distributed.process_group import Communicator, alone
from sixfold.training.checkpoint import load_checkpoint, load_extra, save_checkpoint
from sixfold.training.evaluate import Evaluation, evaluate
from sixfold.training.losses.loss import Plain
from sixfold.training.progress import Progress
from sixfold.training.strategies.local_sgd.groups import Groups, mean_over
from sixfold.training.strategies.local_sgd.merges.genetic import Score
from sixfold.training.strategies.local_sgd.worker_state import WorkerState, WorkerStateAccess
from sixfold.training.strategies.replicated import ReplicatedModel, move_state


class LocalNetwork(ReplicatedModel):
    """How the networks of the workers are evaluated, saved and loaded.

    Args:
        groups_at: the groups after so many steps.
        alike_at: sets of ranks that hold the same after so many steps.
        start: the step with which the run begins.

    Attributes:
        velocity: (P,) float64, the outer optimizer's of this rank's group; empty without one.
        serial: on rank 0, the training of the serial run that goes along, if there is one.
    """

    def __init__(
        self,
        comm: Communicator,
        body: WorkerStateAccess,
        make_batch: BatchMaker,
        loss: Plain,
        groups_at: Callable[[int], Groups],
        alike_at: Callable[[int], Groups],
        start: int,
    ) -> None:
        super().__init__(comm, body.state, body.optimizer, make_batch, loss)
        self._body, self._groups_at = body, groups_at
        self.together = len(groups_at(0)) > 1
        self.velocity = torch.zeros(0, dtype=torch.float64)
        self.serial: WorkerState | None = None
        self._alike_at = alike_at
        self.held_at = start  # the step after which all could go on from what this rank holds
        self._begun: WorkerState | None = None  # that, while a round is under way
        self._merged: tuple[int, WorkerState, Tensor] | None = None  # step, and what it ends with

    def begin_round(self) -> WorkerState:
        """What the round begins with, which is kept until it has ended."""
        self._begun = self._body.read()
        return self._begun

    def end_round(self, done: int, merged: WorkerState, velocity: Tensor) -> None:
        """Go on from a merge when nobody's loss can keep the others from it.

        Raises:
            PeerLostError: if a rank is gone; what has become of the merge, `hand_over` decides.
        """
        self._merged = done, merged, velocity
        if self._world.elastic:
            self._world.barrier()
        self._take()

    def _take(self) -> None:
        assert self._merged is not None
        self.held_at, merged, self.velocity = self._merged
        self._body.write(merged)
        self._begun = self._merged = None

    def hand_over(self, source: int, lacking: Sequence[int]) -> bool:  # noqa: ARG002 - protocol
        """All go on from the last merge, which a lost rank's place gets from its group."""
        comm = self._world
        told = all_gather_data(comm, [self.held_at, self._merged and self._merged[0]])
        newest = told[source][0]
        if self._merged is not None and self._merged[0] == newest:
            self._take()
        elif self._begun is not None:
            self._body.write(self._begun)
        self._begun = self._merged = None
        alike = self._alike_at(newest)
        for rank in (rank for rank, steps in enumerate(told) if newest not in steps):
            group = next(group for group in alike if rank in group)
            givers = [other for other in group if newest in told[other]]
            if not givers:
                return False
            if comm.rank in (rank, givers[0]):
                self._move(givers[0], rank, newest)
        return True

    def _move(self, source: int, target: int, step: int) -> None:
        """Copy what one rank holds to another."""
        comm, velocity = self._world, self.velocity.numpy()
        if comm.rank == target:
            self.held_at = -1
        move_state(comm, self._state, self._optimizer, source, [target])
        if comm.rank == source:
            comm.exchange({target: velocity}, {})
            return
        comm.exchange({}, {source: velocity})
        self.held_at = step

    def consensus(self) -> Tensor:
        """The mean of all workers' networks, (P + Q,); all ranks take part."""
        own = self._body.read().vector[: self._body.network]
        return mean_over(self._world, own)

    def evaluate(self, part: Part) -> Evaluation | None:
        """Classify a part with the consensus; its chunks are shared out over the ranks."""
        if not self.together:
            return super().evaluate(part)
        kept = self._body.read()
        self._body.write_network(self.consensus())
        try:
            return super().evaluate(part)
        finally:
            self._body.write(kept)

    def score(self, network: Tensor, part: Part) -> Score:
        """Quality and loss of a network (P + Q,) on a part, computed by this rank alone."""
        kept = self._body.read()
        self._body.write_network(network)
        try:
            found = evaluate(alone(), self.model, part, self._make_batch, self._loss)
        finally:
            self._body.write(kept)
        assert found is not None
        return found.quality, found.loss

    def save(self, folder: Path, progress: Progress, *, keep: int) -> None:
        """Write a checkpoint, on rank 0; with several groups all ranks take part."""
        extra = {"workers": torch.tensor(self._world.size)}
        if len(self.velocity):
            extra["velocity"] = self.velocity
        if self.serial is not None:
            extra |= _packed("serial", self.serial)
        if self.together:
            extra |= self._groups_packed(progress.step)
        if self._world.rank == 0:
            save_checkpoint(folder, progress, self._state, self._optimizer, keep=keep, extra=extra)

    def restore(self, path: Path) -> Progress:
        """Read a checkpoint, on every rank."""
        self.held_at, self._begun, self._merged = -1, None, None
        progress = load_checkpoint(path, self._state, self._optimizer)
        extra = load_extra(path)
        self._check_workers(int(extra.get("workers", torch.tensor(self._world.size))))
        if "velocity" in extra and len(self.velocity):
            self.velocity = extra["velocity"]
        if self._world.rank == 0 and "serial.vector" in extra:
            self.serial = _unpacked("serial", extra)
        if self.together:
            groups = self._groups_at(progress.step)
            own = next(n for n, group in enumerate(groups) if self._world.rank in group)
            self._body.write(_unpacked(f"group{own}", extra))
            if len(self.velocity):
                self.velocity = extra[f"group{own}.velocity"]
        self.held_at = progress.step
        return progress

    def _check_workers(self, saved: int) -> None:
        size = self._world.size
        if saved == size:
            return
        if self.together:
            raise UserError(
                f"--workers {size}: the groups of this run were made of {saved} workers; go on "
                f"with --workers {saved}"
            )
        if self._world.rank == 0:
            text = (
                f"this run had {saved} workers and goes on with {size}: local SGD then finds "
                "other weights than with the same number throughout"
            )
            self._world.report({"kind": "note", "text": text})

    def _groups_packed(self, step: int) -> dict[str, Tensor]:
        """Every group's training, as tensors by name, on rank 0; nothing on the others."""
        leaders = [group[0] for group in self._groups_at(step)]
        own, leads = self._body.read(), self._world.rank in leaders
        vectors = gather(self._world, own.vector.numpy()[None][: int(leads)])
        velocities = gather(self._world, self.velocity.numpy()[None][: int(leads)])
        counts = all_gather_data(self._world, [own.counters.tolist(), own.updates])
        packed: dict[str, Tensor] = {}
        if self._world.rank != 0:
            return packed
        for number, rank in enumerate(leaders):
            body = WorkerState(
                vector=torch.from_numpy(vectors[rank][0].copy()),
                counters=torch.tensor(counts[rank][0], dtype=torch.int64),
                updates=counts[rank][1],
            )
            packed |= _packed(f"group{number}", body)
            packed[f"group{number}.velocity"] = torch.from_numpy(
                np.array(velocities[rank][0], np.float64)
            )
        return packed


def _packed(name: str, body: WorkerState) -> dict[str, Tensor]:
    return {
        f"{name}.vector": body.vector,
        f"{name}.counters": body.counters,
        f"{name}.updates": torch.tensor(body.updates),
    }


def _unpacked(name: str, extra: dict[str, Tensor]) -> WorkerState:
    return WorkerState(
        vector=extra[f"{name}.vector"],
        counters=extra[f"{name}.counters"],
        updates=int(extra[f"{name}.updates"]),
    )
