"""What a network gives: one tensor, or several by name, of which one is the main output."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

MAIN = ("out", "logits", "output", "main")
"""Names of outputs that are the main one; else it is the first."""


def named_outputs(value: Any) -> dict[str, Tensor]:
    """The tensors of a network's output by name, the main one first; empty if it is nothing such.

    Of a tuple or list the names are "0", "1", ..., of a named tuple or data class those of its
    fields; what is None is left out, as networks have it that drop auxiliary heads in evaluation.

    >>> import torch
    >>> list(named_outputs({"aux": torch.zeros(1), "out": torch.zeros(1)}))
    ['out', 'aux']
    """
    found = {name: each for name, each in _items(value).items() if each is not None}
    if not all(isinstance(each, Tensor) for each in found.values()):
        return {}
    main = next((name for name in MAIN if name in found), None)
    return found if main is None else {main: found.pop(main), **found}


def _items(value: Any) -> dict[str, Any]:
    """Whatever is in an output, by name."""
    if isinstance(value, Tensor):
        return {"0": value}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): each for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", range(len(value)))
        return {str(name): each for name, each in zip(names, value, strict=True)}
    return {}


def main_output(value: Any) -> Any:
    """The main output; what is no tensor, and has none in it, as it is."""
    if isinstance(value, Tensor):
        return value
    return next(iter(named_outputs(value).values()), value)


def rebuilt(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The same structure with other tensors, given by name."""
    if isinstance(value, Tensor):
        return tensors["0"]
    items = {name: None if each is None else tensors[name] for name, each in _items(value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **items)
    if isinstance(value, Mapping):
        return {key: items[str(key)] for key in value}
    return (
        type(value)(*items.values()) if hasattr(value, "_fields") else type(value)(items.values())
    )
