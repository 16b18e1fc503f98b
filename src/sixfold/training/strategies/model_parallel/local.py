"""What one rank computes of one layer: the common form of all divided layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sixfold.training.strategies.model_parallel.part import Part


class LocalLayer(nn.Module):
    """A layer of which a rank holds a part.

    Its parameters and buffers have the names of the undivided layer's and stand on the meta
    device, without memory, until `DividedNetwork.load` gives them values.

    Args:
        rank: of the tile.

    Attributes:
        parts: name of a parameter or buffer -> which part of it this is.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.parts: dict[str, Part] = {}

    def hold(self, name: str, whole: Tensor | None, part: Part) -> None:
        """Make room for a part of a parameter or buffer; None stays None.

        Args:
            name: of the parameter in its layer.
            whole: the undivided one, on any device; only its kind and dtype are looked at.
            part: which part of it.
        """
        if whole is None:
            self.register_parameter(name, None)
            return
        local = torch.empty(part.local_shape(self.rank), dtype=whole.dtype, device="meta")
        self.parts[name] = part
        if isinstance(whole, nn.Parameter):
            self.register_parameter(name, nn.Parameter(local, requires_grad=whole.requires_grad))
        else:
            self.register_buffer(name, local)
