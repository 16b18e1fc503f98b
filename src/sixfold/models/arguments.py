"""The text of `--model-args`, and whether a network's factory takes what it says."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from torch import nn

Literal = bool | int | float | str | None


def parse_arguments(text: str) -> tuple[dict[str, Literal], list[str]]:
    """`width=0.5,dropout=0.1` as keyword arguments, and a line for each pair that cannot be read.

    Values are read as true, false, none, an integer or a number where they look like one, else as
    text.
    """
    arguments: dict[str, Literal] = {}
    problems = []
    for pair in text.split(",") if text.strip() else ():
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value or not name.isidentifier():
            problems.append(
                f"--model-args: {pair.strip()!r} is not NAME=VALUE; write pairs with commas "
                "between, such as width=0.5,dropout=0.1"
            )
        elif name in arguments:
            problems.append(f"--model-args: {name} is given twice")
        else:
            arguments[name] = _literal(value)
    return arguments, problems


def _literal(text: str) -> Literal:
    word = text.lower()
    if word in ("true", "false"):
        return word == "true"
    if word in ("none", "null"):
        return None
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def argument_problems(
    factory: Callable[..., Any], given: Mapping[str, Literal], *, model: str, reserved: set[str]
) -> list[str]:
    """A line for each argument of a factory that is unknown, reserved or of the wrong type.

    `reserved` are parameters that follow from the data.
    """
    parameters = parameters_of(factory)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    takes = [
        name
        for name, parameter in parameters.items()
        if parameter.kind is not parameter.VAR_POSITIONAL and name not in reserved
    ]
    listed = f"it takes {', '.join(takes)}" if takes else "it takes none"
    hints = _hints(factory)
    problems = []
    for name, value in given.items():
        if name in reserved:
            problems.append(f"--model-args: {name} of {model} follows from the data: leave it out")
        elif name not in takes:
            close = get_close_matches(name, takes, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            problems.append(f"--model-args: {model} has no argument {name!r}{hint}: {listed}")
        elif name in hints and not _fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", str(hints[name]))
            problems.append(f"--model-args: {name}={value} of {model} must be {wanted}")
    return problems


def parameters_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The factory's parameters; None for a builtin without a signature.

    A class that may hand ``**kwargs`` on to its bases may be given their parameters too, but those
    that it sets itself.
    """
    try:
        found = dict(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return None
    if not isinstance(factory, type):
        return found
    passes_on = any(p.kind is p.VAR_KEYWORD for p in found.values())
    for kind, base in pairwise([one for one in factory.__mro__ if "__init__" in vars(one)]):
        if base is nn.Module or not passes_on:
            break
        set_here = set(_texts(getattr(kind.__init__, "__code__", None)))  # type: ignore[misc]
        _, *inherited = inspect.signature(vars(base)["__init__"]).parameters.values()
        named = [p for p in inherited if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        offered = {
            p.name: p.replace(kind=p.KEYWORD_ONLY, default=None)
            for p in named
            if p.name not in set_here
        }
        found = offered | found
        passes_on = any(p.kind is p.VAR_KEYWORD for p in inherited)
    return found


def _texts(code: types.CodeType | None) -> Iterator[str]:
    """Texts that are written in a function: names of keyword arguments among them."""
    for constant in () if code is None else code.co_consts:
        for text in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(text, str):
                yield text


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    function = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        return typing.get_type_hints(function)
    except (TypeError, NameError, AttributeError):
        return {}


def _fits(value: Literal, hint: Any) -> bool:
    """Whether a literal is of an annotated type; types that no literal has are not judged."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    return hint is not types.NoneType or value is None
