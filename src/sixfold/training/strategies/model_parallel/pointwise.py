"""Layers that work element by element, dropout among them: a rank computes what it holds."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.errors import UnsupportedError
from sixfold.models.graph.operations import Operation, register_operation
from sixfold.training.layers.dropout import DROPOUT_DIMS
from sixfold.training.layers.explicit import EXPLICIT
from sixfold.training.layers.operations import DropoutOp
from sixfold.training.strategies.model_parallel.layout import Box, everywhere, slices
from sixfold.training.strategies.model_parallel.value import Context, Divided, Shape, Value

MaskSource = Callable[[str, float, tuple[int, ...], torch.dtype], Tensor]
"""Draws the dropout mask of a whole tensor: (name of the module, probability of a zero, shape,
dtype) -> zeros and 1 / (1 - p)."""


class Applied(nn.Module):
    """A function as a layer.

    Args:
        function: called with the tensor in the given place among the other arguments.
        place: of the tensor.
        arguments: the other arguments.
        named: arguments by name.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        arguments: Sequence[Any] = (),
        named: dict[str, Any] | None = None,
        place: int = 0,
    ) -> None:
        super().__init__()
        self._function, self._place = function, place
        self._arguments, self._named = list(arguments), named or {}

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        before, behind = self._arguments[: self._place], self._arguments[self._place :]
        return self._function(*before, x, *behind, **self._named)


class LocalDropout(nn.Module):
    """A rank's part of a dropout: the mask is drawn for the whole tensor, then cut.

    Args:
        p: probability of a zero.
        dims: dims of the tensor that share one draw, counted from the last.
        value: the input.
        box: what the rank holds of it.
        name: of the module in its network.

    Attributes:
        draw: where masks come from; to be set before training.
    """

    def __init__(self, p: float, dims: int, value: Value, box: Box, name: str) -> None:
        super().__init__()
        self._p, self._dims, self._name = p, dims, name
        whole = value.shape
        self._view = whole[: 3 - dims] + (1,) * dims
        self._part = tuple(
            slice(None) if length == 1 else part
            for length, part in zip(
                self._view, slices(box, tuple((0, size) for size in whole)), strict=True
            )
        )
        self.draw: MaskSource | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop and scale while training; pass on otherwise."""
        mask = self.mask(x)
        return x if mask is None else x * mask

    def mask(self, x: Tensor) -> Tensor | None:
        """What `x` is multiplied with; None if it is passed on as it is."""
        if not self.training or self._p == 0:
            return None
        if self._p == 1:
            return x.new_zeros(())
        if self.draw is None:
            raise RuntimeError(f"nobody draws the masks of {self._name!r}")
        mask = self.draw(self._name, self._p, (len(x), *self._view), x.dtype)
        return mask[(slice(None), *self._part)]


LOCAL_DROPOUT = register_operation(Operation(name="local_dropout", modules=(LocalDropout,)))
EXPLICIT[LOCAL_DROPOUT] = lambda layer, _weights: DropoutOp(layer)


class DrawnDropout(nn.Module):
    """`functional.dropout` as a layer: its mask comes from torch's generator, as it does there.

    Args:
        p: probability of a zero.
        dims: dims of the input that share one draw, counted from the last.
    """

    def __init__(self, p: float, dims: int) -> None:
        super().__init__()
        self.p, self.dims = p, dims


class LocalDrawnDropout(nn.Module):
    """A rank's part of it: all ranks of a group draw the mask of the whole tensor, and cut it.

    They draw the same, since the generator is seeded for every shard and they make the same calls.
    """

    def __init__(self, layer: DrawnDropout, value: Value, box: Box) -> None:
        super().__init__()
        self._layer = layer
        self._whole = value.shape[:1] if value.flat and value.shape[1:] == (1, 1) else value.shape
        whole: Box = tuple((0, size) for size in value.shape)
        self._part, self._flat = slices(box, whole), value.flat

    def forward(self, x: Tensor) -> Tensor:
        """(n, *own) -> (n, *own)."""
        if not self.training:
            return x
        # As the undivided network has it: maps in the order N H W C, features as they are.
        shape = (len(x), *self._whole)
        ones = torch.ones(shape, dtype=x.dtype)
        if self._flat:
            ones = ones.flatten(1)
        elif len(shape) == 4:
            ones = ones.contiguous(memory_format=torch.channels_last)
        drop = functional.dropout2d if self._layer.dims else functional.dropout
        mask = drop(ones, self._layer.p).reshape(len(x), *self._shape())
        return x * mask[(slice(None), *self._part)]

    def _shape(self) -> tuple[int, ...]:
        return (*self._whole, 1, 1)[:3]


def divide_drawn_dropout(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide a dropout that is a function."""
    del out
    assert isinstance(layer, DrawnDropout)
    (value,) = inputs
    if value.flat and layer.dims:
        raise UnsupportedError("it needs maps (n, C, H, W)")
    box = value.layout.box(context.rank)
    gather = context.gather_as(value, value.layout)
    return Divided(value.layout, [gather], [LocalDrawnDropout(layer, value, box)])


def divide_pointwise(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide an element-by-element layer."""
    del out
    (value,) = inputs
    layer = copy.copy(layer)
    if getattr(layer, "inplace", False):
        layer.inplace = False  # type: ignore[assignment]
    return Divided(value.layout, [context.gather_as(value, value.layout)], [layer])


def divide_dropout(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Divide a dropout."""
    del out
    (value,) = inputs
    dims = DROPOUT_DIMS[type(layer)]
    if value.flat and dims:
        raise UnsupportedError("it needs maps (n, C, H, W): use nn.Dropout behind nn.Flatten")
    local = LocalDropout(
        float(layer.p),  # type: ignore[arg-type]
        dims,
        value,
        value.layout.box(context.rank),
        context.name,
    )
    return Divided(value.layout, [context.gather_as(value, value.layout)], [local])


def divide_over_classes(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
    """Softmax and its like need all features of a sample: every rank fetches and computes all."""
    (value,) = inputs
    if not value.flat or value.shape[1:] != (1, 1) or getattr(layer, "dim", 1) not in (1, -1):
        raise UnsupportedError("it can be divided for (n, F) with dim=1 only")
    layout = everywhere(context.mesh, out)
    flat = nn.Sequential(nn.Flatten(), layer, nn.Unflatten(1, (out[0], 1, 1)))
    return Divided(layout, [context.gather_as(value, layout)], [flat])
