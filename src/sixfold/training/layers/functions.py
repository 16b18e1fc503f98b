"""Calls of functions as the layers that do the same, so that each operation has one link.

A function that has no such layer becomes an `Applied`: a module that makes the same call. What is
no tensor, such as `x.size(0)`, is *plain*: it is asked for again at every pass.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg
from torch.nn import functional

from sixfold.models.graph.operations import operation_of
from sixfold.models.graph.table import MEAN, VIEW
from sixfold.models.graph.trace import Call
from sixfold.training.layers.explicit import EXPLICIT, Reshape

_PLAIN_METHODS = {"size", "dim", "numel", "ndimension"}
_PLAIN_ATTRIBUTES = {"shape", "ndim", "dtype", "device"}
_PLAIN_FUNCTIONS = {
    operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv,
    operator.truediv, operator.mod, operator.neg, int, float, max, min, getattr,
}  # fmt: skip

_ARITHMETIC = {
    "add", "sub", "mul", "truediv", "div", "neg", "pow", "matmul", "mm", "bmm", "exp", "sqrt",
    "sum", "mean", "sigmoid", "tanh", "conv2d", "linear", "batch_norm", "layer_norm", "group_norm",
}  # fmt: skip


class Applied(nn.Module):
    """A call of a function, a method, or a module with several arguments.

    `owner` has the parameters and buffers that the call may take by name; `inputs` are the results
    of other calls that `forward` is given, in order.
    """

    def __init__(self, call: Call, owner: nn.Module, inputs: Sequence[fx.Node]) -> None:
        super().__init__()
        self._called = call.called
        places = {node: place for place, node in enumerate(inputs)}

        def slot(node: fx.Node) -> Any:
            if node in places:
                return _Slot(places[node])
            path, _, name = str(node.target).rpartition(".")
            holder = owner.get_submodule(path)
            value = getattr(holder, name)
            if isinstance(value, nn.Parameter):
                self.register_parameter(f"weight{len(self._parameters)}", value)
            if name.startswith("_tensor_constant"):  # made by torch.fx, and taken away again
                return _Constant(value)
            return _Named(holder, name)

        self._template = map_arg((call.arguments, call.named), slot)

    def forward(self, *values: Any) -> Any:
        """Make the call."""

        def fill(part: Any) -> Any:
            if isinstance(part, _Slot):
                return values[part.place]
            if isinstance(part, _Constant):
                return part.value
            return getattr(part.holder, part.name) if isinstance(part, _Named) else part

        arguments, named = map_aggregate(self._template, fill)
        if isinstance(self._called, str):
            return getattr(arguments[0], self._called)(*arguments[1:], **named)
        return self._called(*arguments, **named)


class Picked(nn.Module):
    """One of the results of a call, at some place."""

    def __init__(self, call: nn.Module, place: int) -> None:
        super().__init__()
        self.call, self.place = call, place

    def forward(self, *values: Any) -> Any:
        """Make the call."""
        return self.call(*values)[self.place]


class _Slot:
    """Where a value of the pass goes."""

    def __init__(self, place: int) -> None:
        self.place = place


class _Named:
    """Where a parameter, a buffer or a constant is; looked up in every pass."""

    def __init__(self, holder: nn.Module, name: str) -> None:
        self.holder, self.name = holder, name


class _Constant:
    """A tensor that the forward has made of constants alone."""

    def __init__(self, value: Any) -> None:
        self.value = value


def is_plain(call: Call, plain: set[fx.Node]) -> bool:
    """Whether a call gives no tensor, but a size or what is computed from sizes."""
    if isinstance(call.called, nn.Module):
        return False
    if _in(call.called, _PLAIN_METHODS):
        return True
    if call.called is getattr:
        return call.arguments[1] in _PLAIN_ATTRIBUTES or call.arguments[0] in plain
    inputs = call.tensors()
    return bool(inputs) and _in(call.called, _PLAIN_FUNCTIONS) and plain.issuperset(inputs)


def works_in_place(call: Call) -> bool:
    """Whether a call may change its first input."""
    if isinstance(call.called, nn.Module):
        return any(getattr(module, "inplace", False) for module in call.called.modules())
    name = str(getattr(call.called, "__name__", call.called))
    ends_so = name.endswith("_") and not name.endswith("__")
    takes_place = call.called is functional.dropout and len(call.arguments) > 3
    return (
        ends_so
        or takes_place
        or bool(call.named.get("inplace"))
        or (call.called in (functional.relu, functional.relu6) and True in call.arguments[1:])
        or "out" in call.named
        or name in ("setitem", "iadd", "isub", "imul", "itruediv")
    )


def out_of_place(call: Call) -> Call:
    """The same call with a result in memory of its own, where there is such a form."""
    if "inplace" in call.named:
        return replace(call, named=call.named | {"inplace": False})
    if isinstance(call.called, str) and call.called.endswith("_"):
        name = call.called.removesuffix("_")
        return replace(call, called=name) if hasattr(Tensor, name) else call
    return call


def makes_anew(call: Call) -> bool:
    """Whether the result of arithmetic lies in memory of its own, like that of `a * b`."""
    name = str(getattr(call.called, "__name__", call.called))
    return not isinstance(call.called, nn.Module) and name in _ARITHMETIC


def as_layers(call: Call, owner: nn.Module, plain: set[fx.Node]) -> list[nn.Module]:
    """The layers that do what a call of one tensor does; `plain` results are no tensors."""
    called = call.called
    if isinstance(called, nn.Module) and len(call.arguments) == 1 and not call.named:
        return [called]
    row, rest = operation_of(called), call.arguments[1:]
    constant = len(call.tensors()) == 1
    if constant and called == "contiguous":
        return []
    if row is VIEW and (shape := _shape(rest, plain)) is not None:
        return [nn.Flatten()] if shape == "flat" else [Reshape(shape)]
    if constant and row is MEAN and _is_mean_of_maps(call):
        return [nn.AdaptiveAvgPool2d(1), *([] if call.named.get("keepdim") else [nn.Flatten()])]
    if constant and row in EXPLICIT and row.modules:
        return [row.module(rest, call.named)]
    return [Applied(call, owner, call_inputs(call))]


def call_inputs(call: Call) -> list[fx.Node]:
    """The results of other calls that a call takes, each once; parameters are none."""
    return list(dict.fromkeys(node for node in call.tensors() if node.op != "get_attr"))


def _shape(rest: Sequence[Any], plain: set[fx.Node]) -> Any:
    sizes = rest[0] if len(rest) == 1 and isinstance(rest[0], (list, tuple)) else rest
    if all(isinstance(size, int) for size in sizes) and sizes:
        return tuple(sizes)
    if len(sizes) == 2 and sizes[1] == -1 and isinstance(sizes[0], fx.Node):
        return "flat" if sizes[0] in plain and _is_samples(sizes[0]) else None
    return None


def _is_samples(node: fx.Node) -> bool:
    """Whether a plain value is the number of samples: `x.size(0)` or `x.shape[0]`."""
    if node.target == "size":
        return tuple(node.args[1:]) == (0,)
    if node.target is not operator.getitem or node.args[1] != 0:
        return False
    sizes = node.args[0]
    if not isinstance(sizes, fx.Node):
        return False
    return (sizes.target is getattr and sizes.args[1] == "shape") or (
        sizes.target == "size" and len(sizes.args) == 1
    )


def _is_mean_of_maps(call: Call) -> bool:
    dims = call.named.get("dim", call.arguments[1] if len(call.arguments) == 2 else None)
    named = set(call.named) <= {"dim", "keepdim"}
    return named and isinstance(dims, (list, tuple)) and sorted(dims) == [2, 3]


def _in(called: Any, known: set[Any]) -> bool:
    try:
        return called in known
    except TypeError:  # not hashable
        return False
