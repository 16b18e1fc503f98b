"""The networks that can be named on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from sixfold.models.alexnet import alexnet
from sixfold.models.cells import cells
from sixfold.models.conv_n import conv2, conv4, conv6
from sixfold.models.lenet import lenet5, lenet300
from sixfold.models.mobilenet import mobilenet_v2
from sixfold.models.resnet import resnet20, resnet50
from sixfold.models.slide import slide
from sixfold.models.vgg import vgg16


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
    entry.factory.__name__: entry
    for entry in (
        Entry(slide, 32),
        Entry(lenet300, 28),
        Entry(lenet5, 28),
        Entry(cells, 256),
        Entry(conv2, 32),
        Entry(conv4, 32),
        Entry(conv6, 32),
        Entry(resnet20, 32),
        Entry(resnet50, 224),
        Entry(vgg16, 32),
        Entry(alexnet, 224),
        Entry(mobilenet_v2, 224),
    )
}
"""Name -> network, in the order in which help lists them."""


def names() -> dict[str, str]:
    """Every network of the zoo, with a line on what it is.

    >>> names()["lenet300"]
    'FC 300, FC 100, FC: LeNet-300-100, for MNIST.'
    """
    return {name: entry.line for name, entry in ZOO.items()}
