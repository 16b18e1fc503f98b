"""What a loss is: a sum over samples, and its gradient.

The loss of a step with samples i of weights w_i (all 1 where none are given) is

    L = sum_i w_i l_i / sum_i w_i

as torch's ``reduction="mean"`` has it. A shard contributes sum_i w_i l_i, its gradient, and
sum_i w_i; the division comes when all shards are added.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Computed = tuple[Tensor, Any]  # sum_i w_i l_i, (), and its gradient, in the form of the output
Compute = Callable[[Any, Tensor, Tensor | None], Computed]
"""Called with output, target and weight (n,) of the samples."""

Plain = Callable[[Any, Tensor], Tensor]  # sum_i l_i of (n, K) outputs and their targets, ()
Score = Callable[[Tensor, Tensor], Tensor]
"""How many samples are told right, (), of (n, K) outputs and their targets."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is made small, and how it is told."""

    compute: Compute
    plain: Plain  # as evaluations tell it: without smoothing and class weights
    score: Score | None = None  # none where an output is not right or wrong, as in a regression
    several: bool = False
    """Whether it takes all outputs of a network by name, rather than its only one."""


def weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    """sum_i w_i l_i of (n,) losses of samples."""
    return values.sum() if weight is None else values.dot(weight)


def scaled(grad: Tensor, weight: Tensor | None) -> Tensor:
    """The gradient (n, K) of samples times their weights."""
    return grad if weight is None else grad * weight[:, None]
