"""A network with several outputs as one that gives a single matrix, which autograd takes back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.models.outputs import named_outputs, rebuilt


class Outputs(dict[str, Tensor]):
    """Outputs by name, the main one first.

    Attributes:
        form: an output as the network gives it.
    """

    def __init__(self, tensors: Mapping[str, Tensor], form: Any) -> None:
        super().__init__(tensors)
        self.form = form

    def as_given(self, tensors: Mapping[str, Tensor]) -> Any:
        """Other tensors in the structure that the network gives."""
        return rebuilt(self.form, tensors)

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Other tensors side by side, as `JoinedOutputs` gives them."""
        return torch.cat([tensors[name].flatten(1) for name in self], 1)


class JoinedOutputs(nn.Module):
    """Gives all outputs of a network, (n, size) each, side by side: (n, sum of their sizes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._form: Any = None
        self._shapes: dict[str, torch.Size] = {}

    def forward(self, images: Tensor) -> Tensor:
        """All outputs of some images."""
        value = self.network(images)
        named = named_outputs(value)
        self._form = rebuilt(value, {name: each.detach()[:0] for name, each in named.items()})
        self._shapes = {name: each.shape[1:] for name, each in named.items()}
        return torch.cat([each.flatten(1) for each in named.values()], 1)

    def split(self, joined: Tensor) -> Outputs:
        """What `forward` has joined, by name, the main output first."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        pieces = torch.split(joined, sizes, 1)
        tensors = {
            name: piece.reshape(len(joined), *shape)
            for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }
        return Outputs(tensors, self._form)
