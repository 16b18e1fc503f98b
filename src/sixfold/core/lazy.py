"""Names of a package that are imported when they are first used."""

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


def lazy(package: str, exports: Mapping[str, Collection[str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package: module of the package -> its public names.

    No module may have a name that it exports: Python would put the module in its place.
    """
    homes = {name: module for module, names in exports.items() for name in names}

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return __getattr__


def lazily(name: str) -> Callable[..., Any]:
    """``package.module:function``, imported when it is called."""

    def call(*given: Any, **named: Any) -> Any:
        module, _, function = name.partition(":")
        return getattr(importlib.import_module(module), function)(*given, **named)

    return call
