"""The networks that can be named on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from sixfold.models.cells import cells
from sixfold.models.lenet import lenet5, lenet300
from sixfold.models.resnet import resnet20
from sixfold.models.slide import slide


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        factory: called as `factory(shape, classes, **arguments)`.
        side: rows and columns of the images for which its paper gives it, in pixels.
    """

    factory: Callable[..., nn.Module]
    side: int

    @property
    def line(self) -> str:
        """What it is, in one line."""
        return (self.factory.__doc__ or "").strip().splitlines()[0]


ZOO = {
    entry.factory.__name__: entry
    for entry in (
        Entry(slide, 32),
        Entry(lenet300, 28),
        Entry(lenet5, 28),
        Entry(cells, 256),
        Entry(resnet20, 32),
    )
}
"""Name -> network, in the order in which help lists them."""


def names() -> dict[str, str]:
    """Every network of the zoo, with a line on what it is.

    >>> names()["lenet300"]
    'FC 300, FC 100, FC: LeNet-300-100, for MNIST.'
    """
    return {name: entry.line for name, entry in ZOO.items()}
