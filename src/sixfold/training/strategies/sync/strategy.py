"""Synchronous data parallel.

Every rank computes some of a step's logical shards, the gradients of all shards are added, and
every rank makes the same update:

    w(t+1) = update( w(t),  1/n  sum over shards s  of  gradient of the loss of s at w(t) )

Guarantee: equal to serial training bit for bit, for any number of ranks and on any engine, since
the sum is made in a fixed tree over the shards (`sixfold.distributed.logical_shards`). With
``--deterministic false`` each rank first adds its own shards; the result then depends on the number
of ranks, by rounding alone.

Traffic: each rank sends about twice the payload (gradient, buffers, loss) a step.

When a rank dies the step cannot be finished: the others divide the shards anew and begin it again.
The update comes after the last exchange of a step, so it is made wholly or not at all on a rank;
one that has not made it gets the state from one that has. Nothing is lost but time.

Chen et al., "Revisiting distributed synchronous SGD", 2016, without their backup workers.
"""

import functools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from sixfold.core.errors import NonFiniteLossError
from sixfold.data import DataSet
from sixfold.distributed.process_group import Communicator
from sixfold.training.config import TrainConfig
from sixfold.training.losses.registry import build_loss
from sixfold.training.network import initial_network
from sixfold.training.sparsity.initialization import begin
from sixfold.training.step.batches import BatchPlan, plan_batches
from sixfold.training.step.canary import canary
from sixfold.training.step.device import rank_device
from sixfold.training.step.device_model import DeviceModel
from sixfold.training.step.micro_batches import note
from sixfold.training.step.norm_sync import has_batch_norm
from sixfold.training.step.optimizer import whole_optimizer
from sixfold.training.step.precision import compute_dtype_of
from sixfold.training.step.preprocessing import DevicePreprocessing
from sixfold.training.step.step import Shard, Step, StepTotals, open_step
from sixfold.training.step.update_rule import Optimizer
from sixfold.training.strategies.replicated import ReplicatedModel
from sixfold.training.strategies.sync.audit import Audit
from sixfold.training.strategies.sync.shard_sum import ShardSum


class Sync:
    """The strategy `sync`; see `sixfold.training.strategies.strategy.Strategy`.

    Args:
        comm: the process group.
        step: the network and how its shards are computed.
        plan: which samples each shard has.
        optimizer: the update rule.
        network: how the network is evaluated and saved.
        exact: add in the fixed tree (True) or by rank (False).
        audit: compares shards that two ranks compute.
    """

    def __init__(
        self,
        comm: Communicator,
        step: Step,
        plan: BatchPlan,
        optimizer: Optimizer,
        network: ReplicatedModel,
        *,
        exact: bool,
        audit: Audit | None = None,
    ) -> None:
        self.comm, self.step, self.plan, self.optimizer = comm, step, plan, optimizer
        self.network, self.budget = network, plan.budget
        self._audit = audit
        self._shards = ShardSum(comm, step, exact=exact, audit=self._audit)
        self.update_s = 0.0
        self._total = step.new_payload()

    def shards(self, first: int) -> Iterator[Shard]:
        """This rank's run of every step's shards."""
        return self.plan.own_shards(self.comm, first)

    def train_step(self, number: int, shards: Iterator[Shard], lr: float) -> StepTotals:
        """Compute the own shards, add up everybody's, update."""
        step = self.step
        step.wish = self.comm.should_renew()
        self._shards.add_up(number, self.plan.count(number), shards, self._total)
        totals = step.finish(self._total)
        if not math.isfinite(totals.loss):
            raise diverged(number, totals.loss)
        begin = time.perf_counter()
        self.optimizer.update(step.state.parameters, totals.gradient, lr)
        self.update_s = time.perf_counter() - begin
        return totals

    def is_sync_point(self, done: int) -> bool:  # noqa: ARG002 - of the protocol
        """Always: all ranks hold the same weights after every step."""
        return True

    def canary(self) -> str:
        """Of the whole network."""
        return canary(self.step, self.plan)

    def figures(self) -> dict[str, Any]:
        """The number of logical shards of a whole batch, and how they are cut."""
        return {
            "logical_shards": self.plan.count(0),
            "micro_batch": self.step.micro_batch.images,
            "left_to_autograd": self.step.executor.autograd_fallback(),
            **({} if self.network.device_model is None else self.network.device_model.figures()),
            **({} if self._audit is None else {"audited_shards": self._audit.shards}),
        }


def diverged(number: int, loss: float) -> NonFiniteLossError:
    """The error of a step (from 0) whose loss is not finite."""
    return NonFiniteLossError(
        f"the loss of step {number + 1} is {loss}: training stops, the last checkpoint is kept; "
        "try a smaller --lr, or --warmup"
    )


def build_sync(comm: Communicator, config: TrainConfig, data: DataSet) -> Sync:
    """Build the network and divide the batch; see `sixfold.training.strategies.registry`."""
    sync = assemble_sync(comm, config, data)
    if comm.rank == 0 and comm.size > sync.plan.count(0):
        comm.report({"kind": "note", "text": _idle_ranks(comm.size, sync.plan)})
    tell_whole(comm, sync.step, config)
    return sync


def tell_whole(comm: Communicator, step: Step, config: TrainConfig) -> None:
    """Say so, once, if shards are computed in a slower way than the user may have counted on."""
    texts = [note(step.micro_batch, config)]
    texts += [
        f"left to autograd, which is slower: {part}" for part in step.executor.autograd_fallback()
    ]
    if comm.rank == 0:
        for text in filter(None, texts):
            comm.report({"kind": "note", "text": text})


def assemble_sync(comm: Communicator, config: TrainConfig, data: DataSet) -> Sync:
    """`build_sync` without a word to the user: for strategies that begin synchronously."""
    training = config.training
    model = initial_network(config, data)
    device = rank_device(config.compute.device, comm.rank)
    plan = plan_batches(config, data, batch_norm=has_batch_norm(model), device=device)
    step = open_step(model, config, data.shape, build_loss(config.loss, data))
    device_model = None
    if device is not None:
        pictures = DevicePreprocessing(plan.make_batch, plan.augment.pad, device)
        device_model = DeviceModel(step, device, pictures, compute_dtype_of(training.precision))
        step.backend = device_model
    optimizer = whole_optimizer(config.optimizer, step.state)
    optimizer = begin(config.initialization, step.state, optimizer)
    network = ReplicatedModel(
        comm, step.state, optimizer, plan.make_batch, step.loss.plain, device_model
    )
    strategy, audit = config.strategy, None
    if strategy.audit and strategy.strategy == "sync":
        audit = Audit(
            comm,
            step,
            plan,
            strategy.audit,
            excludes=strategy.on_audit_failure == "exclude",
            third=functools.partial(_ask_launcher, comm, Path(str(config.run.out)), step.model),
        )
    return Sync(
        comm,
        step,
        plan,
        optimizer,
        network,
        exact=strategy.deterministic,
        audit=audit,
    )


def _ask_launcher(
    comm: Communicator, folder: Path, model: nn.Module, number: int, shard: int
) -> bytes:
    from sixfold.training.strategies.sync.arbiter import ask_launcher

    return ask_launcher(comm, folder, model, number, shard)


def _idle_ranks(size: int, plan: BatchPlan) -> str:
    count = plan.count(0)
    return (
        f"{size - count} of {size} workers have nothing to do: a step of "
        f"{plan.budget.batch_size} images has {count} logical shards (--shards, or a larger "
        "--batch-size, gives more)"
    )
