"""With which numbers a step computes: the choices of `--precision`.

`bf16` keeps the weights in float32 and computes with bfloat16: eight bits of exponent as in
float32, eight of precision, half the memory, and products that newer processors make several times
as fast, adding them up in float32. A shard's activations and a copy of the weights are bfloat16;
batch-norm's statistics, the loss, the sum of gradients over shards, the update and the weights
themselves are float32, so small updates are not lost. This is what torch.autocast does to a
network, and it does it here to layers that have no link of their own
(`sixfold.training.layers.executor`).

Micikevicius et al., "Mixed precision training", ICLR 2018; Kalamkar et al., "A study of BFLOAT16
for deep learning training", 2019, by which no scaling of the loss is needed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sixfold.training.step.flat import FlatState

BF16 = "bf16"


def weights_precision(precision: str) -> str:
    """In which numbers weights are kept, sent and saved.

    >>> weights_precision("bf16"), weights_precision("float64")
    ('float32', 'float64')
    """
    return "float32" if precision == BF16 else precision


def weights_dtype(precision: str) -> torch.dtype:
    """The same as torch's type.

    >>> weights_dtype("bf16")
    torch.float32
    """
    dtype: torch.dtype = getattr(torch, weights_precision(precision))
    return dtype


def in_precision(network: nn.Module, precision: str) -> nn.Module:
    """The network with its real tensors in that type, in place.

    `Module.to` would make complex buffers real too, and lose their imaginary part.
    """
    return network.double() if weights_dtype(precision) == torch.float64 else network.float()


def compute_dtype_of(precision: str) -> torch.dtype | None:
    """In which numbers layers compute, if in others than the weights are kept in.

    >>> compute_dtype_of("bf16"), compute_dtype_of("float32")
    (torch.bfloat16, None)
    """
    return torch.bfloat16 if precision == BF16 else None


def slow_bf16() -> str | None:
    """Why bf16 gains nothing on this machine; None if it does."""
    cpu = torch.cpu
    if cpu._is_amx_tile_supported() or cpu._is_avx512_bf16_supported():
        return None
    return (
        "--precision bf16: this processor has neither AVX512_BF16 nor AMX, so bfloat16 is computed "
        "by way of float32 and is slower than it; --precision float32 is the faster choice here"
    )


class CastCopy:
    """A copy of all weights in fewer bits.

    Args:
        state: the weights.
        dtype: of the copy.
    """

    def __init__(self, state: FlatState, dtype: torch.dtype) -> None:
        self._state = state
        self._vector = torch.zeros_like(state.parameters, dtype=dtype)

    def views(self) -> Sequence[Tensor]:
        """The copy in the shapes of the parameters; they stay the same memory."""
        return self._state.views(self._vector)

    def refresh(self) -> None:
        """Follow the weights."""
        self._vector.copy_(self._state.parameters)
