"""Update rules on flat vectors: how weights follow from the mean gradient.

Each rule works element by element, so that any slice of the weights can be updated by itself with
the same bits. They follow torch.optim's definitions (tests hold them to it); using them instead
saves the second that torch.optim takes to import its compiler.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sixfold.training.config import OptimizerConfig


class Optimizer(Protocol):
    """An update rule and its state.

    Attributes:
        slots: names of the state vectors, each (P,), to their values.
        updates: number of updates made so far.
    """

    slots: dict[str, Tensor]
    updates: int

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """Change `weights` (P,) in place; `gradient` (P,) may be overwritten."""
        ...


class Sgd:
    """Stochastic gradient descent with momentum and weight decay.

    g = gradient + decay w;  v = momentum v + g;  w = w - lr v.

    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, in
    torch's form, where the learning rate multiplies the velocity.
    """

    def __init__(self, weights: Tensor, *, momentum: float, weight_decay: float) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay
        self.slots = {"velocity": torch.zeros_like(weights)} if momentum else {}
        self.updates = 0

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `Optimizer.update`."""
        if self.weight_decay:
            gradient.add_(weights, alpha=self.weight_decay)
        if self.momentum:
            gradient = self.slots["velocity"].mul_(self.momentum).add_(gradient)
        weights.add_(gradient, alpha=-lr)
        self.updates += 1


class Adam:
    """Adam: steps scaled by running estimates of the gradient's first and second moments.

    g = gradient + decay w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    w = w - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps).

    Kingma and Ba, "Adam: a method for stochastic optimization", 2015; b1 0.9, b2 0.999, eps 1e-8.
    """

    def __init__(self, weights: Tensor, *, weight_decay: float) -> None:
        self.beta1, self.beta2, self.epsilon = 0.9, 0.999, 1e-8
        self.weight_decay = weight_decay
        self.slots = {
            "first_moment": torch.zeros_like(weights),
            "second_moment": torch.zeros_like(weights),
        }
        self.updates = 0

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `Optimizer.update`."""
        self.updates += 1
        if self.weight_decay:
            gradient.add_(weights, alpha=self.weight_decay)
        first, second = self.slots["first_moment"], self.slots["second_moment"]
        first.lerp_(gradient, 1 - self.beta1)
        second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = lr / (1 - self.beta1**self.updates)
        spread = (second / (1 - self.beta2**self.updates)).sqrt_().add_(self.epsilon)
        weights.addcdiv_(first, spread, value=-scale)


def make_optimizer(config: OptimizerConfig, weights: Tensor) -> Optimizer:
    """The update rule that the settings name, with fresh state for `weights` (P,)."""
    if config.optimizer == "adam":
        return Adam(weights, weight_decay=config.weight_decay)
    return Sgd(weights, momentum=config.momentum, weight_decay=config.weight_decay)
