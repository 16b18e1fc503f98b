"""Which tensors of a network are pruned: weights of convolutions and linear layers, by kind.

Biases and batch-norm are left alone: they are few, and removing them saves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

KINDS = ("conv", "fc", "output")
"""Convolutions, linear layers, and the last of either, which gives the scores of the classes."""

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True, kw_only=True)
class Prunable:
    """A weight tensor that may be pruned.

    Attributes:
        name: of the parameter, as in the network's state.
        kind: one of `KINDS`.
        shape: of the tensor.
        size: number of weights.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    size: int


def prunable(model: nn.Module) -> list[Prunable]:
    """The weight tensors of a network that may be pruned, in the order of its modules.

    A tensor that several modules share is listed once, a network's last layer as its output.
    Frozen tensors (``requires_grad`` False) are left out: what is pruned is trained again.

    >>> layers = prunable(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4)))
    >>> [(layer.name, layer.kind, layer.size) for layer in layers]
    [('0.weight', 'conv', 18), ('2.weight', 'output', 32)]
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, Prunable] = {}
    for module in model.modules():
        if not isinstance(module, (*_CONVOLUTIONS, nn.Linear)) or not module.weight.requires_grad:
            continue
        name = names[id(module.weight)]
        found.setdefault(
            name,
            Prunable(
                name=name,
                kind="fc" if isinstance(module, nn.Linear) else "conv",
                shape=tuple(module.weight.shape),
                size=module.weight.numel(),
            ),
        )
    layers = list(found.values())
    if layers:
        last = layers[-1]
        layers[-1] = Prunable(name=last.name, kind="output", shape=last.shape, size=last.size)
    return layers
