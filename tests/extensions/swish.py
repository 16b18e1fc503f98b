"""An operation that is no part of Sixfold: its row, its explicit backward pass, and a network.

y = x s with s = sigmoid(x);  dx = dy (s + y (1 - s)).

Ramachandran et al., "Searching for activation functions", 2017, with beta = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.models.graph.operations import Operation, register_operation
from sixfold.training.layers.explicit import EXPLICIT


class Swish(nn.Module):
    """x sigmoid(x), as two functions."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(x)


class SwishOp:
    """Keeps the input, and computes the sigmoid again."""

    has_weights = False

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """Any shape."""
        return x * torch.sigmoid(x), (x if wanted else None)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """Any shape."""
        del out
        s = torch.sigmoid(saved)
        found: Tensor = grad * (s + saved * s * (1 - s))
        return found


SWISH = register_operation(Operation(name="swish", modules=(Swish,), pointwise=True, flops=(2, 6)))
EXPLICIT[SWISH] = lambda _layer, _weights: SwishOp()


def network(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A small network with it."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        Swish(),
        nn.Flatten(),
        nn.Linear(4 * height * width, classes),
    )
