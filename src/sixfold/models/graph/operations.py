"""The operations that Sixfold knows: one row each, whatever it is called and whoever asks.

A row holds plain facts of an operation: the modules, functions and methods that compute it, what
it does to elements, channels and samples, and what it costs. What belongs to a package further up
is registered under the row there: the explicit backward pass in `sixfold.training.layers.executor`
(`EXPLICIT`), the rule of division in `sixfold.training.strategies.model_parallel.catalog`
(`DIVISIONS`). The rows of torch's operations are in `sixfold.models.graph.table`; a new one is
added from anywhere by `register_operation`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Flops = tuple[int, int]
"""Operations forward and backward; of a product, backward for each gradient that is wanted."""

CountFlops = Callable[[dict[str, Any], Sequence[Tensor], Tensor], Flops]
"""(arguments by place ("0", "1", ...) and by name, input tensors, output) -> operations."""

PRODUCT, MOVE, RESHAPE, PASS = "product", "move", "reshape", "pass"
"""What is special about an operation's traffic: a sum of products, whose backward pass reads the
weights again; moves numbers; gives them another shape, by a copy at most; hands the output's
gradient on to its inputs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operation. What is not said of it is taken to be unknown."""

    name: str
    modules: tuple[type[nn.Module], ...] = ()
    """Exactly these classes, not those derived from them: they may do anything."""
    calls: tuple[Any, ...] = ()
    """Functions, and names of tensors' methods; the first function is the form to compute with."""
    in_place: tuple[Any, ...] = ()  # Forms that overwrite their first input
    arguments: tuple[str, ...] = ()
    """Of the function, behind the tensor, by place; the module is made with the same names."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Where the function's differ from the module's."""
    pointwise: bool = False
    """Each element of the output follows from the one at the same place of the only input."""
    binary: bool = False  # The same of two inputs
    reshapes: bool = False  # The same numbers in the same order of each sample, in another shape
    keeps_channels: bool = False
    """Each channel is treated by itself and all of them alike, whatever pointwise is said to be."""
    per_sample: bool | Callable[[Any], bool] = False
    """Each sample is treated by itself; may depend on the module's settings."""
    kernel: str = ""  # Kind of its weight tensor where that may be pruned: "conv" or "fc"
    flops: Flops | CountFlops | None = None
    """Operations of a call; a pair counts for each element of the output."""
    traffic: str = ""  # One of the above
    saved_bytes: Callable[[Any], int | None] = lambda _: None
    """Bytes for each element of the output that a module writes forward for its backward pass alone
    and reads there; None: it keeps what the functions that it calls keep."""

    @property
    def function(self) -> Callable[..., Any] | None:
        """What computes it out of place."""
        return next((call for call in self.calls if not isinstance(call, str)), None)

    @property
    def leaves_channels_apart(self) -> bool:
        """Whether it may stand between two layers without mixing their channels."""
        return self.keeps_channels or self.pointwise

    def leaves_samples_apart(self, module: nn.Module) -> bool:
        """Whether a module of this row treats each sample by itself."""
        known = self.per_sample
        return self.pointwise or (known if isinstance(known, bool) else known(module))

    def module(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> nn.Module:
        """The module that does what a call of the function does, given what follows the tensor."""
        given = dict(zip(self.arguments, arguments, strict=False))
        return self.modules[0](**{**self.defaults, **given, **named})


_BY_FORM: dict[Any, Operation] = {}
"""Module class, function, or method's name -> row. Filled while modules are imported."""
_BY_NAME: dict[str, Operation] = {}


def register_operation(operation: Operation, *, names: Sequence[str] = ()) -> Operation:
    """Make an operation known, and further names of functions that cost as much.

    Call it where the module's class is defined, so that every rank that has the class knows it.

    >>> class Swish(nn.Module):
    ...     def forward(self, x: Tensor) -> Tensor:
    ...         return x * x.sigmoid()
    >>> row = register_operation(
    ...     Operation(name="swish", modules=(Swish,), pointwise=True, flops=(2, 5))
    ... )
    >>> operation_of(Swish()) is row
    True
    """
    forms = (*operation.modules, *operation.calls, *operation.in_place)
    taken = [form for form in forms if form in _BY_FORM]
    if taken:
        raise ValueError(
            f"operation {operation.name!r}: {plain_name(taken[0])} belongs to "
            f"{_BY_FORM[taken[0]].name!r} already"
        )
    _BY_FORM.update(dict.fromkeys(forms, operation))
    for name in (operation.name, *map(plain_name, (*operation.calls, *operation.in_place)), *names):
        _BY_NAME.setdefault(name, operation)
    return operation


def operation_of(called: Any) -> Operation | None:
    """The row of a module, a function or a method's name; None if it is not known."""
    try:
        return _BY_FORM.get(type(called) if isinstance(called, nn.Module) else called)
    except TypeError:  # not hashable
        return None


def operation_named(name: str) -> Operation | None:
    """The row of a function, by the name that `plain_name` gives it."""
    return _BY_NAME.get(name)


def operations() -> list[Operation]:
    """All rows, in the order of their registration."""
    return list(dict.fromkeys(_BY_NAME.values()))


def kernel_types(*kinds: str) -> tuple[type[nn.Module], ...]:
    """Classes of modules whose weights are of these kinds."""
    return tuple(t for row in operations() if row.kernel in kinds for t in row.modules)


def plain_name(function: Any) -> str:
    """A function's name without underscores: `add_`, `__iadd__` and `add` are one."""
    name = str(getattr(function, "__name__", function))
    special = name.startswith("__") and name.endswith("__")
    name = name.strip("_")
    if special and name[:1] in ("i", "r") and name[1:] in _SPECIAL:
        return name[1:]
    return name


_SPECIAL = {"add", "sub", "mul", "div", "truediv", "matmul", "pow"}
"""Operators of Python of which there is a form in place (`__iadd__`) or reflected (`__radd__`)."""
