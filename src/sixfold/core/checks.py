"""Lines about words and values that nobody knows."""

import os
from collections.abc import Iterable
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.naming import meant


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A line that says a name is unknown, with the nearest known ones.

    >>> unknown("model", "lenet6", ["lenet5", "slide"])
    "unknown model 'lenet6': did you mean lenet5? (known: lenet5, slide)"
    """
    known = sorted(known)
    near = meant(name, known)
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {what} {name!r}{hint} (known: {', '.join(known)})"


LONGEST_NAME = 255
"""Bytes of a file's name, in every file system of Linux and macOS."""


def place_of(value: Any, what: str) -> str:
    """The path or URL that something stands for: as text, as a path, or as what has one.

    A `UserError` if it is none of these, or can be the name of no file.

    >>> place_of(3, "a run")
    Traceback (most recent call last):
    sixfold.core.errors.UserError: a run is a int: expected a path, or what `sixfold.train` returned
    """
    given = value if isinstance(value, (str, os.PathLike)) else getattr(value, "path", value)
    if not isinstance(given, (str, os.PathLike)) or isinstance(os.fspath(given), bytes):
        kind = type(value).__name__
        raise UserError(f"{what} is a {kind}: expected a path, or what `sixfold.train` returned")
    text = str(os.fspath(given))
    if not text or not may_exist(text):
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise UserError(f"{what} is {shown!r}: no file can have such a name")
    return text


def may_exist(path: str) -> bool:
    """Whether a file can have such a name.

    >>> may_exist("runs/a"), may_exist("a" * 300)
    (True, False)
    """
    try:
        parts = os.fsencode(path).split(b"/")
    except UnicodeEncodeError:
        return False
    return "\0" not in path and max(map(len, parts)) <= LONGEST_NAME


def is_true(value: Any, what: str) -> bool:
    """A truth value; a `UserError` for what only looks like one, such as the text "false"."""
    if not isinstance(value, bool):
        raise UserError(f"{what}={value!r}: expected True or False")
    return value
