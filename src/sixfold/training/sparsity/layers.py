"""Which tensors of a network are pruned: weights of convolutions and linear layers, by kind.

Biases and batch-norm are left alone: they are few, and removing them saves nothing.
"""

import copy
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from sixfold.models.graph.operations import kernel_types


@dataclass(frozen=True, kw_only=True)
class Prunable:
    """A weight tensor that may be pruned."""

    name: str  # of the parameter, as in the network's state
    kind: str  # one of `KINDS`
    shape: tuple[int, ...]  # of the tensor
    size: int  # number of weights


_STORED = re.compile(r"\.(weight|weight_orig|parametrizations\.weight\.original\d*)$")


def layer_name(tensor: str) -> str:
    """The layer whose weight is kept in a tensor.

    >>> layer_name("features.0.weight"), layer_name("fc.parametrizations.weight.original")
    ('features.0', 'fc')
    """
    return _STORED.sub("", tensor)


def prunable(model: nn.Module) -> list[Prunable]:
    """The weight tensors of a network that may be pruned, in the order of its modules.

    A tensor that several modules share is listed once, a network's last layer as its output. Of a
    weight that is made of others (spectral norm) the one is listed whose zeros are
    zeros of the weight; if there is none, the layer is left alone (`left_alone`).
    Frozen tensors (``requires_grad`` False) are left out: what is pruned is trained again.

    >>> layers = prunable(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4)))
    >>> [(layer.name, layer.kind, layer.size) for layer in layers]
    [('0.weight', 'conv', 18), ('2.weight', 'output', 32)]
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, Prunable] = {}
    for module in model.modules():
        if not isinstance(module, kernel_types("conv", "fc")):
            continue
        weight = _stored_weight(module)
        if weight is None or id(weight) not in names or not weight.requires_grad:
            continue
        name = names[id(weight)]
        found.setdefault(
            name,
            Prunable(
                name=name,
                kind="fc" if isinstance(module, kernel_types("fc")) else "conv",
                shape=tuple(weight.shape),
                size=weight.numel(),
            ),
        )
    layers = list(found.values())
    if layers:
        last = layers[-1]
        layers[-1] = Prunable(name=last.name, kind="output", shape=last.shape, size=last.size)
    return layers


def left_alone(model: nn.Module) -> str:
    """What to say of layers that are not pruned, since their weight is made of other tensors.

    >>> left_alone(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))))
    "layer '0' stays dense: its weight is made of other tensors, whose zeros are not its zeros \
(torch.nn.utils.parametrize.remove_parametrizations makes it an ordinary one)"
    """
    names = [
        repr(name)
        for name, module in model.named_modules()
        if isinstance(module, kernel_types("conv", "fc")) and _stored_weight(module) is None
    ]
    if not names:
        return ""
    return (
        f"layer {', '.join(names)} stays dense: its weight is made of other tensors, whose zeros "
        "are not its zeros (torch.nn.utils.parametrize.remove_parametrizations makes it an "
        "ordinary one)"
    )


def no_layers(model: str, alone: str) -> str:
    """What to say of a network without anything to prune."""
    return f"{model} has no convolution or linear layer to prune{alone and f': {alone}'}"


def _stored_weight(module: nn.Module) -> nn.Parameter | None:
    """The parameter in which a layer's weight is kept, place by place; None if there is none."""
    if is_parametrized(module, "weight"):
        made: Any = module.parametrizations
        named = dict(made["weight"].named_parameters(recurse=False))
        fitting = (p for name, p in named.items() if _keeps_zeros(made["weight"], name))
        return next(fitting, None)
    # The older spectral norm, and torch's pruning, make the weight before every call.
    stored = (getattr(module, name, None) for name in ("weight_orig", "weight"))
    return next((tensor for tensor in stored if isinstance(tensor, nn.Parameter)), None)


def _keeps_zeros(made: nn.Module, name: str) -> bool:
    """Whether a weight is zero exactly where a tensor is of which it is made: tried.

    A filter without weights is among what is tried: weight norm would divide by its norm.
    """
    trial = copy.deepcopy(made).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*trial.parameters(), *trial.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(generator=generator)
        stored: Tensor = getattr(trial, name)
        if not stored.dim():  # a scale of the whole weight
            return False
        stored[torch.rand(stored.shape, generator=generator) < 0.5] = 0
        stored[0] = 0
        try:
            weight = trial.eval()()
        except Exception:  # it wants other values than any
            return False
        return torch.equal(weight == 0, stored == 0)
