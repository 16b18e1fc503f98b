"""The networks that can be named on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from torch import nn

from sixfold.models import config


@dataclass(frozen=True)
class Entry:
    """A network of the zoo."""

    factory: Callable[..., nn.Module]  # called as `factory(shape, classes, **arguments)`
    side: int  # rows and columns of the images that it is mostly used for, in pixels

    @property
    def line(self) -> str:
        """What it is, in one line."""
        return (self.factory.__doc__ or "").strip().splitlines()[0]


ZOO = {
    name: Entry(getattr(import_module(f"sixfold.models.{module}"), name), side)
    for name, (module, side) in config.ZOO.items()
}
"""Name -> network, in the order in which help lists them."""


def names() -> dict[str, str]:
    """Every network of the zoo, with a line on what it is."""
    return {name: entry.line for name, entry in ZOO.items()}
