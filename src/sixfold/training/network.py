"""The network as a training has it before its first step."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from sixfold import models
from sixfold.data import DataSet
from sixfold.training.config import TrainConfig
from sixfold.training.sparsity.initialization import put_weights, read_weights
from sixfold.training.step.frozen import freeze
from sixfold.training.step.precision import in_precision


def initial_network(
    config: TrainConfig, data: DataSet, tell: Callable[[str], None] | None = None
) -> nn.Module:
    """The network with the weights that are given, or follow from the seed, in their precision.

    What is to keep its values is frozen. `tell` hears what is done to given weights' names; a
    `UserError` if they do not fit.
    """
    training = config.training
    network = models.build(config.model, shape=data.shape, classes=data.outputs, seed=training.seed)
    network = in_precision(network, training.precision)
    if (given := config.initialization.weights) is not None:
        put_weights(read_weights(Path(given), tell), network, given, tell)
    return freeze(network, config.optimizer)
