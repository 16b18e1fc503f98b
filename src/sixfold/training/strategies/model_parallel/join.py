"""Layers of several inputs: sums and products of branches, and concatenation of channels."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from sixfold.core.errors import UnsupportedError
from sixfold.models.graph import table
from sixfold.models.graph.operations import operation_of
from sixfold.training.layers.calls import CONCATENATION, OTHER, SUM
from sixfold.training.strategies.model_parallel.layout import (
    Box,
    is_empty,
    maps,
    sizes,
    vector,
)
from sixfold.training.strategies.model_parallel.value import Context, Divided, Shape, Value


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
        self.function, self.named = function, named or {}

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(one, other, **self.named)


class Concatenation(nn.Module):
    """`torch.cat` along channels or features, as the network wrote it."""


def divide_binary(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> Divided:
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
    gathers = []
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
        gathers.append(context.gather(value, needs, like=layout))
    if _is_plain_sum(layer) and all(value.shape == out for value in inputs):
        return Divided(layout, gathers, [], kind=SUM)
    safe = _Safe(layer, sizes(layout.box(context.rank)))
    return Divided(layout, gathers, [safe], kind=OTHER)


def _is_plain_sum(layer: nn.Module) -> bool:
    assert isinstance(layer, Binary)
    return operation_of(layer.function) is table.ADD and not layer.named


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
) -> Divided:
    """Divide a concatenation: the result is cut evenly, and each rank fetches what falls to it."""
    del layer
    if any(value.shape[1:] != out[1:] for value in inputs):
        raise UnsupportedError("it can be divided along dim 1 only")
    features = all(value.flat for value in inputs)
    if any(value.flat for value in inputs) and (not features or out[1:] != (1, 1)):
        raise UnsupportedError("concatenate maps before they are flattened")
    layout = vector(context.mesh, out[0]) if features else maps(context.mesh, out)
    gathers, start = [], 0
    for value in inputs:
        stop = start + value.shape[0]
        needs: list[Box] = []
        for (low, high), *rest in layout.boxes():
            own = max(low, start) - start, min(high, stop) - start
            needs.append((own if own[0] < own[1] else (0, 0), *rest))
        gathers.append(context.gather(value, needs, like=layout))
        start = stop
    return Divided(layout, gathers, [], kind=CONCATENATION)


def _misfit(shape: Shape, out: Shape) -> bool:
    return any(length not in (1, size) for length, size in zip(shape, out, strict=True))
