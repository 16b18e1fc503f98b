"""What one rank holds of one layer's parameters and buffers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.models.graph.operations import Operation, register_operation
from sixfold.training.layers.explicit import EXPLICIT, Weights
from sixfold.training.strategies.model_parallel.part import Part


class LocalLayer(nn.Module):
    """The parameters and buffers of a layer of which a rank holds a part.

    They have the names of the undivided layer's and stand on the meta device, without memory, until
    `DividedNetwork.load` gives them values.

    Args:
        rank: of the group.

    Attributes:
        parts: name of a parameter or buffer -> which part of it this is.
        users: operations that compute with a parameter, and its name.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.parts: dict[str, Part] = {}
        self.users: list[tuple[nn.Module, str]] = []

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

    def give(self, user: nn.Module, name: str) -> None:
        """Let an operation compute with a parameter, under the same name."""
        self.users.append((user, name))
        user.register_parameter(name, getattr(self, name))

    def settle(self) -> None:
        """Hand on the parameters as they are now."""
        for user, name in self.users:
            user.register_parameter(name, getattr(self, name))


class ChannelBias(nn.Module):
    """Adds a number to every channel, behind a sum over ranks."""

    bias: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """(n, K, ...), the same shape."""
        return x + self.bias.view(-1, *[1] * (x.dim() - 2))


class ChannelBiasOp:
    """y = x + b; db is the sum of dy over images and pixels."""

    has_weights = True

    def __init__(self, layer: ChannelBias, place: int) -> None:
        self._layer, self._place = layer, place

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - costs nothing
        """(n, K, ...), the same shape."""
        return self._layer(x), None

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - keeps nothing
        """(n, K, ...), the same shape."""
        dims = [dim for dim in range(grad.dim()) if dim != 1]
        db = out[self._place]
        torch.sum(grad, dims, dtype=db.dtype, out=db)
        return grad


class EmptyPart(nn.Module):
    """What a rank computes that has no part of a layer's output, or nothing to compute it from.

    Args:
        layer: the layer; its parameters get no gradient here.
        out: shape of the part, (C, H, W).
    """

    def __init__(self, layer: nn.Module, out: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.out = layer, out

    def forward(self, x: Tensor) -> Tensor:
        """Anything -> zeros (n, *out)."""
        return x.new_zeros((len(x), *self.out))


class EmptyPartOp:
    """y = 0 whatever x is, so all gradients are zero."""

    def __init__(self, layer: EmptyPart, places: Sequence[int], dtype: torch.dtype | None) -> None:
        self._layer, self._places, self._dtype = layer, places, dtype
        self.has_weights = bool(places)

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - keeps a shape
        """Anything -> zeros (n, *out)."""
        x = x if self._dtype is None else x.to(self._dtype)  # as the parts of other ranks are
        return self._layer(x), (x.shape, x.dtype)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """Zeros in the shape of the input."""
        for place in self._places:
            out[place].zero_()
        shape, dtype = saved
        return grad.new_zeros(shape, dtype=dtype)


def _channel_bias(layer: ChannelBias, weights: Weights) -> ChannelBiasOp:
    return ChannelBiasOp(layer, weights.place(layer.bias))


def _empty_part(layer: EmptyPart, weights: Weights) -> EmptyPartOp:
    owned = weights.owned(layer)
    dtype = weights.weight(owned[0][1]).value.dtype if owned else None
    return EmptyPartOp(layer, [place for place, _ in owned], dtype)


CHANNEL_BIAS = register_operation(Operation(name="channel_bias", modules=(ChannelBias,)))
EMPTY_PART = register_operation(Operation(name="empty_part", modules=(EmptyPart,)))
EXPLICIT[CHANNEL_BIAS] = _channel_bias
EXPLICIT[EMPTY_PART] = _empty_part
