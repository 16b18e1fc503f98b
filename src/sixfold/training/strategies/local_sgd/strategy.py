"""Local SGD: workers train apart and merge their weights every H steps.

All n workers begin a round with the same weights w. Worker k makes H steps of SGD on images of its
own, w -> w_k, and the round ends with a merge (`--aggregation`, see
`sixfold.training.strategies.local_sgd.merges`):

    w  <-  merge( w;  w_1 - w, ..., w_n - w )

A step of B images is a step of every worker on its own B/n. With `--post-local E` the first E
epochs are synchronous, as `sync`. With `--align` a worker's feature maps are brought into the order
of w's before they are merged. With `--groups` workers merge within their group only, and
`--swap-every` hands members on between groups (`sixfold.training.strategies.local_sgd.groups`): in
such a round a group's base is the mean of what its members have begun with, and a member that came
counts by how far it has moved from its own beginning. At the end all groups become one, by the
mean.

Guarantee: approximate; equal to serial training only with one worker, and then bit for bit. The
result depends on the number of workers, by design, and on nothing else: not on the engine, on
restarts or on a resume.

Batch-norm: a worker uses and keeps its own statistics during a round; see
`sixfold.training.strategies.local_sgd.merge` for how they, and the optimizer's momentum, are
merged.

Traffic: an all-reduce of weights, buffers and optimizer state a round, so 1/H of `sync`'s for plain
SGD. When a rank dies the others go back to the last merge, which they keep, and a replacement gets
it from its group. Checkpoints are written after merges only, when all members of a group are equal;
a run that is stopped goes on to its next merge, if the engine gives it the time.

Stich, "Local SGD converges fast and communicates little", 2019. Lin et al., "Don't use large
mini-batches, use local SGD", 2020, for the post-local schedule; as in their best variant momentum
is kept over merges, here as the mean of the workers'.
"""

import dataclasses
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sixfold.core.errors import PeerLostError, raise_problems
from sixfold.core.run_directory import JsonLines
from sixfold.data import DataSet
from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.process_group import Communicator, alone
from sixfold.training.config import TrainConfig
from sixfold.training.step.step import Shard, StepTotals
from sixfold.training.strategies.local_sgd.groups import Groups, groups_after, mean_over
from sixfold.training.strategies.local_sgd.merge import Facts, Members, Merger
from sixfold.training.strategies.local_sgd.network import LocalNetwork
from sixfold.training.strategies.local_sgd.plan import local_plan
from sixfold.training.strategies.local_sgd.serial import SerialRun, cosine, local_step
from sixfold.training.strategies.local_sgd.worker_state import WorkerStateAccess
from sixfold.training.strategies.sync.strategy import Sync, assemble_sync, tell_whole

LOG = "merges.jsonl"  # in the run directory: one object a merge


class LocalSgd:
    """The strategy `local_sgd`; `together`, synchronous training, has the network trained here."""

    def __init__(
        self, comm: Communicator, config: TrainConfig, data: DataSet, together: Sync
    ) -> None:
        self.comm, self.config, self.data = comm, config.local_sgd, data
        plan, step = together.plan, together.step
        self.budget, self.update_s, self.step = plan.budget, 0.0, step
        self.optimizer = together.optimizer
        self.body = WorkerStateAccess(step.state, together.optimizer)
        first_local = round(self.config.post_local * self.budget.steps_per_epoch)
        self._first_local = min(first_local, self.budget.total_steps)
        self.network = LocalNetwork(
            comm,
            self.body,
            plan.make_batch,
            step.loss.plain,
            self.groups_at,
            self._alike_at,
            config.initialization.start_step,
        )
        budget = dataclasses.replace(self.budget, total_steps=self._first_local)
        self._plan = dataclasses.replace(plan, budget=budget)
        self._together = together
        self._plans = [local_plan(plan, worker, comm.size) for worker in range(comm.size)]
        self._trainer = Sync(alone(), step, plan, together.optimizer, together.network, exact=True)
        self._serial = SerialRun(comm, self._trainer, self.body, self._plans)
        self._merger = Merger(comm, self.body, self.config, plan.seed, self._score)
        self.network.velocity = self._merger.velocity
        self._log_path = Path(config.run.out) / LOG if config.run.out else None
        self._log: JsonLines | None = None
        self._base = torch.zeros(0)
        self._rates: list[float] = []
        self._examples = 0
        self._last: StepTotals | None = None
        self._final: Facts = {}

    def shards(self, first: int) -> Iterator[Shard]:
        """This rank's shards: its run of every step's, then those of its own images."""
        self._rates = []
        if self.comm.rank == 0 and self._log_path is not None:
            if self._log is not None:
                self._log.close()
            self._log = JsonLines(self._log_path, up_to_step=first)
        own = self._plans[self.comm.rank]
        return chain(
            self._plan.own_shards(self.comm, first),
            own.between(max(first, self._first_local), self.budget.total_steps),
        )

    def train_step(self, number: int, shards: Iterator[Shard], lr: float) -> StepTotals:
        """A synchronous step, or a step of this worker alone; at the end of a round the merge."""
        if number < self._first_local:
            self._together.step.draw.seed = self._plan.seed
            totals = self._together.train_step(number, shards, lr)
            self.update_s, self.network.held_at = self._together.update_s, number + 1
            return totals
        if self.comm.should_renew():  # a round has no exchange that would tell
            raise PeerLostError(-1, "the view has ended")
        if not self._rates:
            self._begin_round()
        own = self._plans[self.comm.rank]
        found = local_step(self._trainer, own, number, shards, lr)
        self.comm.keep_alive()
        self.update_s = self._trainer.update_s if found else 0.0
        self._last = found or self._last
        self._rates.append(lr)
        self._examples += own.samples(number)
        if self.is_sync_point(number + 1):
            self._merge(number + 1)
        assert self._last is not None, "the first step of an epoch has images for every worker"
        return dataclasses.replace(
            self._last, samples=sum(plan.samples(number) for plan in self._plans)
        )

    def is_sync_point(self, done: int) -> bool:
        """During the synchronous phase, and after a merge."""
        local = done - self._first_local
        return local <= 0 or local % self.config.local_steps == 0 or done == self.budget.total_steps

    def canary(self) -> str:
        """Of the whole network."""
        return self._together.canary()

    def figures(self) -> dict[str, Any]:
        """The number of merges, and how a serial run and single workers fare where asked for."""
        if self._log is not None:
            self._log.close()
        return {
            "logical_shards": self._plans[0].count(0),
            "micro_batch": self.step.micro_batch.images,
            "left_to_autograd": self.step.executor.autograd_fallback(),
            "merge": self.config.aggregation,
            "merges": self._merges(self.budget.total_steps),
            **self._final,
        }

    def groups_at(self, done: int) -> Groups:
        """The groups after so many steps."""
        swaps = self._merges(done) // self.config.swap_every if self.config.swap_every else 0
        return groups_after(self.comm.size, self.config.groups, swaps)

    def _alike_at(self, done: int) -> Groups:
        """Sets of ranks that hold the same after so many steps."""
        return self.groups_at(done) if done > self._first_local else [[*range(self.comm.size)]]

    def _merges(self, done: int) -> int:
        local = max(done - self._first_local, 0)
        return -(-local // self.config.local_steps)

    def _score(self, network: Tensor) -> tuple[float, float]:
        """What selects: the validation part, never the test set."""
        return self.network.score(network, self.data.validation)

    def _begin_round(self) -> None:
        body = self.network.begin_round()
        self._merger.velocity = self.network.velocity
        self._base, self._examples = body.vector[: self.body.network], 0
        wanted = self.config.compare_serial and self.comm.rank == 0
        if wanted and self.network.serial is None:
            self.network.serial = body

    def _merge(self, done: int) -> None:
        """End the round: merge within the groups, and tell of it."""
        first, rates = done - len(self._rates), self._rates
        self._rates = []
        number = self._merges(done) - 1
        base, own = self._base, self.body.read()
        facts: Facts = {
            "round": number + 1,
            "merge": self.config.aggregation,
            "first_step": first + 1,
        }
        if self.config.compare_serial and done == self.budget.total_steps:
            self._final["workers_test_accuracy"] = self._accuracies(own.vector)
        groups = self.groups_at(done)
        place = next(n for n, ranks in enumerate(groups) if self.comm.rank in ranks)
        among = self.comm.subgroup(groups[place])
        members = Members(ranks=groups[place], comm=among, round=number, group=place)
        if groups != self.groups_at(first):
            base = self._meet(members, own.vector)
            facts["swapped"] = True
        merged, told = self._merger.merge(members, base, own, self._examples)
        if len(groups) > 1:
            facts["groups"] = groups
        facts |= told
        if self.comm.rank == 0 and self.config.compare_serial:
            facts["serial"] = self._follow(first, rates, base, merged.vector)
        if done == self.budget.total_steps and len(groups) > 1:  # all groups become one
            network = merged.vector[: self.body.network]
            network.copy_(mean_over(self.comm, network))
        if self._log is not None:  # before all go on from it: else a lost rank 0 may not have
            self._log.append({"step": done, "time": time.time(), **facts})
        self.network.end_round(done, merged, self._merger.velocity)
        if done == self.budget.total_steps:
            self._judge_serial()

    def _meet(self, members: Members, vector: Tensor) -> Tensor:
        """The base of a group with a new member; `vector` (T,) is moved to where it begins."""
        size = self.body.network
        base = mean_over(members.comm, self._base)
        moved = vector[:size].double() - self._base.double()
        vector[:size] = base.double() + moved
        if len(self._merger.velocity):
            self._merger.velocity = mean_over(members.comm, self._merger.velocity)
        return base

    def _follow(self, first: int, rates: list[float], base: Tensor, merged: Tensor) -> Facts:
        """The serial run's round, beside the merge, on rank 0."""
        assert self.network.serial is not None
        size = self.body.weights
        self.network.serial, facts, delta = self._serial.follow(
            self.network.serial, first, rates, self._merger
        )
        together = merged[:size].double() - base[:size].double()
        facts["cosine"] = cosine(delta, together)
        return facts

    def _accuracies(self, vector: Tensor) -> list[float]:
        """Every worker's accuracy on the test part before the last merge, for the record."""
        accuracy, _ = self.network.score(vector[: self.body.network], self.data.test)
        return [float(value) for value in all_gather_data(self.comm, accuracy)]

    def _judge_serial(self) -> None:
        if self.network.serial is not None and self.comm.rank == 0:
            vector = self.network.serial.vector[: self.body.network]
            accuracy, loss = self.network.score(vector, self.data.test)
            self._final |= {"serial_test_accuracy": accuracy, "serial_test_loss": loss}


def build_local_sgd(comm: Communicator, config: TrainConfig, data: DataSet) -> LocalSgd:
    """Build the network and deal out the images; see `sixfold.training.strategies.registry`."""
    batch, groups = config.training.batch_size, config.local_sgd.groups
    found = []
    if batch < comm.size:
        found.append(
            f"--batch-size {batch}: {comm.size} workers need an image each; use a batch of at "
            f"least {comm.size}, or fewer --workers"
        )
    if groups > comm.size:
        found.append(f"--groups {groups}: there are only {comm.size} workers to divide")
    raise_problems(found)
    strategy = LocalSgd(comm, config, data, assemble_sync(comm, config, data))
    tell_whole(comm, strategy.step, config)
    if comm.rank == 0 and config.local_sgd.align:
        comm.report({"kind": "note", "text": _alignment(strategy)})
    return strategy


def _alignment(strategy: LocalSgd) -> str:
    """Which layers are aligned, and which are not and why, in one line."""
    channels = strategy._merger.channels
    text = f"feature maps of {len(channels.free)} layers are aligned before each merge"
    if not channels.left_alone:
        return text
    alone_ = "; ".join(f"{layer}: {reason}" for layer, reason in channels.left_alone.items())
    return f"{text}; left alone are {alone_}"
