"""An outer optimizer: SGD with Nesterov momentum on the mean delta.

    g = - mean over workers of delta_k, weighted by examples    (the outer gradient)
    v = mu v + g
    w = base - eta (g + mu v)

Douillard et al., "DiLoCo: distributed low-communication training of language models", 2023, which
takes eta = 0.7 and mu = 0.9; without momentum and with eta = 1 it is the plain mean. Departure: the
inner optimizer here is whichever the run has, with its state merged (see
`sixfold.training.strategies.local_sgd.strategy`), where DiLoCo keeps a worker's AdamW state to
itself.
"""

from torch import Tensor


def nesterov(
    base: Tensor, mean_delta: Tensor, velocity: Tensor, *, lr: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """The merged weights and the new velocity, from base, mean delta and velocity (P,) float64.

    The velocity is zeros at first; lr is eta, momentum mu, in [0, 1).

    >>> import torch
    >>> one = torch.ones(1)
    >>> nesterov(one, one, 0 * one, lr=0.5, momentum=0.9)
    (tensor([1.9500]), tensor([-1.]))
    """
    velocity = momentum * velocity - mean_delta
    return base - lr * (momentum * velocity - mean_delta), velocity
