"""A hash of a Python object by its content: code, constants, closures, state.

Pickles of one object differ from process to process, so they cannot say whether a class of a
notebook is the one that an earlier kernel had. This hash can: it leaves out where the code stood
(file, line numbers, comments) and takes in its instructions and constants, the globals and closures
that it uses, class attributes, and the values of tensors and arrays.
"""

import dis
import enum
import functools
import hashlib
import struct
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

from sixfold.core.installed import is_installed

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range, slice)

_SKIPPED = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__slotnames__", "__abstractmethods__"),
    *("_abc_impl", "__firstlineno__", "__static_attributes__", "__annotate__", "__annotate_func__"),
    "__annotations_cache__",
}
"""Attributes of a class that say nothing of what it does, or are not the same in every process."""


class Identity:
    """The hash of an object, and what it refers to by name.

    Attributes:
        digest: SHA-256, hexadecimal.
        modules: the user's own modules whose code is used but lies in files: their content is not
            in the hash.
    """

    def __init__(self, thing: Any) -> None:
        self.modules: set[str] = set()
        self._hash = hashlib.sha256()
        # Also keeps objects alive, so that no number is used twice.
        self._seen: dict[int, tuple[int, Any]] = {}
        self._is_own = functools.cache(_is_own)
        self._feed(thing)
        self.digest = self._hash.hexdigest()

    def _say(self, kind: str, text: str | bytes = b"") -> None:
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        self._hash.update(f"{kind}:{len(data)}:".encode())
        self._hash.update(data)

    def _feed(self, thing: Any) -> None:
        if isinstance(thing, _PLAIN):
            value = struct.pack("<d", thing) if type(thing) is float else repr(thing)
            return self._say(type(thing).__name__, value)
        if isinstance(thing, (tuple, frozenset, set)):
            return self._collection(thing)
        if isinstance(thing, types.CodeType):
            return self._code(thing)
        if id(thing) in self._seen:
            return self._say("again", str(self._seen[id(thing)][0]))
        self._seen[id(thing)] = (len(self._seen), thing)
        if isinstance(thing, torch.Tensor):
            return self._tensor(thing)
        if isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
            self._say("array", f"{thing.dtype.str} {thing.shape}")
            return self._say("", np.ascontiguousarray(thing).tobytes())
        if isinstance(thing, (list, dict, types.MappingProxyType)):
            return self._collection(thing)
        return self._object(thing)

    def _collection(self, thing: Any) -> None:
        self._say(type(thing).__name__, str(len(thing)))
        if isinstance(thing, Mapping):
            for key, value in thing.items():
                self._feed(key)
                self._feed(value)
        elif isinstance(thing, (set, frozenset)):
            for digest in sorted(Identity(each).digest for each in thing):
                self._say("element", digest)
        else:
            for each in thing:
                self._feed(each)

    def _tensor(self, thing: torch.Tensor) -> None:
        self._say("tensor", f"{thing.dtype} {tuple(thing.shape)} {thing.requires_grad}")
        if nn.parameter.is_lazy(thing) or thing.is_meta:
            return
        plain = thing.detach().cpu().contiguous()
        self._say("", plain.flatten().view(torch.uint8).numpy().tobytes())

    def _object(self, thing: Any) -> None:
        if isinstance(thing, types.ModuleType):
            self._refer(thing.__name__)
            self._say("module", thing.__name__)
        elif isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, types.FunctionType):
            self._function(thing)
        elif isinstance(thing, (staticmethod, classmethod)):
            self._parts(type(thing).__name__, thing.__func__)
        elif isinstance(thing, property):
            self._parts("property", thing.fget, thing.fset, thing.fdel)
        elif isinstance(thing, types.MethodType):
            self._parts("method", thing.__func__, thing.__self__)
        elif isinstance(thing, functools.partial):
            self._parts("partial", thing.func, thing.args, thing.keywords)
        elif isinstance(thing, functools.cached_property):
            self._parts("cached_property", thing.func, thing.attrname)
        elif isinstance(thing, enum.Enum):
            self._parts("enum", type(thing), thing.name)
        elif isinstance(thing, PurePath):
            self._say("path", str(thing))
        elif callable(thing) and hasattr(thing, "__wrapped__"):
            self._parts("wrapper", thing.__wrapped__)
        else:
            self._instance(thing)

    def _parts(self, kind: str, *parts: Any) -> None:
        self._say(kind)
        for part in parts:
            self._feed(part)

    def _class(self, thing: type) -> None:
        name = f"{thing.__module__}:{thing.__qualname__}"
        self._say("class", name)
        if is_importable(thing):
            return self._refer(thing.__module__)
        self._parts("bases", *thing.__bases__)
        for key, value in vars(thing).items():
            if key not in _SKIPPED:
                self._say("attribute", key)
                self._feed(value)

    def _function(self, thing: types.FunctionType) -> None:
        if is_importable(thing):
            self._say("function", f"{thing.__module__}:{thing.__qualname__}")
            return self._refer(thing.__module__)
        self._parts("function", thing.__code__, thing.__defaults__, thing.__kwdefaults__)
        for name in sorted(set(_globals(thing.__code__))):
            if name in thing.__globals__:
                self._say("global", name)
                self._feed(thing.__globals__[name])
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            self._say("closure", name)
            try:
                self._feed(cell.cell_contents)
            except ValueError:  # not filled yet
                self._say("empty")

    def _code(self, code: types.CodeType) -> None:
        self._say("code", code.co_name)
        self._say("", code.co_code)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        for part in (counts, *names, code.co_consts):
            self._feed(part)

    def _instance(self, thing: Any) -> None:
        if isinstance(thing, nn.Module):
            # Whether it was last used for training or evaluation says nothing of what it is.
            state = {name: value for name, value in vars(thing).items() if name != "training"}
            return self._parts("network", type(thing), state)
        try:
            reduced = thing.__reduce_ex__(4)
        except Exception:  # what cannot be pickled is refused where it is packed
            return self._parts("object", type(thing))
        if isinstance(reduced, str):
            self._refer(str(getattr(thing, "__module__", "")))
            return self._say("named", reduced)
        self._say("instance")
        for part in reduced:
            self._feed(list(part) if isinstance(part, Iterator) else part)

    def _refer(self, module: str) -> None:
        if self._is_own(module):
            self.modules.add(module)


def is_importable(thing: Any) -> bool:
    """Whether a class or function is found by its name in its module, which is no `__main__`."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    found: Any = sys.modules.get(module or "")
    if found is None or module == "__main__" or not isinstance(name, str) or "<" in name:
        return False
    for step in name.split("."):
        found = getattr(found, step, None)
    return found is thing


def _is_own(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return module != "__main__" and file is not None and not is_installed(Path(file))


def _globals(code: types.CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant)
