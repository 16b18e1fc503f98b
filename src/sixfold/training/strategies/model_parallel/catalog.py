"""Which layers and functions can be divided, and by what.

Functions are read as the layers that do the same, so that each operation is divided in one place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import fx, nn

from sixfold.core.errors import UnsupportedError
from sixfold.models.graph import table
from sixfold.models.graph.operations import Operation, operation_of
from sixfold.models.graph.trace import REMEDY, SAMPLES, Call
from sixfold.training.layers.rewrites import has_hooks
from sixfold.training.native.max_pool import MAX_POOL_RELU
from sixfold.training.strategies.model_parallel.conv import divide_conv
from sixfold.training.strategies.model_parallel.join import (
    Binary,
    Concatenation,
    divide_binary,
    divide_concatenation,
)
from sixfold.training.strategies.model_parallel.linear import divide_linear, divide_mean
from sixfold.training.strategies.model_parallel.norm import divide_norm
from sixfold.training.strategies.model_parallel.pointwise import (
    Applied,
    DrawnDropout,
    divide_drawn_dropout,
    divide_dropout,
    divide_over_classes,
    divide_pointwise,
)
from sixfold.training.strategies.model_parallel.pool import (
    divide_adaptive_pool,
    divide_avg_pool,
    divide_max_pool,
    divide_padding,
    divide_response_norm,
)
from sixfold.training.strategies.model_parallel.value import Division

DIVISIONS: dict[Operation, Division] = {
    table.CONV_2D: divide_conv,
    table.LINEAR: divide_linear,
    table.BATCH_NORM: divide_norm,
    table.MAX_POOL_2D: divide_max_pool,
    MAX_POOL_RELU: divide_max_pool,
    table.AVG_POOL_2D: divide_avg_pool,
    table.ADAPTIVE_AVG_POOL_2D: divide_adaptive_pool,
    table.ADAPTIVE_MAX_POOL_2D: divide_adaptive_pool,
    table.RESPONSE_NORM: divide_response_norm,
    table.CONSTANT_PAD: divide_padding,
    table.CONSTANT_PAD_3D: divide_padding,
    table.DROPOUT: divide_dropout,
    table.DROPOUT_2D: divide_dropout,
    table.SOFTMAX: divide_over_classes,
    table.LOG_SOFTMAX: divide_over_classes,
}
"""Row -> what divides its modules. What is pointwise needs no entry."""

Made = tuple[nn.Module, Division]

FUNCTIONS: dict[Operation, Callable[..., Made]] = {
    table.DROPOUT: lambda *given, **named: _dropout(0, *given, **named),
    table.DROPOUT_2D: lambda *given, **named: _dropout(2, *given, **named),
    table.PAD: lambda *given, **named: (_padding(*given, **named), divide_padding),
    table.SOFTMAX: lambda *given, **named: _over_classes(nn.Softmax, *given, **named),
    table.LOG_SOFTMAX: lambda *given, **named: _over_classes(nn.LogSoftmax, *given, **named),
}
"""Functions whose modules take other arguments: what makes a layer, and what divides it."""


@dataclass(frozen=True)
class Rule:
    """How a call is divided.

    Attributes:
        layer: what it does, as a module.
        division: divides it; None if it only gives the same values another shape.
        inputs: the calls whose results it takes.
        in_place: whether it also changes its first input.
    """

    layer: nn.Module
    division: Division | None
    inputs: list[fx.Node]
    in_place: bool = False


def look_up(call: Call, shapes: dict[str, tuple[int, ...] | None]) -> Rule:
    """Find how a call is divided.

    Args:
        call: one that gives a tensor.
        shapes: of the results of all calls, and of the network's input.

    Raises:
        UnsupportedError: if it cannot be divided.
    """
    inputs = [node for node in call.tensors() if shapes.get(node.name) is not None]
    if not inputs or any(node not in inputs for node in call.tensors() if not _reshapes(call)):
        raise _unsupported(call)
    given = shapes[inputs[0].name]
    assert given is not None
    assert call.shape is not None
    if _reshapes(call):
        if call.shape in (given, (SAMPLES, prod(given[1:]))):
            return Rule(nn.Flatten(), None, inputs[:1])
        raise _unsupported(call)
    if isinstance(call.called, nn.Module) and has_hooks(call.called):
        raise UnsupportedError(
            f"{_where(call)} cannot be divided, since hooks change it or look at it (as "
            f"weight_norm, spectral_norm and prune of torch.nn.utils do): remove them, or {REMEDY}"
        )
    layer, division = _layer(call, inputs, given)
    if len(call.shape) not in (2, 4) or len(given) not in (2, 4):
        raise _unsupported(call)
    if isinstance(layer, nn.Linear) and len(given) != 2:
        raise UnsupportedError(f"{_where(call)} works on {len(given)} dims: flatten before it")
    if isinstance(layer, nn.AdaptiveAvgPool2d) and call.shape[2:] == (1, 1):
        division = divide_mean
    return Rule(layer, division, inputs, bool(getattr(layer, "inplace", False) or _in_place(call)))


def _reshapes(call: Call) -> bool:
    """Whether a call gives the same numbers another shape; sizes may be among its arguments."""
    row = operation_of(call.called)
    return row is not None and row.reshapes


def _in_place(call: Call) -> bool:
    """Whether the call of a function overwrites its first input."""
    row = operation_of(call.called)
    if row is None or isinstance(call.called, nn.Module):
        return False
    if call.called in row.in_place or call.named.get("inplace"):
        return True
    # `inplace` is the last argument.
    is_drop = row in (table.DROPOUT, table.DROPOUT_2D)
    may_be = len(call.arguments) == 4 if is_drop else row.pointwise
    return may_be and call.arguments[-1] is True


def _layer(call: Call, inputs: list[fx.Node], given: tuple[int, ...]) -> Made:
    """What a call does, as a layer, and what divides it."""
    row, called = operation_of(call.called), call.called
    if row is None:
        raise _unsupported(call)
    division = DIVISIONS.get(row, divide_pointwise if row.pointwise else None)
    if isinstance(called, nn.Module) and division is not None:
        return called, division
    if row is table.CAT and call.argument(1, "dim", 0) in (1, 1 - len(given)):
        return Concatenation(), divide_concatenation
    if row is table.MEAN and _is_mean_of_maps(call, given):
        return nn.AdaptiveAvgPool2d(1), divide_adaptive_pool
    if row.binary and len(inputs) == 2 == len(call.arguments):
        assert row.function is not None
        return Binary(row.function, call.named), divide_binary
    if isinstance(called, nn.Module) or len(inputs) != 1:
        raise _unsupported(call)
    if row in FUNCTIONS:
        return FUNCTIONS[row](*call.arguments[1:], **call.named)
    if row is table.IDENTITY:
        return nn.Identity(), divide_pointwise
    if row.pointwise or row.binary:
        return _applied(call, row, inputs[0]), divide_pointwise
    if division is not None and row.arguments:
        return row.module(call.arguments[1:], call.named), division
    raise _unsupported(call)


def _applied(call: Call, row: Operation, tensor: fx.Node) -> Applied:
    """A function of one tensor, out of place."""
    is_written = isinstance(call.called, str) or call.called in row.in_place or row.binary
    function = row.function if is_written else call.called
    named = {name: value for name, value in call.named.items() if name != "inplace"}
    place = next((n for n, value in enumerate(call.arguments) if value is tensor), None)
    if function is None or place is None:
        raise _unsupported(call)
    return Applied(function, [a for a in call.arguments if a is not tensor], named, place)


def _dropout(dims: int, p: float = 0.5, training: bool = True, inplace: bool = False) -> Made:
    """A dropout with the arguments of `functional.dropout`."""
    del inplace  # looked at by `look_up`
    if training and p:
        return DrawnDropout(p, dims), divide_drawn_dropout
    return nn.Identity(), divide_pointwise


def _over_classes(
    layer: type[nn.Softmax] | type[nn.LogSoftmax],
    dim: int | None = None,
    *others: Any,
    dtype: Any = None,
    **named: Any,
) -> Made:
    if dtype is not None or any(other is not None and other != 3 for other in others):
        raise UnsupportedError("dtype= cannot be divided: leave it out")
    del named
    return layer(dim), divide_over_classes


def _padding(pad: Any, mode: str = "constant", value: float | None = None) -> nn.Module:
    if mode != "constant":
        raise UnsupportedError(f"mode={mode!r} cannot be divided: pad with a constant")
    amounts = (*pad, *([0] * (6 - len(pad))))
    if len(pad) > 6:
        raise UnsupportedError("padding of samples cannot be divided")
    return nn.ConstantPad3d(amounts, 0.0 if value is None else value)


def _is_mean_of_maps(call: Call, given: tuple[int, ...]) -> bool:
    dims = call.named.get("dim", call.arguments[1:])
    while isinstance(dims, (list, tuple)) and len(dims) and isinstance(dims[0], (list, tuple)):
        dims = dims[0]
    if len(given) != 4 or not isinstance(dims, (list, tuple)):
        return False
    numbers = [dim for dim in dims if isinstance(dim, int) and not isinstance(dim, bool)]
    return sorted(dim % 4 for dim in numbers) == [2, 3]


def _where(call: Call) -> str:
    if isinstance(call.called, nn.Module):
        return f"layer '{call.name}' ({call.kind})"
    if call.called == "get_attr":
        return f"parameter '{call.name}', which is used outside of a layer,"
    return f"the call of {call.kind} ('{call.name}')"


def _unsupported(call: Call) -> UnsupportedError:
    return UnsupportedError(
        f"{_where(call)} cannot be divided: use a layer that model_parallel knows (see "
        f"docs/strategies.md), or {REMEDY}"
    )


def explain(call: Call, error: UnsupportedError) -> list[str]:
    """An error of a layer's division, with the layer's name."""
    return [
        text if text.startswith(_where(call)) else f"{_where(call)}: {text}, or {REMEDY}"
        for text in error.problems
    ]
