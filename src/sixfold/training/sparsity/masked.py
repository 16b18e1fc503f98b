"""Training under a mask: a removed weight is zero at the start and no update moves it.

Before the update rule sees the gradient, the flat gradient is multiplied by the flat mask, once.
A removed weight has then value 0, gradient 0 and velocity (or moments) 0, so momentum has nothing
to carry on and weight decay, which is proportional to the weight, adds nothing: the rule leaves
exactly 0. One pass over a vector that the update passes over several times is all it costs.
"""

import torch
from torch import Tensor

from sixfold.training.sparsity.masks import Mask
from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer, WrappedRule


class MaskedUpdate(WrappedRule):
    """An update rule that leaves removed weights at zero; wraps any other, of fresh state.

    `mask` (P,) is 1 where a weight is kept, 0 where it is removed; see `mask_vector`.
    """

    def __init__(self, rule: Optimizer, mask: Tensor) -> None:
        super().__init__(rule)
        self.mask = mask

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `sixfold.training.step.update_rule.Optimizer.update`."""
        # 0 times infinity would be NaN, but a step whose loss is finite has a finite gradient.
        self.rule.update(weights, gradient.mul_(self.mask), lr)


def mask_vector(mask: Mask, state: FlatState) -> Tensor:
    """A mask as a (P,) vector of the network's dtype: 1 for every kept or unpruned parameter.

    A ValueError if it names a tensor that the network does not have, or of another shape.
    """
    vector = torch.ones_like(state.parameters)
    views = dict(state.named_views(vector))
    for name, kept in mask.items():
        if name not in views or views[name].shape != kept.shape:
            has = tuple(views[name].shape) if name in views else "no such tensor"
            raise ValueError(f"the mask has {name} {tuple(kept.shape)}, the network {has}")
        views[name].copy_(kept)
    return vector


def zero_masked(state: FlatState, vector: Tensor) -> None:
    """Set removed weights to zero, in place; `vector` is from `mask_vector`."""
    # Not a product: whatever the weight was, NaN included, it becomes +0.
    state.parameters[vector == 0] = 0
