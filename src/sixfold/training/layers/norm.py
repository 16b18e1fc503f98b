"""The batch-norm link: training's statistics of each shard, and the activation behind it."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sixfold.training.layers.operations import AutogradOp
from sixfold.training.native import norm

ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: norm.RELU, nn.ReLU6: norm.RELU6}
"""What a norm may have behind it in one link."""


class NormOp:
    """Batch-norm with the shard's own statistics, and an activation.

    The norm has weight and bias (`places` of their gradients), and its running statistics are moved
    on. `otherwise` does the work where the layer does not train, or the maps do not suit.
    """

    has_weights = True

    def __init__(
        self,
        layer: nn.BatchNorm2d,
        places: tuple[int, int],
        behind: nn.Module | None,
        otherwise: AutogradOp,
    ) -> None:
        self._layer, self._places, self._otherwise = layer, places, otherwise
        self._act = norm.NONE if behind is None else ACTIVATIONS[type(behind)]

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W), the same shape."""
        layer = self._layer
        if not (layer.training and norm.suits(x)):
            return self._otherwise.forward(x, wanted)
        y, saved, found = norm.forward(
            x, layer.weight.detach().numpy(), layer.bias.detach().numpy(), layer.eps, self._act
        )
        if layer.track_running_stats:
            move_on(layer, found)
        return y, saved

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(n, C, H, W), the same shape."""
        if not isinstance(saved, norm.Saved):
            return self._otherwise.backward(saved, grad, out)
        dx, dw, db = norm.backward(saved, grad)
        for place, gradient in zip(self._places, (dw, db), strict=True):
            out[place].copy_(torch.from_numpy(gradient))
        return dx


class _Running(Protocol):
    """A norm with running statistics."""

    momentum: float | None
    num_batches_tracked: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None


def move_on(layer: _Running, found: norm.Statistics) -> None:
    """Move running statistics on, as torch does: the variance's estimate is the unbiased one."""
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    rate = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    unbiased = found.var * (found.rows / max(found.rows - 1, 1))
    for running, new in ((layer.running_mean, found.mean), (layer.running_var, unbiased)):
        assert running is not None
        values = running.numpy()
        values[:] = (1.0 - rate) * values + rate * new
