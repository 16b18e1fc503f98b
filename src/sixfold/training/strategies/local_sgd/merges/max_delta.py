"""Every weight from the worker that has moved it furthest, in the direction that worker chose.

    w[i] = base[i] + delta_k[i]    with  k = argmax over workers of |delta_k[i]|

The first of equals wins. Where workers agree this keeps the boldest step that a mean would make
smaller; where they disagree it takes a side.
"""

import torch
from torch import Tensor


def max_delta(base: Tensor, deltas: Tensor) -> Tensor:
    """The merged weights (P,), from base (P,) and each worker's delta (n, P), float64.

    >>> max_delta(torch.zeros(2), torch.tensor([[1.0, -3.0], [-2.0, 3.0]]))
    tensor([-2., -3.])
    """
    # Worker by worker: the first of equals wins by the rule, not by how argmax is written.
    furthest = deltas[0].clone()
    for delta in deltas[1:]:
        torch.where(delta.abs() > furthest.abs(), delta, furthest, out=furthest)
    return base + furthest
