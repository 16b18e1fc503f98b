"""Operations with an explicit backward pass: the row of each, and what makes its `LayerOp`.

To add one, register its row (`sixfold.models.graph.operations.register_operation`) and put what
makes its `LayerOp` here, or from anywhere:

    EXPLICIT[SWISH] = lambda layer, weights: SwishOp()
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.models.graph import table
from sixfold.models.graph.operations import Operation, register_operation
from sixfold.training.layers.averages import AveragePoolOp, MeanOp
from sixfold.training.layers.convolution import ConvOp
from sixfold.training.layers.dropout import KEYED_DROPOUT
from sixfold.training.layers.multi_input import AutogradMultiInputOp
from sixfold.training.layers.norm import ACTIVATIONS, NormOp
from sixfold.training.layers.operations import (
    AutogradOp,
    DropoutOp,
    FlattenOp,
    LayerOp,
    LinearOp,
    MaxPoolOp,
    ReLU6Op,
    ReLUOp,
    ReshapeOp,
)
from sixfold.training.layers.weights import Weight
from sixfold.training.native.max_pool import MAX_POOL_RELU

Made = tuple[LayerOp | None, int]
"""An op, or None, and how many layers it stands for."""


class Weights:
    """The trainable parameters, by their places among all, and their copies to compute with."""

    def __init__(self, parameters: Sequence[nn.Parameter], copies: Sequence[Tensor] | None) -> None:
        self._places = {id(parameter): place for place, parameter in enumerate(parameters)}
        self._copies = copies
        self.made: list[tuple[LayerOp, list[Any]]] = []

    def owned(self, module: nn.Module) -> list[tuple[int, nn.Parameter]]:
        """The parameters of a module, with their places."""
        return [(self._places[id(p)], p) for p in module.parameters() if id(p) in self._places]

    def all_trained(self, module: nn.Module) -> bool:
        """Whether none of its weights is frozen."""
        return all(id(p) in self._places for p in module.parameters())

    def are_all_once_in(self, modules: Iterable[nn.Module]) -> bool:
        """Whether no two layers share weights, whose gradients would have to be added."""
        owned = [place for module in modules for place, _ in self.owned(module)]
        return sorted(owned) == sorted(self._places.values())

    def place(self, parameter: nn.Parameter) -> int:
        """Where its gradient goes."""
        return self._places[id(parameter)]

    def weight(self, parameter: nn.Parameter) -> Weight:
        """What a link computes with, and where its gradient goes."""
        place = self._places[id(parameter)]
        return Weight(place, parameter if self._copies is None else self._copies[place])

    def autograd_link(self, module: nn.Module) -> AutogradOp:
        """A module left to autograd."""
        return AutogradOp(module, self.owned(module), compute_dtype=self._compute_dtype)

    def autograd_join(self, module: nn.Module) -> AutogradMultiInputOp:
        """A module of several inputs left to autograd."""
        return AutogradMultiInputOp(module, self.owned(module), compute_dtype=self._compute_dtype)

    @property
    def _compute_dtype(self) -> torch.dtype | None:
        return None if self._copies is None else self._copies[0].dtype


class Reshape(nn.Module):
    """The same numbers in another shape, as `Tensor.reshape` takes it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Any shape of as many elements."""
        return x.reshape(self.shape)


RESHAPE = register_operation(Operation(name="constant_reshape", modules=(Reshape,)))


def _conv(leaf: Any, weights: Weights) -> LayerOp | None:
    if leaf.padding_mode != "zeros" or isinstance(leaf.padding, str):
        return None
    return ConvOp(leaf, *weight_and_bias(leaf, weights))


def _linear(leaf: Any, weights: Weights) -> LayerOp:
    return LinearOp(*weight_and_bias(leaf, weights))


def weight_and_bias(leaf: Any, weights: Weights) -> tuple[Weight, Weight | None]:
    """Both as an op uses them."""
    return weights.weight(leaf.weight), None if leaf.bias is None else weights.weight(leaf.bias)


def _average(leaf: nn.AdaptiveAvgPool2d) -> LayerOp:
    return MeanOp() if leaf.output_size in (1, (1, 1)) else AveragePoolOp(leaf)


def _norm(layer: nn.BatchNorm2d, behind: nn.Module | None, weights: Weights) -> Made:
    if not (layer.affine and weights.all_trained(layer)):
        return None, 1
    places = weights.place(layer.weight), weights.place(layer.bias)
    act = behind if type(behind) in ACTIVATIONS else None
    module = layer if act is None else nn.Sequential(layer, act)
    return NormOp(layer, places, act, weights.autograd_link(module)), 1 if act is None else 2


Make = Callable[[Any, Weights], LayerOp | None]

EXPLICIT: dict[Operation, Make] = {
    table.CONV_2D: _conv,
    table.LINEAR: _linear,
    table.FLATTEN: lambda layer, _weights: FlattenOp(layer),
    table.RELU: lambda _layer, _weights: ReLUOp(),
    table.RELU6: lambda _layer, _weights: ReLU6Op(),
    table.MAX_POOL_2D: lambda _layer, _weights: None,  # where it cannot be made the next
    MAX_POOL_RELU: lambda layer, _weights: MaxPoolOp(layer),
    RESHAPE: lambda layer, _weights: ReshapeOp(layer.shape),
    table.AVG_POOL_2D: lambda layer, _weights: AveragePoolOp(layer),
    table.ADAPTIVE_AVG_POOL_2D: lambda layer, _weights: _average(layer),
    KEYED_DROPOUT: lambda layer, _weights: DropoutOp(layer),
}
"""Row -> what makes a layer's op from it and the weights; None for settings that have none.

Norms are in `PAIRS`."""

PAIRS: dict[type[nn.Module], Callable[[Any, nn.Module | None, Weights], Made]] = {
    nn.BatchNorm2d: _norm
}
"""Layers that may take in the one behind them: (layer, what is behind it, weights) -> op."""
