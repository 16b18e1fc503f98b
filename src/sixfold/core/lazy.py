"""Names of a package that are imported when they are first used."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package: public name -> the module of the package that has it.

    No module may have the name of what it is a home of: Python would put the module in its place.
    """

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
