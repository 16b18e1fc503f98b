"""Losses of a regression, each the mean over the K numbers of a sample; r = output - target.

    mse     l = 1/K sum r^2                                       dl/dr = 2 r / K
    l1      l = 1/K sum |r|                                       dl/dr = sign(r) / K
    huber   l = 1/K sum ( r^2 / 2  if |r| < d, else d |r| - d^2 / 2 )
                                                                  dl/dr = clamp(r, -d, d) / K

P. J. Huber, "Robust estimation of a location parameter", 1964.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sixfold.training.losses.loss import Computed, Loss, scaled, weighted


def squared(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Computed:
    """Sum over samples of the mean squared error, and its gradient, (n, K)."""
    error = output - target
    return weighted(error.square().mean(1), weight), scaled(error * (2 / error.shape[1]), weight)


def absolute(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Computed:
    """Sum over samples of the mean absolute error, and its gradient, (n, K)."""
    error = output - target
    return weighted(error.abs().mean(1), weight), scaled(error.sign() / error.shape[1], weight)


def huber_of(delta: float) -> Callable[[Tensor, Tensor, Tensor | None], Computed]:
    """The loss that is quadratic up to `delta`, and linear beyond."""

    def huber(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Computed:
        error = output - target
        size = error.abs()
        values = torch.where(size < delta, error.square() / 2, delta * (size - delta / 2))
        grad = error.clamp(-delta, delta) / error.shape[1]
        return weighted(values.mean(1), weight), scaled(grad, weight)

    return huber


def _loss(compute: Callable[[Tensor, Tensor, Tensor | None], Computed]) -> Loss:
    return Loss(compute=compute, plain=lambda output, target: compute(output, target, None)[0])


SQUARED, ABSOLUTE = _loss(squared), _loss(absolute)


def make_huber(delta: float) -> Loss:
    """The loss of `--loss huber`."""
    return _loss(huber_of(delta))
