"""What is found out of loss and network together, before anything is started.

A network of the user's may give several outputs; a loss of the user's must add over samples. Both
are found by running the network once on a few real images, in training and in evaluation.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn

from sixfold import models
from sixfold.core.errors import UserError, raise_problems
from sixfold.data import BatchMaker, DataSet
from sixfold.models.building import seeded
from sixfold.models.outputs import main_output, named_outputs
from sixfold.training.config import TrainConfig
from sixfold.training.losses import own
from sixfold.training.losses.outputs import aux_weights
from sixfold.training.losses.registry import LOSSES, sample_weights
from sixfold.training.step.precision import in_precision

IMAGES = 8  # on which the network is run: two halves, each of which batch-norm can take


def settle_loss(config: TrainConfig, data: DataSet) -> TrainConfig:
    """The settings with `aux_weight` written out for every head of a network with several outputs.

    A `UserError` if the outputs do not fit the loss, or the loss does not add over samples.
    """
    is_own = config.loss.loss not in LOSSES
    if ":" not in config.model.model and not is_own:
        if config.loss.aux_weight:
            raise UserError(_single(config))
        return config
    if config.strategy.strategy == "model_parallel" and not is_own:
        return config  # refused before, if there are several; the network may be too large to run
    network, images, target = _trial(config, data)
    with seeded(config.training.seed), torch.no_grad():
        told = network.train()(images)
        network.train()
        evaluated = network.eval()(images)
    heads = list(named_outputs(told))[1:]
    if is_own:
        _check_own(config, data, told, evaluated, target)
        text = ",".join(f"{head}=1" for head in heads)  # what counts is that there are some
        if config.loss.aux_weight:
            raise UserError(
                f"--aux-weight {config.loss.aux_weight}: --loss {config.loss.loss} is given all "
                "outputs and weighs them itself; leave the option out"
            )
    elif heads:
        text = _settled(config, told, heads)
    else:
        if config.loss.aux_weight:
            raise UserError(_single(config))
        return config
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, aux_weight=text))


def _trial(config: TrainConfig, data: DataSet) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The network, a few training images, and what is true of them."""
    training = config.training
    built = models.build(config.model, shape=data.shape, classes=data.outputs, seed=training.seed)
    maker = BatchMaker(data, "float64" if training.precision == "float64" else "float32")
    count = min(IMAGES, len(data.train))
    places = np.linspace(0, len(data.train) - 1, count).round().astype(np.int64)
    images, target = maker(data.train, places)
    return in_precision(built, training.precision), images, target


def _check_own(
    config: TrainConfig, data: DataSet, told: Any, evaluated: Any, target: torch.Tensor
) -> None:
    name = config.loss.loss
    function = own.find_loss(name)
    weighted = sample_weights(config.loss, data) is not None
    found = own.problems_of(name, function, told, target, weighted=weighted)
    if not found:
        found = [
            f"{line} (in evaluation)"
            for line in own.problems_of(name, function, evaluated, target, weighted=weighted)
        ]
    raise_problems(found)


def _settled(config: TrainConfig, told: Any, heads: list[str]) -> str:
    named = named_outputs(told)
    listed = ", ".join(named)
    model = config.model.model
    if not config.loss.aux_weight:
        raise UserError(
            f"{model}: has {len(named)} outputs in training ({listed}): give --aux-weight W, or "
            f"NAME=W,..., how much those besides {next(iter(named))} count (0: not at all), or a "
            "--loss of your own, which is given all of them"
        )
    weights = aux_weights(config.loss.aux_weight, heads)
    main = main_output(told)
    odd = [
        f"{model}: its output {head} is {tuple(named[head].shape)}, not {tuple(main.shape)} as the "
        f"main one, so --loss {config.loss.loss} cannot take it: give --aux-weight {head}=0"
        for head in heads
        if weights[head] > 0 and named[head].shape != main.shape
    ]
    raise_problems(odd)
    return ",".join(f"{head}={weight:g}" for head, weight in weights.items())


def _single(config: TrainConfig) -> str:
    return (
        f"--aux-weight {config.loss.aux_weight}: {config.model.model} has a single output in "
        "training; leave the option out"
    )
