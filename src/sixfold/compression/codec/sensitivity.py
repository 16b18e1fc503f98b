"""What it costs to prune, or to share, one layer alone: the loss without any training after it.

Pruning all layers until each alone would raise the loss by the same amount spreads the damage
evenly; the amount is the one number that a search has to find. Retraining takes most of the damage
back, so the amount may be large.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sixfold.compression.codec.clusters import share
from sixfold.training.sparsity import Counts, magnitude_mask

KEPT_LEVELS = tuple(round(0.7**step, 4) for step in range(16))
"""Parts of a layer's weights that are tried: from all of them down to 0.5%."""

BITS_LEVELS = tuple(range(2, 9))
Loss = Callable[[nn.Module], float]


def pruning_losses(network: nn.Module, name: str, loss: Loss) -> list[float]:
    """The loss with a part of one layer's weights kept, for each of `KEPT_LEVELS`."""
    weights = network.state_dict()[name]
    original = weights.clone()
    found = []
    for kept in KEPT_LEVELS:
        pruned = weights.numel() - max(round(kept * weights.numel()), 1)
        mask = magnitude_mask({name: original}, [Counts(names=(name,), pruned=pruned)])[name]
        found.append(_loss_with(weights, torch.where(mask, original, 0), loss, network))
    weights.copy_(original)
    return found


def sharing_losses(network: nn.Module, name: str, loss: Loss, start: str) -> list[float]:
    """The loss with one layer's weights shared, for each of `BITS_LEVELS`."""
    weights = network.state_dict()[name]
    original = weights.clone()
    found = [
        _loss_with(weights, share(original, bits, start)[0], loss, network) for bits in BITS_LEVELS
    ]
    weights.copy_(original)
    return found


def _loss_with(weights: Tensor, values: Tensor, loss: Loss, network: nn.Module) -> float:
    weights.copy_(values)
    return loss(network)


def kept_within(losses: Sequence[float], tolerance: float) -> float:
    """The least part of a layer that may be kept if its loss rises by at most `tolerance`.

    Between two levels the part is interpolated, evenly in its logarithm.
    """
    for step in range(1, len(KEPT_LEVELS)):
        rise, before = losses[step] - losses[0], max(losses[step - 1] - losses[0], 0.0)
        if rise > tolerance:
            part = (tolerance - before) / (rise - before) if rise > before else 0.0
            low, high = math.log(KEPT_LEVELS[step]), math.log(KEPT_LEVELS[step - 1])
            return math.exp(high + min(max(part, 0.0), 1.0) * (low - high))
    return KEPT_LEVELS[-1]


def bits_within(losses: Sequence[float], base: float, tolerance: float) -> int:
    """The fewest bits with which sharing a layer raises the loss by at most `tolerance`."""
    for bits, loss in zip(BITS_LEVELS, losses, strict=True):
        if loss - base <= tolerance:
            return bits
    return BITS_LEVELS[-1]


def sparsity_for(
    kept: float, losses: Mapping[str, Sequence[float]], sizes: Mapping[str, int]
) -> dict[str, float]:
    """The sparsity of each layer so that a part `kept` of all weights is kept, damage even."""
    total = sum(sizes.values())

    def plan(tolerance: float) -> dict[str, float]:
        return {name: kept_within(found, tolerance) for name, found in losses.items()}

    low, high = 1e-6, 1e3  # of the loss: nothing is noticed, and worse than any guess
    for _ in range(60):
        middle = math.sqrt(low * high)
        parts = plan(middle)
        if sum(parts[name] * sizes[name] for name in sizes) > kept * total:
            low = middle
        else:
            high = middle
    return {name: round(1 - part, 6) for name, part in plan(high).items()}
