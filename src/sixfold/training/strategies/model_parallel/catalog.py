"""Which layers and functions can be divided, and by what.

Functions are read as the layers that do the same, so that each operation is divided in one place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from sixfold.core.errors import UnsupportedError
from sixfold.models.graph.trace import REMEDY, SAMPLES, Call
from sixfold.training.native.max_pool import MaxPoolReLU2d
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

POINTWISE: tuple[type[nn.Module], ...] = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    nn.Identity, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU,
    nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip

LAYERS: dict[type[nn.Module], Division] = {
    nn.Conv2d: divide_conv,
    nn.Linear: divide_linear,
    nn.BatchNorm1d: divide_norm,
    nn.BatchNorm2d: divide_norm,
    nn.MaxPool2d: divide_max_pool,
    MaxPoolReLU2d: divide_max_pool,
    nn.AvgPool2d: divide_avg_pool,
    nn.AdaptiveAvgPool2d: divide_adaptive_pool,
    nn.AdaptiveMaxPool2d: divide_adaptive_pool,
    nn.LocalResponseNorm: divide_response_norm,
    nn.ConstantPad2d: divide_padding,
    nn.ConstantPad3d: divide_padding,
    nn.ZeroPad2d: divide_padding,
    nn.Dropout: divide_dropout,
    nn.Dropout2d: divide_dropout,
    DrawnDropout: divide_drawn_dropout,
    nn.Softmax: divide_over_classes,
    nn.LogSoftmax: divide_over_classes,
    Binary: divide_binary,
    Concatenation: divide_concatenation,
    Applied: divide_pointwise,
    **dict.fromkeys(POINTWISE, divide_pointwise),
}

UNARY: set[Any] = {
    *(
        getattr(functional, name)
        for name in (
            "relu", "relu6", "gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "sigmoid",
            "hardswish", "hardsigmoid", "hardtanh", "softplus", "softsign", "logsigmoid", "tanh",
            "hardshrink", "softshrink", "tanhshrink", "threshold",
        )
    ),
    torch.relu, torch.sigmoid, torch.tanh, torch.exp, torch.abs, torch.square, torch.sqrt,
    torch.clamp, torch.pow, operator.neg, operator.pow,
}  # fmt: skip

BINARY: dict[Any, Callable[..., Any]] = {
    operator.add: torch.add,
    operator.iadd: torch.add,
    operator.sub: torch.sub,
    operator.isub: torch.sub,
    operator.mul: torch.mul,
    operator.imul: torch.mul,
    operator.truediv: torch.div,
    **{name: name for name in (torch.add, torch.sub, torch.mul, torch.div)},
    **{f"{name}{end}": getattr(torch, name) for name in ("add", "sub", "mul", "div")
       for end in ("", "_")},
}  # fmt: skip

UNARY_METHODS = {
    *(f"{name}{end}" for name in ("relu", "sigmoid", "tanh", "clamp", "abs", "square", "exp",
                                  "sqrt", "neg", "pow") for end in ("", "_")),
    "contiguous",
}  # fmt: skip

UNARY_IN_PLACE: dict[Any, Callable[..., Any]] = {
    **{getattr(functional, f"{name}_"): getattr(functional, name)
       for name in ("relu", "leaky_relu", "elu", "celu", "selu", "hardtanh", "threshold")},
    **{getattr(torch, f"{name}_"): getattr(torch, name)
       for name in ("relu", "sigmoid", "tanh", "exp", "abs", "square", "sqrt", "clamp")},
}  # fmt: skip
"""Functions that change their input, and what does the same out of place."""

_DROPS = {functional.dropout, functional.dropout2d}

IN_PLACE = {
    *(operator.iadd, operator.isub, operator.imul, "add_", "sub_", "mul_", "div_"),
    *(name for name in UNARY_METHODS if name.endswith("_")),
    *UNARY_IN_PLACE,
}

RESHAPES: set[Any] = {torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape",
                      "squeeze"}  # fmt: skip

AS_LAYERS: dict[Any, Callable[..., nn.Module]] = {
    functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    functional.adaptive_max_pool2d: nn.AdaptiveMaxPool2d,
    functional.avg_pool2d: nn.AvgPool2d,
    functional.local_response_norm: nn.LocalResponseNorm,
    functional.dropout: lambda *given, **named: _dropout(0, *given, **named),
    functional.dropout2d: lambda *given, **named: _dropout(2, *given, **named),
    functional.pad: lambda *given, **named: _padding(*given, **named),
    **{name: lambda *given, **named: _over_classes(nn.Softmax, *given, **named)
       for name in (functional.softmax, torch.softmax, "softmax")},
    **{name: lambda *given, **named: _over_classes(nn.LogSoftmax, *given, **named)
       for name in (functional.log_softmax, torch.log_softmax, "log_softmax")},
}  # fmt: skip
"""Functions whose arguments behind the tensor make a layer that does the same."""


@dataclass(frozen=True)
class Entry:
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


def look_up(call: Call, shapes: dict[str, tuple[int, ...] | None]) -> Entry:
    """Find how a call is divided.

    Args:
        call: one that gives a tensor.
        shapes: of the results of all calls, and of the network's input.

    Raises:
        UnsupportedError: if it cannot be divided.
    """
    inputs = [node for node in call.tensors() if shapes.get(node.name) is not None]
    if not inputs or any(node not in inputs for node in call.tensors() if not _sized(call)):
        raise _unsupported(call)
    given = shapes[inputs[0].name]
    assert given is not None
    assert call.shape is not None
    if isinstance(call.called, nn.Flatten) or (
        not isinstance(call.called, nn.Module) and _sized(call)
    ):
        if call.shape in (given, (SAMPLES, prod(given[1:]))):
            return Entry(nn.Flatten(), None, inputs[:1])
        raise _unsupported(call)
    if isinstance(call.called, nn.Module) and _is_watched(call.called):
        raise UnsupportedError(
            f"{_where(call)} cannot be divided, since hooks change it or look at it (as "
            f"weight_norm, spectral_norm and prune of torch.nn.utils do): remove them, or {REMEDY}"
        )
    layer = call.called if isinstance(call.called, nn.Module) else _as_layer(call, inputs, given)
    division = LAYERS.get(type(layer))
    if division is None or len(call.shape) not in (2, 4) or len(given) not in (2, 4):
        raise _unsupported(call)
    if isinstance(layer, nn.Linear) and len(given) != 2:
        raise UnsupportedError(f"{_where(call)} works on {len(given)} dims: flatten before it")
    if isinstance(layer, nn.AdaptiveAvgPool2d) and call.shape[2:] == (1, 1):
        division = divide_mean
    # Of functions, `inplace` is the last argument.
    last = call.arguments[-1] if not _is(call, _DROPS) or len(call.arguments) == 4 else False
    asked = call.named.get("inplace") or (_is(call, UNARY | _DROPS) and last is True)
    in_place = bool(getattr(layer, "inplace", False) or asked) or _is(call, IN_PLACE)
    return Entry(layer, division, inputs, in_place)


def _sized(call: Call) -> bool:
    """Whether a call may have sizes of tensors among its arguments."""
    return _is(call, RESHAPES)


def _as_layer(call: Call, inputs: list[fx.Node], given: tuple[int, ...]) -> nn.Module:
    """The layer that does what a function does."""
    arguments, named = call.arguments, call.named
    if _is(call, {torch.cat, torch.concat}):
        dim = named.get("dim", arguments[1] if len(arguments) > 1 else 0)
        if dim in (1, 1 - len(given)):
            return Concatenation()
    elif _is(call, {torch.mean, "mean"}):
        if _is_mean_of_maps(call, given):
            return nn.AdaptiveAvgPool2d(1)
    elif _is(call, {functional.max_pool2d}):
        return _max_pool(*arguments[1:], **named)
    elif _is(call, set(AS_LAYERS)) and len(inputs) == 1:
        return AS_LAYERS[call.called](*arguments[1:], **named)
    elif _is(call, set(BINARY)):
        function = BINARY[call.called]
        if len(inputs) == 2 and len(arguments) == 2:
            return Binary(function, named)
        if len(inputs) == 1:
            place = next(n for n, value in enumerate(arguments) if value is inputs[0])
            return Applied(function, [a for a in arguments if a is not inputs[0]], named, place)
    elif _is(call, UNARY | set(UNARY_IN_PLACE)) and len(inputs) == 1 and arguments:
        named = {name: value for name, value in named.items() if name != "inplace"}
        return Applied(UNARY_IN_PLACE.get(call.called, call.called), arguments[1:], named)
    elif _is(call, UNARY_METHODS) and len(inputs) == 1:
        if call.called == "contiguous":
            return nn.Identity()
        function = getattr(torch, call.called.removesuffix("_"))
        return Applied(function, arguments[1:], named)
    raise _unsupported(call)


def _max_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    """`functional.max_pool2d`'s arguments, whose order is not that of the layer's."""
    return nn.MaxPool2d(
        kernel_size, stride, padding, dilation, return_indices=return_indices, ceil_mode=ceil_mode
    )


def _dropout(dims: int, p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    """A dropout with the arguments of `functional.dropout`."""
    del inplace  # looked at by `look_up`
    return DrawnDropout(p, dims) if training and p else nn.Identity()


def _over_classes(
    layer: type[nn.Softmax] | type[nn.LogSoftmax],
    dim: int | None = None,
    *others: Any,
    dtype: Any = None,
    **named: Any,
) -> nn.Module:
    if dtype is not None or any(other is not None and other != 3 for other in others):
        raise UnsupportedError("dtype= cannot be divided: leave it out")
    del named
    return layer(dim)


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


def _is(call: Call, known: set[Any]) -> bool:
    if isinstance(call.called, nn.Module):
        return False
    try:
        return call.called in known
    except TypeError:  # not hashable
        return False


def _is_watched(module: nn.Module) -> bool:
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    return any(getattr(module, f"_{kind}_hooks", None) for kind in kinds)


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
