"""A network read as a sequence of layers, some of which are graphs of layers.

Sequences and the zoo's residual blocks are known by their classes. Any other module that has parts
is followed through its forward (`sixfold.training.layers.tracing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from sixfold.models.graph.operations import operation_of
from sixfold.models.graph.trace import is_own_layer
from sixfold.models.mobilenet import InvertedResidual
from sixfold.models.resnet import Block
from sixfold.training.layers.rewrites import has_hooks
from sixfold.training.layers.side_effects import CannotFollowError
from sixfold.training.layers.tracing import Graph, StagedNetwork, read_graph


@dataclass(frozen=True, kw_only=True)
class Branches:
    """relu(left(x) + right(x)), or without the ReLU."""

    block: nn.Module  # the module that does so
    left: Layers  # layers of one branch
    right: Layers  # of the other; none if it passes its input on
    relu: bool  # whether a ReLU follows


Layers = list[nn.Module | Branches | Graph]


def read(model: nn.Module, left: dict[str, str], path: str = "") -> Layers:
    """The layers in the order in which they run; a module that cannot be looked into is one.

    `left` is given the parts whose forward could not be followed, by path, and why.
    """
    if has_hooks(model):
        return [model]
    if isinstance(model, StagedNetwork):
        return [model.graph]
    if type(model) is nn.Identity:
        return []
    if type(model) is nn.Sequential:
        return [
            layer
            for name, child in model._modules.items()
            if child is not None
            for layer in read(child, left, f"{path}.{name}".lstrip("."))
        ]
    if type(model) is Block and not has_hooks(model.relu):
        sides = [
            read(getattr(model, side), left, f"{path}.{side}".lstrip("."))
            for side in ("residual", "shortcut")
        ]
        return [Branches(block=model, left=sides[0], right=sides[1], relu=True)]
    if type(model) is InvertedResidual:
        inner = read(model.residual, left, f"{path}.residual".lstrip("."))
        return (
            [Branches(block=model, left=inner, right=[], relu=False)] if model.adds_input else inner
        )
    if is_layer(model):
        return [model]
    try:
        graph = read_graph(model)
    except CannotFollowError as error:
        left[path or type(model).__name__] = str(error)
        return [model]
    left |= {f"{path}.{part}".lstrip("."): why for part, why in graph.left.items()}
    return [graph]


def is_layer(module: nn.Module) -> bool:
    """Whether nothing is to be looked into: a layer of torch's or ours, or one without parts."""
    home = type(module).__module__
    of_torch = home.startswith("torch.") and not isinstance(module, nn.Sequential)
    known = operation_of(module) is not None or is_own_layer(module)
    return of_torch or known or not any(True for _ in module.children())


def modules_of(layers: Layers) -> Iterator[nn.Module]:
    """All layers, those of branches too."""
    for layer in layers:
        if isinstance(layer, Branches):
            yield from modules_of(layer.left)
            yield from modules_of(layer.right)
        elif isinstance(layer, Graph):
            for stage in layer.stages:
                yield from stage.layers
            yield nn.ParameterList(layer.unused)
        else:
            yield layer
