"""Which layer of a network is running: told by hooks on its modules, and the names of layers.

A layer is a module without parts, or one of torch's own. A function that a module of several
layers calls itself is a layer of its own, named after the module and the function. A layer that
is called again gets a number: `conv`, `conv#2`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from sixfold.models.graph.operations import operation_of


class Listener(Protocol):
    """Who wants to know of layers."""

    def opened(self, name: str, kind: str) -> None:
        """A layer has begun."""
        ...

    def made(self, output: Any) -> None:
        """A module has given its output, whether it is a layer or within one."""
        ...

    def closed(self, module: nn.Module | None) -> None:
        """The layer has ended; `module` is the one that it was, if it was one."""
        ...


class Scopes:
    """The chain of modules that are running; `listener` hears of outermost layers."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._paths: list[str] = [""]
        self._names: dict[str, int] = {}
        self._depth = 0

    def enter(self, path: str, kind: str) -> None:
        """A layer begins."""
        self._depth += 1
        if self._depth == 1:
            self._listener.opened(self.unique(path), kind)

    def leave(self, module: nn.Module | None, output: Any = None) -> None:
        """The layer that began last ends with this output."""
        self._listener.made(output)
        self._depth -= 1
        if self._depth == 0:
            self._listener.closed(module)

    @contextmanager
    def layer(self, path: str, kind: str) -> Iterator[None]:
        """A stretch that is no module, as a layer."""
        self.enter(path, kind)
        try:
            yield
        finally:
            self.leave(None)

    def enter_module(self, path: str) -> None:
        """A module of several layers begins; functions outside of these are named after it."""
        self._paths.append(path)

    def leave_module(self) -> None:
        """It ends."""
        self._paths.pop()

    @property
    def in_layer(self) -> bool:
        """Whether a layer is running."""
        return self._depth > 0

    def outside(self, function: str) -> str:
        """The name of a function that is called outside of any layer."""
        return self.unique(self._below(function))

    def peek(self, function: str) -> str:
        """What `outside` would say if it were asked now."""
        name = self._below(function)
        number = self._names.get(name, 0) + 1
        return name if number == 1 else f"{name}#{number}"

    def _below(self, function: str) -> str:
        return ".".join(part for part in (self._paths[-1], function) if part)

    def unique(self, name: str) -> str:
        """A name that no layer of this pass has had."""
        self._names[name] = number = self._names.get(name, 0) + 1
        return name if number == 1 else f"{name}#{number}"


@contextmanager
def followed(network: nn.Module, current: Callable[[], Scopes | None]) -> Iterator[None]:
    """While open, the current scopes are told which module of the network is running."""
    handles = []
    for path, module in network.named_modules():
        is_layer = is_leaf(module) and module is not network

        def enter(
            module: nn.Module, inputs: Any, path: str = path, is_layer: bool = is_layer
        ) -> None:
            del inputs
            if (scopes := current()) is None:
                return
            if is_layer:
                scopes.enter(path, type(module).__name__)
            else:
                scopes.enter_module(path)

        def leave(module: nn.Module, inputs: Any, output: Any, is_layer: bool = is_layer) -> None:
            del inputs
            if (scopes := current()) is None:
                return
            if is_layer:
                scopes.leave(module, output)
            else:
                scopes.leave_module()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is looked at as one layer: one without parts, one of torch's, or known.

    >>> is_leaf(nn.Sequential(nn.ReLU())), is_leaf(nn.Conv2d(1, 1, 1))
    (False, True)
    """
    if operation_of(module) is not None or not any(True for _ in module.children()):
        return True
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    own = type(module).__module__
    return own.startswith("torch.nn") and not isinstance(module, containers)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Tensors in nested lists, tuples and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
