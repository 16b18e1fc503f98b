"""Making a network: the same weights from the same seed, in any process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from sixfold.core.errors import UserError
from sixfold.models.config import ModelConfig
from sixfold.models.factory import model_factory
from sixfold.models.shapes import Shape, ShapeMismatchError, run, times


def build(config: ModelConfig, *, shape: Shape, classes: int, seed: int) -> nn.Module:
    """The network, on the CPU in float32, with the weights that follow from the seed.

    It maps (N, C, H, W) to (N, classes). Every source of global randomness that a factory may use
    (torch, NumPy, `random`) is seeded before the call and put back after it.
    """
    chosen = model_factory(config, shape=shape, classes=classes)
    with seeded(seed), torch.device("cpu"):
        try:
            network = chosen.make().to("cpu")
            if has_lazy(network):
                # Lazy layers draw their weights when they first see an image.
                run(network.eval(), torch.zeros(1, *shape))
                network.train()
        except ShapeMismatchError as error:
            raise UserError(f"{config.model} cannot take {times(shape)} images: {error}") from error
    return network


def has_lazy(network: nn.Module) -> bool:
    """Whether a network has layers whose sizes follow from the first image that they see."""
    return any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers()))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """While open, global random states follow from `seed`; afterwards they are as they were."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        seed_all(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def seed_all(seed: int) -> None:
    """Let the global generators of torch, NumPy and `random` follow from a seed."""
    # Not torch.manual_seed, which would seed the accelerators too, and those are not put back.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
