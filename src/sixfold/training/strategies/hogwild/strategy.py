"""Hogwild: lock-free updates of shared weights by the processes of one machine.

Weights and the optimizer's state lie in memory that the ranks of a group share. Every rank takes a
mini-batch of its own, computes the gradient at the weights as they are while others change them,
and updates them in place. Nobody locks anything and nobody waits. With t counting the mini-batches,

    v = m v + g_t( w' );   w = w - lr v      element by element, w' a mixture of recent weights

Guarantee: none beyond convergence in practice; this is an approximation. With n ranks a gradient
is computed at weights that lack up to about n - 1 updates of the others, in no consistent order,
and when two ranks write one element at the same instant one of the two changes is lost. The
analysis of the paper is for sparse gradients, where that is rare; the gradients of a network are
dense, and what makes it work here is that an update takes a small part of a step's time. With one
rank there is nothing to race with, and the result equals serial training bit for bit.

On a cluster the ranks that share memory form groups (`sixfold.training.strategies.hogwild.groups`).
Every ``--merge-every`` rounds all ranks meet, and the groups' weights w_i, and the optimizer's
state, are merged by the number of examples n_i that each has seen since:  w = sum_i n_i w_i / sum_i
n_i. A group of one rank is plain SGD between the merges, and the run says so.

A *round* is what is logged: every rank makes one mini-batch of ``--batch-size`` images, which is a
step of the optimizer, so a round has as many steps as ranks. An epoch has the very mini-batches of
serial training.

Traffic: within a group none, only a barrier where ranks meet. Among groups, one rank of each sends
about 2 (G-1)/G times weights, state and buffers at a merge of G groups.

When a rank dies the process group ends, and starts again from the last checkpoint if the engine has
restarts left. The shared memory goes with its processes, whatever kills them.

Recht et al., "Hogwild!: a lock-free approach to parallelizing stochastic gradient descent",
NIPS 2011. It departs from the paper in sharing a momentum term, and in dense updates.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.data import DataSet, permutation
from sixfold.distributed.collectives import all_gather_data, rank_all_reduce, tree_all_reduce
from sixfold.distributed.logical_shards import Node
from sixfold.distributed.process_group import Buffer, Communicator
from sixfold.distributed.process_group.communicator import alone
from sixfold.distributed.process_group.shared_memory import SharedMemory
from sixfold.training.config import TrainConfig
from sixfold.training.losses.registry import build_loss
from sixfold.training.network import initial_network
from sixfold.training.step.batches import BatchPlan, plan_batches
from sixfold.training.step.canary import canary
from sixfold.training.step.flat import FlatState
from sixfold.training.step.micro_batches import note
from sixfold.training.step.norm_sync import has_batch_norm
from sixfold.training.step.optimizer import whole_optimizer
from sixfold.training.step.schedule import TrainingLength
from sixfold.training.step.step import Shard, Step, StepTotals, open_step
from sixfold.training.step.update_rule import Optimizer
from sixfold.training.strategies.hogwild.groups import find_groups
from sixfold.training.strategies.replicated import ReplicatedModel
from sixfold.training.strategies.staleness import advice, diverged_by_delay


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How serial training's mini-batches fall to the ranks."""

    serial: TrainingLength  # the steps of serial training
    ranks: int  # how many ranks

    def budget(self) -> TrainingLength:
        """The run in rounds, each of up to one mini-batch a rank."""
        wide = TrainingLength(
            images=self.serial.images, batch_size=self.serial.batch_size * self.ranks, total_steps=0
        )
        epochs, rest = divmod(self.serial.total_steps, self.serial.steps_per_epoch)
        total = epochs * wide.steps_per_epoch - (-rest // self.ranks)
        return dataclasses.replace(wide, total_steps=total)

    def batch(self, number: int, rank: int) -> int | None:
        """The serial step that a rank makes in a round; None if it has none."""
        per_epoch = self.serial.steps_per_epoch
        rounds = -(-per_epoch // self.ranks)
        epoch, place = divmod(number, rounds)
        batch = place * self.ranks + rank
        step = epoch * per_epoch + batch
        return step if batch < per_epoch and step < self.serial.total_steps else None

    def steps_in(self, rounds: int) -> int:
        """How many serial steps the first rounds make."""
        per_epoch = self.serial.steps_per_epoch
        epochs, rest = divmod(rounds, -(-per_epoch // self.ranks))
        made = epochs * per_epoch + min(rest * self.ranks, per_epoch)
        return min(made, self.serial.total_steps)

    def images(self, number: int, rank: int) -> int:
        """How many images that is."""
        step = self.batch(number, rank)
        if step is None:
            return 0
        _, start, stop = self.serial.place(step)
        return stop - start


class Commons:
    """What the ranks of a group share: weights, optimizer state, buffers and counters.

    All of it moves into `memory`, of at least `size_bytes`. `floats` is weights, optimizer state
    and the floating-point `buffers` as one vector; `counters` are the integer buffers.
    """

    def __init__(self, memory: SharedMemory, state: FlatState, optimizer: Optimizer) -> None:
        weights, buffers, counters, _ = state.sections
        slots = list(optimizer.slots)
        floats = weights * (1 + len(slots)) + buffers
        self.counters = torch.from_numpy(memory.array(np.int64, 0, counters))
        kind = np.dtype(str(state.dtype).removeprefix("torch."))
        self.floats = torch.from_numpy(memory.array(kind, _padded(8 * counters), floats))
        parts = torch.split(self.floats, [weights] * (1 + len(slots)) + [buffers])
        state.move_parameters(parts[0])
        for name, part in zip(slots, parts[1:-1], strict=True):
            part.copy_(optimizer.slots[name])
            optimizer.slots[name] = part
        self.buffers = parts[-1]

    @staticmethod
    def size_bytes(state: FlatState, optimizer: Optimizer) -> int:
        """How much memory it takes."""
        weights, buffers, counters, _ = state.sections
        floats = weights * (1 + len(optimizer.slots)) + buffers
        return _padded(8 * counters) + max(floats, 1) * state.dtype.itemsize


def _padded(count_bytes: int) -> int:
    return -(-count_bytes // 64) * 64


class Hogwild:
    """The strategy `hogwild`: `commons` is what this rank's group shares; `groups` are all."""

    def __init__(
        self,
        comm: Communicator,
        step: Step,
        plan: BatchPlan,
        optimizer: Optimizer,
        commons: Commons,
        groups: list[list[int]],
        network: ReplicatedModel,
        config: TrainConfig,
    ) -> None:
        self.comm, self.step, self.plan, self.optimizer = comm, step, plan, optimizer
        self.network = network
        self._rounds = Rounds(serial=plan.budget, ranks=comm.size)
        self.budget = self._rounds.budget()
        self.update_s = 0.0
        self._commons, self._groups, self._config = commons, groups, config.optimizer
        self._merge_every = config.strategy.merge_every
        self._checkpoint_every = config.run.checkpoint_every
        self._own = next(group for group in groups if comm.rank in group)
        self._examples = [0] * len(groups)
        self._apart = False
        self._made = 0  # rounds
        self._total = step.new_payload()

    def shards(self, first: int) -> Iterator[Shard]:
        """The shards of this rank's mini-batches."""
        self._made = first
        plan, epoch, order = self.plan, -1, np.empty(0, np.int64)
        for number in range(first, self.budget.total_steps):
            step = self._rounds.batch(number, self.comm.rank)
            if step is None:
                continue
            if plan.budget.place(step)[0] != epoch:
                epoch = plan.budget.place(step)[0]
                order = permutation(plan.seed, epoch, plan.budget.images)
            for index in range(plan.count(step)):
                yield plan.shard(step, index, order)

    def train_step(self, number: int, shards: Iterator[Shard], lr: float) -> StepTotals:
        """Make one mini-batch, and update the shared weights; loss and accuracy are this rank's."""
        self._made = number + 1
        if not self._apart:
            self._part()
        for place, group in enumerate(self._groups):
            self._examples[place] += sum(self._rounds.images(number, rank) for rank in group)
        step = self._rounds.batch(number, self.comm.rank)
        totals = StepTotals(gradient=self._total, loss=0.0, accuracy=0.0, samples=0)
        self.update_s = 0.0
        if step is not None:
            totals = self._make(step, shards, lr)
        if self.is_sync_point(number + 1):
            self._meet()
        images = sum(self._rounds.images(number, rank) for rank in range(self.comm.size))
        return dataclasses.replace(totals, samples=images)

    def _make(self, number: int, shards: Iterator[Shard], lr: float) -> StepTotals:
        state, shared, count = self.step.state, self._commons, self.plan.count(number)

        def total_sum(partials: list[tuple[Node, Buffer]], out: Buffer) -> Buffer:
            return tree_all_reduce(alone(), partials, count, out=out)

        # Forward passes change buffers in place, so each rank works on a copy.
        state.buffers.copy_(shared.buffers)
        before, counters = state.buffers.clone(), state.counters()
        partials = self.step.partials(number, islice(shards, count), total_sum)
        total_sum(partials, self._total.numpy())
        self.step.release()
        totals = self.step.finish(self._total)
        if not math.isfinite(totals.loss):
            others = len(self._own) - 1
            raise diverged_by_delay(number, totals.loss, others, self._config)
        begin = time.perf_counter()
        _add_change(shared.buffers, before, state.buffers)
        shared.counters += state.counters() - counters
        self.optimizer.updates = number
        self.optimizer.update(state.parameters, totals.gradient, lr)
        self.update_s = time.perf_counter() - begin
        return totals

    def is_sync_point(self, done: int) -> bool:
        """Where all meet: every `merge_every` steps, at ends of epochs, at checkpoints."""
        every = self._checkpoint_every
        return (
            done % self._merge_every == 0
            or done % self.budget.steps_per_epoch == 0
            or done == self.budget.total_steps
            or (every is not None and done % every == 0)
        )

    def canary(self) -> str:
        """Of the whole network."""
        return canary(self.step, self.plan)

    def figures(self) -> dict[str, Any]:
        """Who shared memory with whom, and what has been made in how many rounds."""
        return {
            "logical_shards": self.plan.count(0),
            "micro_batch": self.step.micro_batch.images,
            "left_to_autograd": self.step.executor.autograd_fallback(),
            "groups": self._groups,
            "merge_every": self._merge_every,
            "steps": self._rounds.steps_in(self._made),
            "rounds": self._made,
        }

    def _part(self) -> None:
        """Go apart again: when all have evaluated, saved or restored what they shared."""
        self.comm.barrier()
        if self.comm.rank == self._own[0]:
            self._commons.buffers.copy_(self.step.state.buffers)
            self._commons.counters.copy_(self.step.state.counters())
        self.comm.barrier()
        self._apart = True

    def _meet(self) -> None:
        """Wait for all, merge the groups, and have the same weights and buffers everywhere."""
        self.comm.barrier()
        if len(self._groups) > 1:
            if self.comm.rank == self._own[0]:
                self._merge()
            self.comm.barrier()
        self._examples = [0] * len(self._groups)
        self.step.state.buffers.copy_(self._commons.buffers)
        self.step.state.set_counters(self._commons.counters.clone())
        self._apart = False

    def _merge(self) -> None:
        """The mean over the groups, weighted by the examples that each has seen; by its leader."""
        leaders = [group[0] for group in self._groups]
        place = leaders.index(self.comm.rank)
        among = self.comm.subgroup(leaders)
        share = self._examples[place] / max(sum(self._examples), 1)
        own = (self._commons.floats * share).numpy()
        rank_all_reduce(
            among, [(Node(0, place), own)], among.size, out=self._commons.floats.numpy()
        )
        counted = all_gather_data(among, self._commons.counters.tolist())
        self._commons.counters.copy_(torch.tensor(counted, dtype=torch.int64).amax(0))


def _add_change(shared: Tensor, before: Tensor, after: Tensor) -> None:
    """Add what a step has made of the buffers; exactly its outcome where nobody came between."""
    torch.where(shared == before, after, shared + (after - before), out=shared)


def build_hogwild(comm: Communicator, config: TrainConfig, data: DataSet) -> Hogwild:
    """Build the network in shared memory; see `sixfold.training.strategies.registry`."""
    model = initial_network(config, data)
    plan = plan_batches(config, data, batch_norm=has_batch_norm(model))
    step = open_step(model, config, data.shape, build_loss(config.loss, data))
    optimizer = whole_optimizer(config.optimizer, step.state)
    groups = find_groups(comm)
    memory = _common_memory(comm, groups, Commons.size_bytes(step.state, optimizer))
    commons = Commons(memory, step.state, optimizer)
    if comm.rank == 0:
        comm.report({"kind": "note", "text": _who_shares(groups)})
        others = max(map(len, groups)) - 1
        if others and config.optimizer.optimizer == "sgd":
            text = f"hogwild: {advice(others, config.optimizer.momentum)}"
            comm.report({"kind": "note", "text": text})
        if whole := note(step.micro_batch, config):
            comm.report({"kind": "note", "text": whole})
    network = ReplicatedModel(comm, step.state, optimizer, plan.make_batch, step.loss.plain)
    return Hogwild(comm, step, plan, optimizer, commons, groups, network, config)


def _common_memory(comm: Communicator, groups: list[list[int]], count_bytes: int) -> SharedMemory:
    """The memory of this rank's group, made by its first rank."""
    leader = next(group for group in groups if comm.rank in group)[0]
    memory = SharedMemory.create(count_bytes) if comm.rank == leader else None
    path = all_gather_data(comm, "" if memory is None else memory.path)[leader]
    if memory is None:
        memory = SharedMemory.attach(path, count_bytes)
    comm.barrier()
    memory.seal()
    return memory


def _who_shares(groups: list[list[int]]) -> str:
    if len(groups) == 1 and len(groups[0]) == 1:
        return "hogwild: one worker, so this is plain SGD"
    if len(groups) == 1:
        return f"hogwild: all {len(groups[0])} workers share memory"
    single = sum(len(group) == 1 for group in groups)
    text = ", ".join("+".join(map(str, group)) for group in groups[:16])
    alone_text = f"; {single} of them are single workers, that is plain SGD" if single else ""
    return (
        f"hogwild: {len(groups)} groups of workers share memory ({text}"
        f"{', ...' if len(groups) > 16 else ''}){alone_text}; merged every --merge-every rounds"
    )
