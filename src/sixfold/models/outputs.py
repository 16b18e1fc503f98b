"""What a network gives: one tensor, or several by name, of which the first is the main one."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

MAIN = ("out", "logits", "output", "main")
"""Keys of a mapping that name its main output; else it is the first."""


def named_outputs(value: Any) -> dict[str, Tensor]:
    """The tensors of a network's output by name, the main one first; empty if it is nothing such.

    Of a tuple or list the names are "0", "1", ..., or those of its fields; what is None is left
    out, as networks have it that drop auxiliary heads in evaluation.

    >>> import torch
    >>> list(named_outputs({"aux": torch.zeros(1), "out": torch.zeros(1)}))
    ['out', 'aux']
    """
    if isinstance(value, Tensor):
        return {"0": value}
    if isinstance(value, Mapping):
        found = {str(name): each for name, each in value.items() if each is not None}
        main = next((name for name in MAIN if name in found), None)
        if main is not None:
            found = {main: found.pop(main), **found}
    elif isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", range(len(value)))
        pairs = zip(names, value, strict=True)
        found = {str(name): each for name, each in pairs if each is not None}
    else:
        return {}
    return found if all(isinstance(each, Tensor) for each in found.values()) else {}


def main_output(value: Any) -> Any:
    """The main output; what is no tensor, and has none in it, as it is."""
    if isinstance(value, Tensor):
        return value
    return next(iter(named_outputs(value).values()), value)


def rebuilt(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The same structure with other tensors, given by name."""
    if isinstance(value, Tensor):
        return tensors["0"]
    if isinstance(value, Mapping):
        return {key: None if each is None else tensors[str(key)] for key, each in value.items()}
    names = [str(name) for name in getattr(value, "_fields", range(len(value)))]
    items = [None if v is None else tensors[n] for n, v in zip(names, value, strict=True)]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
