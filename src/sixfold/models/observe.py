"""What a network holds besides weights and buffers, as values that can be compared.

A forward may keep state anywhere: in attributes of modules, in plain objects, lists and
generators that these hold, in class attributes, in globals and closures of its own functions. All
that can be reached is walked, and every leaf becomes an entry: its place in words, and a value
that is equal exactly where the leaf is. What only a library holds inside itself is not seen.
"""

from __future__ import annotations

import functools
import io
import random
import sys
import types
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sixfold.core.installed import is_installed

MOST = 200_000
"""Objects that are looked at; a network that reaches more keeps a data set, not a state."""

Observed = dict[str, Any]  # Comparable values by the place where they are held
_KEPT_BY_TORCH = ("_parameters", "_buffers", "_modules", "training")
_LEAVES = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, range)
_NOT_STATE = ("torch.", "logging", "threading", "_thread", "weakref", "_weakref", "sixfold.")
"""Homes of types whose objects are let alone: caches, locks, and what trains the network."""


def observe(network: nn.Module) -> Observed:
    """All that a network's forward could have changed, without the registered tensors."""
    return _walked(network).found


def held_memory(network: nn.Module) -> list[tuple[str, Tensor | np.ndarray[Any, Any]]]:
    """Tensors and arrays that a network holds without having registered them, by their place."""
    return _walked(network).memory


def rewinder(network: nn.Module) -> Callable[[], None]:
    """What, when it is called, lets all that lies outside of the network be as it is now.

    Whoever builds a network anew then builds it as in a fresh process: caches of functions,
    globals, class attributes and the contents of containers are put back, tensors are not.
    """
    walk = _walked(network)

    def rewind() -> None:
        for undo in walk.undo:
            undo()

    return rewind


@dataclass(frozen=True)
class Reached:
    """The user's own code that a network reaches."""

    functions: list[types.FunctionType]
    classes: list[type]


def reach(network: nn.Module) -> Reached:
    """The functions and classes of the user's that a network reaches."""
    seen = list(_walked(network)._seen.values())
    own = functools.cache(is_own)
    return Reached(
        [f for f in seen if isinstance(f, types.FunctionType) and own(str(f.__module__))],
        [kind for kind in seen if isinstance(kind, type) and own(kind.__module__)],
    )


def changed(before: Observed, after: Observed) -> str | None:
    """The first place that two observations do not share; None if they are equal."""
    for place in (*after, *before):
        if before.get(place, _ABSENT) != after.get(place, _ABSENT):
            return place.removesuffix(_LENGTH)
    return None


_FILLED: dict[type, Callable[[Any, Any], None]] = {
    **dict.fromkeys((dict, defaultdict), dict.update),
    OrderedDict: OrderedDict.update,
    set: set.update,
    list: list.extend,
    deque: deque.extend,
}
"""Containers whose content can be put back, and how."""

_ABSENT = object()
_LENGTH = " (length)"


def is_own(module: str) -> bool:
    """Whether a module is the user's, rather than installed, Python's or Sixfold's."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module == "__main__"
    return not is_installed(Path(file))


def _walked(network: nn.Module) -> _Walk:
    walk = _Walk({id(t) for t in (*network.parameters(), *network.buffers())})
    walk.visit(network, "")
    return walk


class _Walk:
    def __init__(self, registered: set[int]) -> None:
        self.found: Observed = {}
        self.undo: list[Callable[[], None]] = []
        self.memory: list[tuple[str, Any]] = []  # tensors and arrays
        self._registered = registered
        self._is_own = functools.cache(is_own)
        self._seen: dict[int, Any] = {}  # also keeps objects alive, so that no id is used twice

    def visit(self, thing: Any, place: str) -> None:
        if thing is None or isinstance(thing, _LEAVES):
            self.found[place] = (type(thing).__name__, repr(thing))
            return
        if id(thing) in self._seen or len(self._seen) > MOST or id(thing) in self._registered:
            return
        self._seen[id(thing)] = thing
        for kinds, enter in _KINDS:
            if isinstance(thing, kinds):
                enter(self, thing, place)
                return
        if hasattr(type(thing), "__next__"):
            self._iterator(thing, place)
        if not type(thing).__module__.startswith(_NOT_STATE):
            self._object(thing, place)

    def _module(self, module: nn.Module, place: str) -> None:
        """A network: its layers' attributes; tensors only where the network has not registered."""
        for name, value in list(vars(module).items()):
            if name not in _KEPT_BY_TORCH:
                self.visit(value, _attribute(place, name))
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None:
                    self.visit(tensor, _attribute(place, name))
                    hooks = getattr(tensor, "_backward_hooks", None)
                    self.visit(hooks, f"{_attribute(place, name)}, its hooks")
        for name, child in module._modules.items():
            if child is not None:
                self.visit(child, _attribute(place, name))
        self._class(type(module))

    def _object(self, thing: Any, place: str) -> None:
        slots = [s for kind in type(thing).__mro__ for s in _names(vars(kind).get("__slots__"))]
        try:
            held = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
            if hasattr(thing, "__dict__"):
                held |= vars(thing)
                self._keep(vars(thing))
        except Exception:  # what answers to every name in its own way holds nothing for us
            return
        for name, value in held.items():
            self.visit(value, _attribute(place, name))
        self._class(type(thing))

    def _class(self, kind: type) -> None:
        for each in kind.__mro__:
            if id(each) in self._seen or not self._is_own(each.__module__):
                continue
            self._seen[id(each)] = each
            self.undo.append(functools.partial(_put_back, each, dict(vars(each))))
            for name, value in list(vars(each).items()):
                if not (name.startswith("__") and name.endswith("__")) or callable(value):
                    self.visit(value, f"{each.__name__}.{name}")

    def _function(self, function: types.FunctionType, place: str) -> None:
        """What a function of the user's remembers, and the globals that it names."""
        for name, value in vars(function).items():
            self.visit(value, f"{function.__qualname__}.{name}")
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=True):
            try:
                self.visit(cell.cell_contents, f"{name} (of {function.__qualname__})")
            except ValueError:  # not bound yet
                continue
        for value in (function.__defaults__ or (), function.__kwdefaults__ or {}):
            self.visit(value, f"{place} (default)")
        home = function.__globals__
        if self._is_own(str(home.get("__name__"))):
            named = set(_names_in(function.__code__))
            before = {name: home[name] for name in named & home.keys()}
            self.undo.append(functools.partial(_put_back_named, home, named, before))
            for name in sorted(named & home.keys()):
                self._global(home[name], f"{home['__name__']}.{name}", named)

    def _global(self, value: Any, place: str, named: set[str]) -> None:
        if not isinstance(value, types.ModuleType):
            self.visit(value, place)
        elif self._is_own(value.__name__):
            for name in sorted(named & vars(value).keys()):
                self._global(vars(value)[name], f"{value.__name__}.{name}", set())

    def _mapping(self, mapping: dict[Any, Any], place: str) -> None:
        self.found[f"{place}{_LENGTH}"] = len(mapping)
        self._keep(mapping)
        for number, (key, value) in enumerate(list(mapping.items())):
            name = repr(key) if isinstance(key, _LEAVES) else f"entry {number}"
            self.visit(value, f"{place}[{name}]")
        self._object(mapping, place)

    def _sequence(self, sequence: Any, place: str) -> None:
        self.found[f"{place}{_LENGTH}"] = len(sequence)
        self._keep(sequence)
        for number, value in enumerate(list(sequence)):
            self.visit(value, f"{place}[{number}]")
        self._object(sequence, place)

    def _set(self, items: Any, place: str) -> None:
        self._keep(items)
        self.found[place] = sorted(repr(item) for item in items if isinstance(item, _LEAVES))

    def _tensor(self, tensor: Tensor, place: str) -> None:
        content = None
        if not tensor.is_meta and tensor.layout == torch.strided:
            self.memory.append((place, tensor))
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            content = _digest(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        self.found[place] = (str(tensor.dtype), tuple(tensor.shape), content)

    def _array(self, array: Any, place: str) -> None:
        if array.dtype == object:
            self._sequence(array.reshape(-1).tolist(), place)
        else:
            self.memory.append((place, array))
            self.found[place] = (str(array.dtype), array.shape, _digest(array.tobytes()))

    def _generator(self, generator: types.GeneratorType[Any, Any, Any], place: str) -> None:
        frame = generator.gi_frame
        self.found[place] = None if frame is None else frame.f_lasti
        for name, value in ({} if frame is None else frame.f_locals).items():
            self.visit(value, f"{place}, its {name}")

    def _iterator(self, iterator: Any, place: str) -> None:
        """Where an iterator stands, for those of Python that can be copied."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parts = iterator.__reduce__()
        except Exception:
            return
        if isinstance(parts, tuple):
            for number, part in enumerate(parts[1:]):
                self.visit(part, f"{place}, part {number}" if number else place)

    def _unwrapped(self, thing: Any, place: str) -> None:
        for name in ("__self__", "__func__", "__wrapped__", "func", "args", "keywords", "fget"):
            if getattr(thing, name, None) is not None:
                self.visit(getattr(thing, name), place)

    def _cached(self, function: Any, place: str) -> None:
        """A function of `functools.lru_cache`: how much it has kept."""
        size = function.cache_info().currsize
        self.found[f"{place}{_LENGTH}"] = size

        def forget() -> None:
            if function.cache_info().currsize != size:
                function.cache_clear()

        self.undo.append(forget)
        self._unwrapped(function, place)

    def _keep(self, container: Any) -> None:
        """Remember what a container holds, for `rewinder`."""
        fill = _FILLED.get(type(container))
        if fill is None:
            return
        held = container.copy()

        def put_back() -> None:
            container.clear()
            fill(container, held)

        self.undo.append(put_back)

    def _state(self, thing: Any, place: str) -> None:
        if isinstance(thing, random.Random):
            state: Any = thing.getstate()
        elif isinstance(thing, torch.Generator):
            state = thing.get_state().tolist()
        else:
            state = getattr(thing, "bit_generator", None) or thing._bit_generator
            state = state.state
        self.found[place] = _digest(repr(state).encode())

    def _file(self, file: io.IOBase, place: str) -> None:
        if not file.closed and file.seekable():
            self.found[place] = file.tell()

    def _ignore(self, thing: Any, place: str) -> None:  # noqa: ARG002 - as the others
        """Modules of Python, and classes, which are looked at where they have objects."""
        if isinstance(thing, type):
            self._class(thing)


_KINDS: tuple[tuple[Any, Callable[[_Walk, Any, str], None]], ...] = (
    (Tensor, _Walk._tensor),
    (nn.Module, _Walk._module),
    ((types.ModuleType, type), _Walk._ignore),
    (types.FunctionType, _Walk._function),
    ((types.MethodType, staticmethod, classmethod, functools.partial, property), _Walk._unwrapped),
    (types.BuiltinFunctionType, _Walk._unwrapped),
    (functools._lru_cache_wrapper, _Walk._cached),
    (dict, _Walk._mapping),
    ((set, frozenset), _Walk._set),
    ((list, tuple, deque), _Walk._sequence),
    (np.ndarray, _Walk._array),
    ((random.Random, torch.Generator, np.random.Generator, np.random.RandomState), _Walk._state),
    (types.GeneratorType, _Walk._generator),
    (io.IOBase, _Walk._file),
)
"""How objects of each kind are entered; the first that fits counts."""


def _put_back(kind: type, before: dict[str, Any]) -> None:
    for name, value in list(vars(kind).items()):
        if name not in before:
            delattr(kind, name)
        elif value is not before[name]:
            setattr(kind, name, before[name])


def _put_back_named(home: dict[str, Any], names: set[str], before: dict[str, Any]) -> None:
    for name in names & home.keys() - before.keys():
        del home[name]
    home.update(before)


def _attribute(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _names(slots: Any) -> list[str]:
    named = [slots] if isinstance(slots, str) else list(slots or ())
    return [name for name in named if not name.startswith("__")]


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
