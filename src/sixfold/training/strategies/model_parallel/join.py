"""Layers of several inputs: sums and products of branches, and concatenation of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sixfold.core.errors import UnsupportedError
from sixfold.training.strategies.model_parallel.exchange import Fetch
from sixfold.training.strategies.model_parallel.layout import (
    Box,
    Layout,
    is_empty,
    maps,
    sizes,
    vector,
)
from sixfold.training.strategies.model_parallel.value import Context, Shape, Value


class Binary(nn.Module):
    """A function of two tensors, element by element, as the network wrote it.

    Args:
        function: such as torch.add.
        named: arguments by name, such as alpha.
    """

    def __init__(
        self, function: Callable[..., Tensor], named: dict[str, object] | None = None
    ) -> None:
        super().__init__()
        self._function, self._named = function, named or {}

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Apply the function."""
        return self._function(one, other, **self._named)


class Concatenation(nn.Module):
    """`torch.cat` along channels or features, as the network wrote it."""


class LocalJoin(nn.Module):
    """A rank's part of a function of several tensors."""

    def __init__(self, fetches: Sequence[Fetch], function: nn.Module) -> None:
        super().__init__()
        self._fetches, self._function = list(fetches), function

    def forward(self, *inputs: Tensor) -> Tensor:
        """Fetch every input's part, then join them."""
        parts = [fetch(x) for fetch, x in zip(self._fetches, inputs, strict=True)]
        joined: Tensor = self._function(*parts)
        return joined


class _Cat(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


def divide_binary(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> tuple[nn.Module, Layout]:
    """Divide a sum or product: as the larger operand is; the other is brought to it.

    An operand with dims of length 1, such as the factors of a squeeze-and-excitation block, is
    needed whole along these by everybody.
    """
    shaped = [value for value in inputs if value.shape == out]
    if not shaped or any(_misfit(value.shape, out) for value in inputs):
        raise UnsupportedError("one operand must have the shape of the result")
    if len({value.flat for value in inputs}) > 1:
        raise UnsupportedError("its operands must both be (n, C, H, W) or both (n, F)")
    layout = next((value.layout for value in shaped if not value.raw), shaped[0].layout)
    fetches = []
    for value in inputs:
        needs: list[Box] = []
        for box in layout.boxes():
            need = tuple(
                interval if length == size else (0, 1)
                for interval, length, size in zip(box, value.shape, out, strict=True)
            )
            needs.append(((0, 0),) * 3 if is_empty(box) else need)
        if value.shape == out:
            needs = layout.boxes()
        fetches.append(context.fetch(value, needs, duplicated=layout.copied))
    return LocalJoin(fetches, _Safe(layer, sizes(layout.box(context.rank)))), layout


class _Safe(nn.Module):
    """A function of tensors that also takes parts that hold nothing."""

    def __init__(self, function: nn.Module, out: tuple[int, ...]) -> None:
        super().__init__()
        self._function, self._out = function, out

    def forward(self, *parts: Tensor) -> Tensor:
        if 0 in self._out:
            zeros = parts[0].new_zeros((len(parts[0]), *self._out))
            for part in parts:
                zeros = zeros + part.sum()
            return zeros
        found: Tensor = self._function(*parts)
        return found


def divide_concatenation(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> tuple[nn.Module, Layout]:
    """Divide a concatenation: the result is cut evenly, and each rank fetches what falls to it."""
    del layer
    if any(value.shape[1:] != out[1:] for value in inputs):
        raise UnsupportedError("it can be divided along dim 1 only")
    features = all(value.flat for value in inputs)
    if any(value.flat for value in inputs) and (not features or out[1:] != (1, 1)):
        raise UnsupportedError("concatenate maps before they are flattened")
    layout = vector(context.mesh, out[0]) if features else maps(context.mesh, out)
    fetches, start = [], 0
    for value in inputs:
        stop = start + value.shape[0]
        needs: list[Box] = []
        for (low, high), *rest in layout.boxes():
            own = max(low, start) - start, min(high, stop) - start
            needs.append((own if own[0] < own[1] else (0, 0), *rest))
        fetches.append(context.fetch(value, needs, duplicated=layout.copied))
        start = stop
    return LocalJoin(fetches, _Cat()), layout


def _misfit(shape: Shape, out: Shape) -> bool:
    return any(length not in (1, size) for length, size in zip(shape, out, strict=True))
