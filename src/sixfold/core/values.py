"""Reading a setting's value from text: what command line, files and sweeps have in common."""

import operator
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any


def value_type(hint: Any) -> type[Any]:
    """The type that a field's text is read as.

    >>> value_type(int | None), value_type(tuple[str, ...])
    (<class 'int'>, <class 'tuple'>)
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is tuple:
        return tuple
    kind: type[Any] = hint
    return kind


def parse_bool(text: str) -> bool:
    """Read true or false.

    >>> parse_bool("no")
    False
    """
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError("true or false")
    return words[text.lower()]


def read_value(value: Any, hint: Any) -> Any:
    """A field's value from text, a file or Python; a `ValueError` says what was expected."""
    kind = value_type(hint)
    if kind is tuple:
        if isinstance(value, Mapping) or value is None:
            raise ValueError("a list")
        words = value.split() if isinstance(value, str) else value
        return tuple(map(str, words if isinstance(words, Iterable) else [words]))
    if kind is bool:
        # NumPy's own kind of truth is no bool.
        return value if isinstance(value, bool) else parse_bool(str(value))
    if isinstance(value, bool):
        raise ValueError(_NOUNS[kind])
    try:
        if kind is int and not isinstance(value, str):
            return operator.index(value)
        if kind is str and not isinstance(value, int | float):
            value = os.fspath(value)
        if "\0" in str(value):
            raise ValueError
        return kind(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(_NOUNS[kind]) from None


_NOUNS = {int: "a whole number", float: "a number", str: "text"}
