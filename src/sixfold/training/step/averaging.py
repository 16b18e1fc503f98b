"""The moving average of the weights over the steps, which is evaluated and saved in their place.

    a(0) = w(0);   a(t+1) = d a(t) + (1 - d) w(t+1),   d = min(D, (1 + t) / (10 + t))

B. Polyak and A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the
exponential form, and the smaller decay of the first steps, are TensorFlow's
(`tf.train.ExponentialMovingAverage`). The average is a state vector of the update rule, so it lies
in checkpoints beside the raw weights. Buffers, such as batch-norm's running statistics, which are
averages themselves, are those of the raw weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer, WrappedRule

AVERAGE = "average"
"""The state vector that holds it."""


class AveragedUpdate(WrappedRule):
    """An update rule that keeps the average of the weights; wraps any other.

    Args:
        rule: the update rule, whose state vectors the average joins.
        weights: (P,) those to begin with.
        decay: D, see the module.
    """

    def __init__(self, rule: Optimizer, weights: Tensor, decay: float) -> None:
        super().__init__(rule)
        self.slots[AVERAGE] = weights.clone()
        self._decay = decay

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `Optimizer.update`."""
        done, average = self.updates, self.slots[AVERAGE]
        if done == 0:
            average.copy_(weights)
        self.rule.update(weights, gradient, lr)
        decay = min(self._decay, (1 + done) / (10 + done))
        average.lerp_(weights, 1 - decay)


@contextmanager
def averaged(state: FlatState, optimizer: Optimizer) -> Iterator[bool]:
    """While open, a network has the average of its weights, if one is kept; whether it has."""
    average = optimizer.slots.get(AVERAGE)
    if average is None or optimizer.updates == 0:
        yield average is not None
        return
    raw = state.parameters.clone()
    with torch.no_grad():
        state.parameters.copy_(average)
    try:
        yield True
    finally:
        with torch.no_grad():
            state.parameters.copy_(raw)
