"""A network read as a sequence of layers, some of which are two branches that are added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from sixfold.models.mobilenet import InvertedResidual
from sixfold.models.resnet import Block
from sixfold.step.rewrites import has_hooks


@dataclass(frozen=True, kw_only=True)
class Branches:
    """relu(left(x) + right(x)), or without the ReLU.

    Attributes:
        block: the module that does so.
        left: layers of one branch.
        right: of the other; none if it passes its input on.
        relu: whether a ReLU follows.
    """

    block: nn.Module
    left: Layers
    right: Layers
    relu: bool


Layers = list[nn.Module | Branches]


def read(model: nn.Module) -> Layers:
    """The layers in the order in which they run; a module that cannot be looked into is one."""
    if has_hooks(model):
        return [model]
    if type(model) is nn.Identity:
        return []
    if type(model) is nn.Sequential:
        return [layer for child in model for layer in read(child)]
    if type(model) is Block and not has_hooks(model.relu):
        return [
            Branches(block=model, left=read(model.residual), right=read(model.shortcut), relu=True)
        ]
    if type(model) is InvertedResidual:
        inner = read(model.residual)
        return (
            [Branches(block=model, left=inner, right=[], relu=False)] if model.adds_input else inner
        )
    return [model]


def modules_of(layers: Layers) -> Iterator[nn.Module]:
    """All layers, those of branches too."""
    for layer in layers:
        if isinstance(layer, Branches):
            yield from modules_of(layer.left)
            yield from modules_of(layer.right)
        else:
            yield layer
