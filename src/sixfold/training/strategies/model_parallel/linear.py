"""Linear layers and the mean over maps: where features are summed up.

A linear layer divides its sum over input features as its input happens to be divided: the weight
is seen as (K, C, H, W), of which a rank holds the box of its own features, whether they were
divided by channels, rows or columns. So its input is not exchanged, forward or backward, and its
weight is held by one rank alone, so that there is no gradient to be summed. What is summed is the
output, n K numbers. Along axes on which the input is held in copies (the raw images), the output
features are divided instead, and nothing is exchanged but the gradient of the input.

This is the row-parallel and the column-parallel layer of M. Shoeybi et al., "Megatron-LM", 2019,
chosen by where the input is, and with rows and columns of maps among the axes.

Legend: n samples, K output features, C H W of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn
from torch.nn import functional

from sixfold.training.strategies.model_parallel.exchange import Fetch, Total
from sixfold.training.strategies.model_parallel.layout import (
    VECTOR_AXES,
    Layout,
    even,
    everywhere,
    vector,
    whole,
)
from sixfold.training.strategies.model_parallel.local import LocalLayer
from sixfold.training.strategies.model_parallel.part import Part
from sixfold.training.strategies.model_parallel.value import Context, Shape, Value


class LocalLinear(LocalLayer):
    """A rank's part of a linear layer."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        rank: int,
        linear: nn.Linear,
        fetch: Fetch,
        total: Total | None,
        weights: Layout,
        target: Layout,
    ) -> None:
        super().__init__(rank)
        self._fetch, self._total = fetch, total
        self.hold("weight", linear.weight, Part(tuple(linear.weight.shape), weights))
        biases = Layout(weights.mesh, (target.splits[0],))
        self.hold("bias", linear.bias, Part((linear.out_features,), biases))

    def forward(self, x: Tensor) -> Tensor:
        """(n, *own input) -> (n, own output features, 1, 1)."""
        x = self._fetch(x).flatten(1)
        if self._total is None:
            return functional.linear(x, self.weight, self.bias)[:, :, None, None]
        y: Tensor = self._total(functional.linear(x, self.weight)[:, :, None, None])
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


def divide_linear(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> tuple[nn.Module, Layout]:
    """Divide a linear layer."""
    assert isinstance(layer, nn.Linear)
    (value,), mesh = inputs, context.mesh
    copied = [axis for axis in VECTOR_AXES if axis in value.layout.copied]
    outputs = even(out[0], mesh, copied)
    held = Layout(mesh, (outputs, whole(1), whole(1)))
    fetch = context.fetch(value, value.layout.boxes())
    target = context.target(vector(mesh, out[0]))
    total = context.total(held, target, value.layout.axes)
    weights = Layout(mesh, (outputs, *value.layout.splits))
    return LocalLinear(context.rank, layer, fetch, total, weights, target), target


class LocalMean(nn.Module):
    """A rank's part of the mean of every map."""

    def __init__(self, fetch: Fetch, total: Total | None, count: int) -> None:
        super().__init__()
        self._fetch, self._total, self._count = fetch, total, count

    def forward(self, x: Tensor) -> Tensor:
        """(n, *own input) -> (n, own channels, 1, 1)."""
        x = self._fetch(x)
        if self._total is None:
            return functional.adaptive_avg_pool2d(x, 1)
        return self._total(x.sum((2, 3), keepdim=True) / self._count)


def divide_mean(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> tuple[nn.Module, Layout]:
    """Divide the mean over rows and columns: ranks add up their parts of the sums."""
    del layer
    (value,), mesh = inputs, context.mesh
    if value.raw:
        given = everywhere(mesh, value.shape)
        return LocalMean(context.fetch_as(value, given), None, 1), everywhere(mesh, out)
    target = context.target(vector(mesh, out[0]))
    held = Layout(mesh, (value.layout.splits[0], whole(1), whole(1)))
    count = prod(value.shape[1:])
    total = context.total(held, target, value.layout.spatial)
    return LocalMean(context.fetch_as(value, value.layout), total, count), target
