"""How many weights each layer, or group of layers, loses: exact counts for a wanted sparsity.

A sparsity s asks for round(s N) of the N prunable weights to be removed, and that many are. With a
rate for each kind of layer, as in Frankle and Carbin ("The lottery ticket hypothesis", ICLR 2019:
10% or 20% of what is left, each round, and half of that in the output layer), a group of n weights
keeps n (1 - rate)^t, and t, the number of rounds, is the one real number at which the whole has
the sparsity asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sixfold.training.sparsity.layers import Prunable

KINDS = ("conv", "fc", "output")
"""Convolutions, linear layers, and the last of either, which gives the scores of the classes."""

DEFAULT_RATE = 0.2  # of what is left, removed in a round: the paper's


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A group of tensors that are ranked together, and how many of their weights go."""

    names: tuple[str, ...]  # of the tensors
    # Number of weights to be removed in all of them together, counting those that were removed
    # before.
    pruned: int


def prune_counts(
    layers: Sequence[Prunable],
    sparsity: float,
    *,
    scope: str = "global",
    rates: Mapping[str, float] | None = None,
    already: Mapping[str, int] | None = None,
) -> list[Counts]:
    """How many weights each group loses, so that `sparsity`, in [0, 1], of all weights are gone.

    Args:
        layers: the network's prunable tensors.
        sparsity: unless more were removed before, the sum is round(sparsity N).
        scope: "global" ranks all tensors together (with `rates`: all of a kind), "layerwise" each
            by itself.
        rates: part removed in a round by kind of layer; all alike if None.
        already: weights removed before by name, none of which comes back.

    >>> layers = [Prunable(name="a", kind="fc", shape=(10,), size=10),
    ...           Prunable(name="b", kind="output", shape=(5,), size=5)]
    >>> [group.pruned for group in prune_counts(layers, 0.5, scope="layerwise")]
    [5, 3]
    """
    groups = _groups(layers, scope, rates)
    sizes = [sum(layer.size for layer in group) for group in groups]
    total = sum(sizes)
    wanted = math.floor(sparsity * total + 0.5)
    least = [sum((already or {}).get(layer.name, 0) for layer in group) for group in groups]
    if rates is None:
        shares = [sparsity * size for size in sizes]
    else:
        group_rates = [rates.get(group[0].kind, DEFAULT_RATE) for group in groups]
        rounds = round_for(sizes, group_rates, sparsity)
        shares = [
            size * (1 - (1 - rate) ** rounds) for size, rate in zip(sizes, group_rates, strict=True)
        ]
    pruned = _share_out(wanted, shares, least, sizes)
    return [
        Counts(names=tuple(layer.name for layer in group), pruned=count)
        for group, count in zip(groups, pruned, strict=True)
    ]


def _groups(
    layers: Sequence[Prunable], scope: str, rates: Mapping[str, float] | None
) -> list[list[Prunable]]:
    if scope == "layerwise":
        return [[layer] for layer in layers]
    if rates is None:
        return [list(layers)]
    kinds = dict.fromkeys(layer.kind for layer in layers)
    return [[layer for layer in layers if layer.kind == kind] for kind in kinds]


def round_for(sizes: Sequence[int], rates: Sequence[float], sparsity: float) -> float:
    """The round t, a real number, with sum(size (1 - rate)^t) = (1 - sparsity) sum(size).

    A round removes the part `rate`, in [0, 1), of what is left of a group; a ValueError if groups
    with rate 0 hold more than may be left.

    >>> round(round_for([100, 10], [0.2, 0.1], 0.19), 3)
    0.995
    """
    left = (1 - sparsity) * sum(sizes)

    def kept(rounds: float) -> float:
        return math.fsum(s * (1 - r) ** rounds for s, r in zip(sizes, rates, strict=True))

    fixed = sum(size for size, rate in zip(sizes, rates, strict=True) if rate == 0)
    if sparsity > 0 and fixed >= left:
        raise ValueError(
            f"{fixed} of {sum(sizes)} weights are never pruned (rate 0), so no sparsity of "
            f"{sparsity:g} can be had"
        )
    low, high = 0.0, 1.0
    while kept(high) > left:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) > left else (low, middle)
    return high


def _share_out(
    wanted: int, shares: Sequence[float], least: Sequence[int], most: Sequence[int]
) -> list[int]:
    """Whole numbers near `shares` that add up to `wanted`, by the largest remainder."""
    counts = [
        min(max(math.floor(share + 1e-9), low), high)
        for share, low, high in zip(shares, least, most, strict=True)
    ]
    by_remainder = sorted(
        range(len(counts)), key=lambda group: (counts[group] - shares[group], group)
    )
    while (missing := wanted - sum(counts)) != 0:
        step = 1 if missing > 0 else -1
        order = by_remainder if missing > 0 else by_remainder[::-1]
        free = [g for g in order if least[g] <= counts[g] + step <= most[g]]
        if not free:
            break  # more was removed before than is asked for
        for group in free[: abs(missing)]:
            counts[group] += step
    return counts
