"""The canary of a divided network: what the first rank of a group computes among echoes.

Ranks of a model-parallel group hold different parts, so what each computes for itself cannot be
compared. All of them compute the first one's part instead, with made-up weights.
"""

import dataclasses
import math
import random

import numpy as np
import torch
from torch import Tensor

from sixfold.core.random_keys import key
from sixfold.data import BatchMaker, DataSet
from sixfold.distributed.process_group.echo import echo_world
from sixfold.models.meta_initialization import MetaModel
from sixfold.training.config import TrainConfig
from sixfold.training.losses.registry import build_loss
from sixfold.training.step.batches import BatchPlan
from sixfold.training.step.canary import canary
from sixfold.training.step.precision import weights_dtype
from sixfold.training.step.step import open_step
from sixfold.training.strategies.model_parallel.division import LayerGrid
from sixfold.training.strategies.model_parallel.network import DividedNetwork, divide


def divided_canary(
    found: MetaModel, config: TrainConfig, data: DataSet, grid: LayerGrid, plan: BatchPlan
) -> str:
    """The hash, and the group of which it is.

    Args:
        found: the network on the meta device, as it is divided.
        config: the settings.
        data: the data set.
        grid: of all ranks.
        plan: the batches of the run.
    """
    group, _ = echo_world(0, grid.mesh.size)
    model = divide(found.network, data.shape, group, grid.mesh, grid.layers)
    model.load(_made_up(model, found, config))
    precision = "float64" if config.training.precision == "float64" else "float32"
    plan = dataclasses.replace(plan, make_batch=BatchMaker(data, precision, model.box))
    step = open_step(model, config, None, build_loss(config.loss, data))
    model.connect(step.draw.mask, None if step.lockstep is None else step.lockstep.sum)
    return f"{canary(step, plan)} {dataclasses.replace(grid, batch=1)}"


def _made_up(model: DividedNetwork, found: MetaModel, config: TrainConfig) -> dict[str, Tensor]:
    """Values of the size of initial weights, of buffers positive ones."""
    kinds, drawn = found.network.state_dict(), random.Random(key(config.training.seed, "canary"))
    buffers = {name for name, _ in found.network.named_buffers()}
    values = {}
    for name, part in model.parts.items():
        shape, kind = part.local_shape(0), kinds[name].dtype
        count = math.prod(shape)
        numbers = np.frombuffer(drawn.randbytes(2 * count), np.uint16) / 2.0**16
        if name not in buffers:
            numbers = (2 * numbers - 1) / math.sqrt(max(count // max(shape[0], 1), 1))
        if kind.is_floating_point:
            kind = weights_dtype(config.training.precision)
        values[name] = torch.from_numpy(numbers.reshape(shape)).to(kind)
    return values
