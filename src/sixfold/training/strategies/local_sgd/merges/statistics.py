"""How far workers have moved in a round, layer by layer, and whether they have moved alike.

For a tensor with elements i, deltas delta_k[i] of n workers and weights base[i] before the round:

    absolute_k   mean over i of |delta_k[i]|
    percent_k    100 ||delta_k|| / ||base||
    agreement    mean over i of (workers on the side of the majority) / n, where delta_k[i] is not
                 zero in any worker

Two workers that move by chance agree by 0.75, many by 0.5 + 0.4 / sqrt(n); workers that see the
same direction by 1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How far one worker has moved in one tensor."""

    absolute: float  # mean |delta|
    percent: float  # 100 ||delta|| / ||base||; infinite for what began at zero


def movement(base: Tensor, delta: Tensor) -> Movement:
    """The statistics of one worker's delta, of the shape of `base`, the weights before; float64.

    >>> movement(torch.tensor([3.0, 4.0]), torch.tensor([0.0, -1.0]))
    Movement(absolute=0.5, percent=20.0)
    """
    norm, before = float(delta.norm()), float(base.norm())
    percent = 100 * norm / before if before else (math.inf if norm else 0.0)
    return Movement(absolute=float(delta.abs().mean()), percent=percent)


def agreement(deltas: Tensor) -> tuple[float, int]:
    """How far workers agree on the signs of their deltas (n, P).

    The sum over the elements that all workers have moved of the majority's share, and how many
    these are: sums of several pieces can be added before they are divided.

    >>> agreement(torch.tensor([[1.0, -1.0, 0.0], [2.0, 1.0, 1.0]]))
    (1.5, 2)
    """
    counted = (deltas != 0).all(dim=0)
    up = (deltas > 0).sum(dim=0)[counted]
    majority = torch.maximum(up, len(deltas) - up)
    return float(majority.sum()) / len(deltas), int(counted.sum())
