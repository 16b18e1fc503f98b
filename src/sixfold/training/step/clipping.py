"""Clipping of gradients: by value, and by the norm of all of them together.

    g = min(max(g, -c), c);      g = g min(1, N / (||g|| + 1e-6))

The norm is over the mean gradient of the whole step, in float64 and in one order, so it is the same
on every rank. R. Pascanu et al., "On the difficulty of training recurrent neural networks", 2013;
the small number is torch's (`torch.nn.utils.clip_grad_norm_`).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.update_rule import Optimizer, WrappedRule

SMALL = 1e-6


def flat_norm(gradient: Tensor) -> float:
    """The norm of a vector, added up in float64."""
    return float(torch.linalg.vector_norm(gradient, dtype=torch.float64))


def clip_gradient(
    config: OptimizerConfig, gradient: Tensor, norm: Callable[[Tensor], float] = flat_norm
) -> None:
    """Clip a gradient (P,) in place, by value first.

    Args:
        config: the settings.
        gradient: of all weights, or this rank's part.
        norm: of all weights' gradient, from this rank's part.
    """
    if config.clip_value is not None:
        gradient.clamp_(-config.clip_value, config.clip_value)
    if config.clip_norm is not None:
        scale = config.clip_norm / (norm(gradient) + SMALL)
        if scale < 1:
            gradient.mul_(scale)


def unclipped(rule: Optimizer) -> Optimizer:
    """An update rule without the clipping around it."""
    return rule.rule if isinstance(rule, ClippedUpdate) else rule


class ClippedUpdate(WrappedRule):
    """An update rule whose gradients are clipped before; wraps any other."""

    def __init__(
        self,
        rule: Optimizer,
        config: OptimizerConfig,
        norm: Callable[[Tensor], float] = flat_norm,
    ) -> None:
        super().__init__(rule)
        self._config, self._norm = config, norm

    def clip(self, gradient: Tensor) -> None:
        """Clip a gradient (P,) in place."""
        clip_gradient(self._config, gradient, self._norm)

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `Optimizer.update`."""
        self.clip(gradient)
        self.rule.update(weights, gradient, lr)
