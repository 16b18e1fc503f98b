"""The network as a training has it before its first step."""

from torch import nn

from sixfold import models
from sixfold.data import DataSet
from sixfold.training.config import TrainConfig
from sixfold.training.step.frozen import freeze
from sixfold.training.step.precision import in_precision


def initial_network(config: TrainConfig, data: DataSet) -> nn.Module:
    """The network with the weights that follow from the seed, in the precision of the weights.

    What is to keep its values is frozen.
    """
    training = config.training
    network = models.build(config.model, shape=data.shape, classes=data.outputs, seed=training.seed)
    return freeze(in_precision(network, training.precision), config.optimizer)
