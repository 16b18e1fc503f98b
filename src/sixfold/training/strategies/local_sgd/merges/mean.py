"""The mean of the workers, weighted by how many examples each has learned from.

    w = base + sum over k of m_k delta_k / sum over k of m_k

McMahan et al., "Communication-efficient learning of deep networks from decentralized data", 2017
(federated averaging); Stich, "Local SGD converges fast and communicates little", 2019. Where all
workers have begun at `base`, this is the weighted mean of their weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def mean_delta(deltas: Tensor, examples: Sequence[int]) -> Tensor:
    """The mean (P,) of deltas (n, P) float64, weighted by the examples (n,) m_k that each has seen.

    It is added from the first worker to the last; a ValueError if none has seen an example.

    >>> mean_delta(torch.tensor([[4.0], [8.0]]), [3, 1])
    tensor([5.])
    """
    total = sum(examples)
    if total <= 0:
        raise ValueError("a mean needs at least one example")
    result = torch.zeros_like(deltas[0])
    for delta, count in zip(deltas, examples, strict=True):
        # Products of whole numbers and differences of float32 are exact, so the sum comes first.
        result.add_(delta, alpha=count)
    return result.div_(total)


def mean(base: Tensor, deltas: Tensor, examples: Sequence[int]) -> Tensor:
    """The merged weights, (P,); arguments as for `mean_delta`, and `base` (P,).

    >>> mean(torch.tensor([1.0]), torch.tensor([[4.0], [8.0]]), [3, 1])
    tensor([6.])
    """
    return base + mean_delta(deltas, examples)
