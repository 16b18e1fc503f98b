"""Model parallel, and any grid of it with the batch.

Ranks form a grid of batch x rows x cols x cout x cin (`--grid`). Those that share a batch
coordinate, a model-parallel group, hold one copy of the network together: each the weights and maps
of its own rows, columns and channels, and none the whole. Groups divide the batch by its logical
shards, as `sync` does. For every shard s, with w_r the part of the weights that rank r of the group
holds,

    g_r = sum over the ranks that hold parts of the same sum, in their order, of
          sum over shards s, in the fixed tree, of  gradient of the loss of s with respect to w_r

Guarantee: equal to serial training up to rounding, in whatever grid (1e-10 in float64), and the
same bits every time. The batch axis never alters a bit; with nothing but a batch axis the result
is serial training's bit for bit.

Traffic: halos of maps, or channels of maps, forward and backward; where channels are divided and
a linear layer follows, its output alone; where rows or columns are divided, the gradients of the
convolutions (not of the linear layers); along the batch the gradients of a rank's own part.

When a rank dies the others wait for a replacement, which gets its part from the rank that has a
copy (`sixfold.training.strategies.model_parallel.copies`), and go on from the same step. If a part
is lost with its copy, all go on from the last checkpoint, which can be taken up by any grid.

N. Dryden et al., "Improving strong-scaling of CNN training by exploiting finer-grained
parallelism", 2019 (rows and columns); A. Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", 2014 (channels).
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sixfold.core.errors import UserError
from sixfold.data import BatchMaker, DataSet
from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.process_group import Communicator, SingleProcess
from sixfold.models.config import ModelConfig
from sixfold.models.meta_initialization import MetaModel, build_on_meta, cut_out, initial_parts
from sixfold.models.shapes import Shape
from sixfold.training.config import TrainConfig
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool
from sixfold.training.losses.registry import build_loss
from sixfold.training.sparsity.initialization import fitting_weights, read_weights
from sixfold.training.step.batches import BatchPlan, plan_batches
from sixfold.training.step.clipping import ClippedUpdate, flat_norm, unclipped
from sixfold.training.step.flat import FlatState
from sixfold.training.step.frozen import freeze
from sixfold.training.step.norm_sync import has_batch_norm
from sixfold.training.step.optimizer import whole_optimizer
from sixfold.training.step.precision import weights_dtype
from sixfold.training.step.step import Shard, Step, StepTotals, open_step
from sixfold.training.step.update_rule import Optimizer
from sixfold.training.strategies.model_parallel.canary import divided_canary
from sixfold.training.strategies.model_parallel.copies import HeldPart, PartCopies
from sixfold.training.strategies.model_parallel.division import LayerGrid, read_division
from sixfold.training.strategies.model_parallel.exchange import RankSum
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.network import DividedNetwork, divide
from sixfold.training.strategies.model_parallel.sharded_network import ShardedModel
from sixfold.training.strategies.strategy import Strategy
from sixfold.training.strategies.sync.shard_sum import ShardSum
from sixfold.training.strategies.sync.strategy import build_sync, diverged


class ModelParallel:
    """The strategy `model_parallel`; see `sixfold.training.strategies.strategy.Strategy`.

    Args:
        grid: of all ranks.
        replicas: the ranks with this rank's place in their groups, by batch coordinate.
        step: this rank's part of the network and how its shards are computed.
        plan: which samples each shard has.
        optimizer: the update rule.
        network: how the network is evaluated and saved.
        copies: this rank's part, and what it keeps of another's.
        exact: add shards in the fixed tree (True) or by group (False).
        canary: see `Strategy.canary`.
    """

    def __init__(
        self,
        grid: LayerGrid,
        replicas: Communicator,
        step: Step,
        plan: BatchPlan,
        optimizer: Optimizer,
        network: ShardedModel,
        copies: PartCopies,
        *,
        exact: bool,
        canary: Callable[[], str],
    ) -> None:
        self.canary = canary
        self.grid, self.replicas, self.step, self.plan = grid, replicas, step, plan
        self.optimizer, self.network, self.budget = optimizer, network, plan.budget
        self._shards = ShardSum(replicas, step, exact=exact)
        self.update_s = 0.0
        self._copies, self._total = copies, copies.own.total
        self._sums = gradient_sums(step, self._total)

    def shards(self, first: int) -> Iterator[Shard]:
        """The shards of this rank's group: of their images, what this rank needs."""
        return self.plan.own_shards(self.replicas, first)

    def train_step(self, number: int, shards: Iterator[Shard], lr: float) -> StepTotals:
        """Compute the group's shards together, add up, update the own weights."""
        step = self.step
        self._copies.fill_mirrors()
        self._shards.add_up(number, self.plan.count(number), shards, self._total)
        for rank_sum, views in self._sums:
            total = rank_sum(torch.cat([view.reshape(-1) for view in views]))
            sums = torch.split(total, [view.numel() for view in views])
            for view, part in zip(views, sums, strict=True):
                view.copy_(part.view(view.shape))
        totals = step.totals(self._total)
        if not math.isfinite(totals.loss):
            raise diverged(number, totals.loss)
        if isinstance(self.optimizer, ClippedUpdate):
            self.optimizer.clip(totals.gradient)
        begin, traffic = time.perf_counter(), self._copies.traffic
        before_s = traffic.communication_s + traffic.waiting_s
        self._copies.update(lr)
        exchanged_s = traffic.communication_s + traffic.waiting_s - before_s
        self.update_s = max(time.perf_counter() - begin - exchanged_s, 0.0)
        return totals

    def is_sync_point(self, done: int) -> bool:  # noqa: ARG002 - of the protocol
        """Always: a group holds the weights after every step, every group the same."""
        return True

    def figures(self) -> dict[str, Any]:
        """The grid, and how much of the network rank 0 holds."""
        held = sum(parameter.numel() for parameter in self.step.model.parameters())
        return {
            "grid": str(self.grid),
            "logical_shards": self.plan.count(0),
            "parameters_on_rank_0": held,
        }


def gradient_sums(step: Step, payload: Tensor) -> list[tuple[RankSum, list[Tensor]]]:
    """Which gradients are sums over several ranks of a group.

    Args:
        step: whose model is a `DividedNetwork`.
        payload: of which the gradient is a part.

    Returns:
        For each set of ranks their sum, and the views of the gradients that it is made of.
    """
    model = step.model
    assert isinstance(model, DividedNetwork)
    gradient = step.state.split(payload)[0]
    views: dict[tuple[Mesh, frozenset[str]], list[Tensor]] = {}  # in the same order on all ranks
    for name, view in step.state.named_views(gradient):
        part = model.parts[name]
        if part.summed:
            views.setdefault((part.layout.mesh, part.summed), []).append(view)
    return [
        (RankSum(model.group.subgroup(mesh.group(model.group.rank, axes))), own)
        for (mesh, axes), own in views.items()
    ]


def divided_norm(step: Step, gradient: Tensor) -> float:
    """The norm of the whole gradient, from the parts of it that the ranks of a group hold.

    Of parts that several ranks hold, the first one's counts.
    """
    model, squares = step.model, list[float]()
    assert isinstance(model, DividedNetwork)
    for name, view in step.state.named_views(gradient):
        layout = model.parts[name].layout
        if layout.mesh.place(model.group.rank, tuple(sorted(layout.copied))) == 0:
            squares.append(flat_norm(view) ** 2)
    return math.sqrt(math.fsum(all_gather_data(model.group, math.fsum(squares))))


def grid_of(config: TrainConfig, workers: int) -> LayerGrid:
    """The grid that the settings ask for; rows over all ranks if they do not say.

    Raises:
        UserError: if it does not have as many ranks as there are workers.
    """
    text = config.strategy.grid or f"rows={workers}"
    grid, problems = read_division(text)
    if grid is None:
        raise UserError(problems)
    if grid.size != workers:
        mesh = grid.mesh
        factors = [grid.batch, mesh.rows, mesh.cols, mesh.cout, mesh.cin]
        product = " x ".join(map(str, factors))
        raise UserError(
            f"--grid {text}: batch x rows x cols x cout x cin = {product} = {grid.size} ranks, but "
            f"there are {workers} workers: use --workers {grid.size}, or another grid"
        )
    return grid


def division_problems(
    config: TrainConfig, workers: int, *, shape: Shape, classes: int
) -> list[str]:
    """Why a network cannot be divided, found out before anything is started."""
    try:
        grid = grid_of(config, workers)
        found = skeleton(config.model, shape, classes, config.training.seed)
        comm = Communicator(
            rank=0, size=grid.mesh.size, host="", attempt=0, transport=SingleProcess()
        )
        divide(found.network, shape, comm, grid.mesh, grid.layers)
    except UserError as error:
        return list(error.problems)
    return []


def build_model_parallel(comm: Communicator, config: TrainConfig, data: DataSet) -> Strategy:
    """Divide the network and the batch; see `sixfold.training.strategies.registry`."""
    training, grid = config.training, grid_of(config, comm.size)
    if grid.mesh.size == 1:
        return build_sync(comm, config, data)
    batch, place = divmod(comm.rank, grid.mesh.size)
    group = comm.subgroup(range(batch * grid.mesh.size, (batch + 1) * grid.mesh.size))
    replicas = comm.subgroup(range(place, comm.size, grid.mesh.size))
    found = skeleton(config.model, data.shape, data.outputs, training.seed)
    freeze(found.network, config.optimizer)
    plan = plan_batches(config, data, batch_norm=has_batch_norm(found.network))
    model = divide(found.network, data.shape, group, grid.mesh, grid.layers)
    _materialise(model, found, config, data)
    mirror = None
    if comm.elastic and grid.batch == 1:
        mirror = _mirror(found, config, data, group, grid)
    maker = BatchMaker(data, "float64" if training.precision == "float64" else "float32", model.box)
    plan = dataclasses.replace(plan, make_batch=maker)
    step = open_step(model, config, None, build_loss(config.loss, data))
    model.connect(step.draw.mask, None if step.lockstep is None else step.lockstep.sum)
    optimizer = whole_optimizer(
        config.optimizer, step.state, found.network, functools.partial(divided_norm, step)
    )
    own = HeldPart(step.state, unclipped(optimizer), step.new_payload(), is_whole=True)
    copies = PartCopies(comm, group, own, mirror)
    network = ShardedModel(replicas, model, step.state, optimizer, maker, step.loss.plain, copies)
    if comm.rank == 0 and grid.batch > plan.count(0):
        text = (
            f"{grid.batch - plan.count(0)} of {grid.batch} groups have nothing to do: a step of "
            f"{training.batch_size} images has {plan.count(0)} logical shards (--shards, or a "
            "larger --batch-size, gives more)"
        )
        comm.report({"kind": "note", "text": text})
    return ModelParallel(
        grid,
        replicas,
        step,
        plan,
        optimizer,
        network,
        copies,
        exact=config.strategy.deterministic,
        canary=functools.partial(divided_canary, found, config, data, grid, plan),
    )


def _mirror(
    found: MetaModel, config: TrainConfig, data: DataSet, group: Communicator, grid: LayerGrid
) -> HeldPart:
    """Room for a copy of the part of the rank before this one."""
    before = dataclasses.replace(group, rank=(group.rank - 1) % group.size)
    model = divide(found.network, data.shape, before, grid.mesh, grid.layers)
    kinds, dtype = found.network.state_dict(), weights_dtype(config.training.precision)
    model.load(
        {
            name: torch.zeros(
                part.local_shape(before.rank),
                dtype=dtype if kinds[name].is_floating_point() else kinds[name].dtype,
            )
            for name, part in model.parts.items()
        }
    )
    state = FlatState(model)
    rule = unclipped(whole_optimizer(config.optimizer, state, found.network))
    return HeldPart(state, rule, torch.zeros(sum(state.sections), dtype=state.dtype), False)


def skeleton(config: ModelConfig, shape: Shape, classes: int, seed: int) -> MetaModel:
    """The network without memory, rewritten as it is for serial training."""
    found = build_on_meta(config, shape=shape, classes=classes, seed=seed)
    network = fused_max_pool(relu_behind_max_pool(found.network))
    return dataclasses.replace(found, network=network)


def _materialise(
    model: DividedNetwork, found: MetaModel, config: TrainConfig, data: DataSet
) -> None:
    """Give a rank's part of the network the values that it has in serial training."""
    rank, training = model.group.rank, config.training
    cuts = {name: (part.layout.shape, part.layout.box(rank)) for name, part in model.parts.items()}
    values = initial_parts(
        found,
        config.model,
        cuts,
        shape=data.shape,
        classes=data.outputs,
        seed=training.seed,
    )
    if (given := config.initialization.weights) is not None:
        whole = fitting_weights(read_weights(Path(given)), found.network, given)
        values |= {
            name: cut_out(whole[name], cut).contiguous()
            for name, cut in cuts.items()
            if name in whole
        }
    dtype = weights_dtype(training.precision)
    model.load(
        {
            name: (value.to(dtype) if value.is_floating_point() else value).view(
                model.parts[name].local_shape(rank)
            )
            for name, value in values.items()
        }
    )
