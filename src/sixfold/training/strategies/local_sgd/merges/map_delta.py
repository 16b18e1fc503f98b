"""Every feature map, as a whole, from the worker in which it has changed most.

    r_k[m] = ||delta_k[m]|| / ||base[m]||              relative change of map m in worker k
    w[m]   = base[m] + delta_k[m]    with  k = argmax over workers of r_k[m]

A map is one output channel of a convolution, or one output of a linear layer, with its bias and
with what normalises it (`sixfold.training.strategies.local_sgd.merges.channels_of_layer`): weights
that have learned together stay together. Norms are Euclidean over a map's trainable weights. A map
that begins at zero has changed by infinity if it has changed at all. The first of equals wins.
"""

import torch
from torch import Tensor


def relative_changes(base: Tensor, delta: Tensor, maps: Tensor, count: int) -> Tensor:
    """r_k of one worker, (M,), at least 0; base, delta (P,) float64, and each element's map.

    >>> relative_changes(
    ...     torch.tensor([3.0, 4.0, 0.0]), torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0, 0, 1]), 3
    ... )
    tensor([0.2000,    inf, 0.0000])
    """
    moved = torch.bincount(maps, weights=delta.square(), minlength=count).sqrt()
    before = torch.bincount(maps, weights=base.square(), minlength=count).sqrt()
    ratio = moved / before
    return torch.where(moved == 0, torch.zeros_like(ratio), ratio).to(delta.dtype)


def winners(changes: Tensor) -> Tensor:
    """The worker from which each map is taken, (M,), the first of equals, from changes (n, M)."""
    best, winner = changes[0].clone(), torch.zeros(changes.shape[1], dtype=torch.int64)
    for number, change in enumerate(changes[1:], start=1):
        more = change > best
        best[more], winner[more] = change[more], number
    return winner


def map_delta(base: Tensor, deltas: Tensor, winner: Tensor, maps: Tensor) -> Tensor:
    """The merged weights (P,), from deltas (n, P) float64, each map's winner (M,) and maps (P,)."""
    return base + deltas.gather(0, winner[maps][None])[0]
