"""Linear layers and the mean over maps: where features are summed up.

A linear layer divides its sum over input features as its input happens to be divided: the weight
is seen as (K, C, H, W), of which a rank holds the box of its own features, whether they were
divided by channels, rows or columns. So its input is not exchanged, forward or backward, and its
weight is held by one rank alone, so that there is no gradient to be summed. What is summed is the
output, n K numbers. Along axes on which the input is held in copies (the raw images), the output
features are divided instead, and nothing is exchanged but the gradient of the input. A layer that
is to divide its outputs is given such copies.

This is the row-parallel and the column-parallel layer of M. Shoeybi et al., "Megatron-LM", 2019,
chosen by where the input is, and with rows and columns of maps among the axes.

Legend: n samples, K output features, C H W of the input.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.models.graph.operations import Operation, register_operation
from sixfold.training.layers.explicit import EXPLICIT, weight_and_bias
from sixfold.training.layers.operations import LinearOp
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
from sixfold.training.strategies.model_parallel.value import Context, Divided, Shape, Value


class LocalLinear(nn.Module):
    """A rank's part of a linear layer."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, K, 1, 1)."""
        return functional.linear(x.flatten(1), self.weight, self.bias)[:, :, None, None]


class LocalLinearOp(LinearOp):
    """As a linear layer, of maps, and with features that are seen as maps."""

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> (n, K, 1, 1)."""
        y, saved = super().forward(x.flatten(1), wanted)
        return y[:, :, None, None], (saved, x.shape)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(n, K, 1, 1) -> (n, C, H, W)."""
        inner, shape = saved
        dx = super().backward(inner, grad.flatten(1), out)
        return None if dx is None else dx.reshape(shape)


LOCAL_LINEAR = register_operation(Operation(name="local_linear", modules=(LocalLinear,)))
EXPLICIT[LOCAL_LINEAR] = lambda layer, weights: LocalLinearOp(*weight_and_bias(layer, weights))


def divide_linear(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide a linear layer."""
    assert isinstance(layer, nn.Linear)
    (value,), mesh = inputs, context.mesh
    given = everywhere(mesh, value.shape) if context.divides_outputs else value.layout
    copied = [axis for axis in VECTOR_AXES if axis in given.copied]
    outputs = even(out[0], mesh, copied)
    held = Layout(mesh, (outputs, whole(1), whole(1)))
    gather = context.gather(value, given.boxes())
    target = context.target(vector(mesh, out[0]))
    scatter = context.scatter(held, target, given.axes)
    weights = Layout(mesh, (outputs, *given.splits))
    owner, made = LocalLayer(context.rank), LocalLinear()
    owner.hold("weight", layer.weight, Part(tuple(layer.weight.shape), weights))
    owner.hold("bias", layer.bias, Part((out[0],), Layout(mesh, (target.splits[0],))))
    owner.give(made, "weight")
    return context.finished([gather], [made], scatter, target, owner)


class PartialMean(nn.Module):
    """The sum over a rank's part of every map, divided by the size of the whole."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, C, 1, 1)."""
        return x.sum((2, 3), keepdim=True) / self.count


class PartialMeanOp:
    """dx is dy / count everywhere."""

    has_weights = False

    def __init__(self, layer: PartialMean) -> None:
        self._layer = layer

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - keeps a shape
        """(n, C, H, W) -> (n, C, 1, 1)."""
        return self._layer(x), x.shape

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """(n, C, 1, 1) -> (n, C, H, W)."""
        spread = (grad / self._layer.count).expand(saved)
        return spread.contiguous(memory_format=torch.channels_last)


PARTIAL_MEAN = register_operation(Operation(name="partial_mean", modules=(PartialMean,)))
EXPLICIT[PARTIAL_MEAN] = lambda layer, _weights: PartialMeanOp(layer)


def divide_mean(context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape) -> Divided:
    """Divide the mean over rows and columns: ranks add up their parts of the sums."""
    del layer
    (value,), mesh = inputs, context.mesh
    if value.raw:
        gather = context.gather_as(value, everywhere(mesh, value.shape))
        return Divided(everywhere(mesh, out), [gather], [nn.AdaptiveAvgPool2d(1)])
    target = context.target(vector(mesh, out[0]))
    held = Layout(mesh, (value.layout.splits[0], whole(1), whole(1)))
    scatter = context.scatter(held, target, value.layout.spatial)
    mean = PartialMean(prod(value.shape[1:]))
    gather = context.gather_as(value, value.layout)
    return context.finished([gather], [mean], scatter, target)
