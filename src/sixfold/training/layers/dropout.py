"""Dropout whose mask depends on (seed, step, shard, module) and on nothing else.

torch's own dropout draws from a global generator, so its mask depends on everything drawn before:
on which shards a rank has computed, and in which order. Here every module makes a generator of its
own for every shard, so that any rank draws the same mask.

Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
JMLR 15 (2014). As in torch, values that stay are scaled by 1 / (1 - p) while training.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sixfold.core.random_keys import key
from sixfold.models.building import seed_all
from sixfold.models.graph.operations import Operation, register_operation


@dataclass
class Draw:
    """For which shard of which step the network is running; shared by all dropout modules.

    A shard that is computed in pieces (`sixfold.training.step.micro_batches`) draws its masks for
    all its samples at once, as one that is computed whole does, and each piece takes its rows of
    them.
    """

    seed: int
    step: int = 0
    shard: int = 0
    _rows: tuple[int, int, int] | None = None
    _masks: dict[tuple[str, tuple[int, ...]], Tensor] = field(default_factory=dict)

    def enter(self, step: int, shard: int, *, seed_torch: bool = True) -> None:
        """Say what is computed next, and seed the global generators for functions that use them.

        A user's network may call `torch.nn.functional.dropout`, or draw noise by torch, NumPy or
        `random`; with their generators seeded per shard this too is the same on every rank.
        """
        self.step, self.shard = step, shard
        self._rows = None
        self._masks.clear()
        if seed_torch:
            seed_all(key(self.seed, "torch", step, shard))

    def take(self, start: int, stop: int, samples: int) -> None:
        """Samples `start` up to `stop`, of so many, are computed next; until the next `enter`."""
        self._rows = start, stop, samples

    def mask(self, name: str, p: float, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The mask of the dropout module `name`: zeros with probability `p`, else 1 / (1 - p)."""
        if self._rows is None:
            return self._whole_mask(name, p, shape, dtype)
        start, stop, samples = self._rows
        place = name, shape[1:]
        if place not in self._masks:
            self._masks[place] = self._whole_mask(name, p, (samples, *shape[1:]), dtype)
        return self._masks[place][start:stop]

    def _whole_mask(
        self, name: str, p: float, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        generator = torch.Generator().manual_seed(
            key(self.seed, "dropout", self.step, self.shard, name)
        )
        keep = torch.empty(shape, dtype=dtype).bernoulli_(1 - p, generator=generator)
        return keep.div_(1 - p)


class KeyedDropout(nn.Module):
    """Dropout with a mask drawn from a key: (seed, step, shard) of `draw`, and the module's `name`.

    `dims` of the input, counted from the last, share one draw: 0 for `Dropout`, 2 for `Dropout2d`
    (whole maps are dropped).
    """

    def __init__(self, p: float, dims: int, name: str, draw: Draw) -> None:
        super().__init__()
        self.p, self.dims, self.name, self.draw = p, dims, name, draw

    def forward(self, x: Tensor) -> Tensor:
        """Drop and scale while training; pass on otherwise. Any shape."""
        mask = self.mask(x)
        return x if mask is None else x * mask

    def mask(self, x: Tensor) -> Tensor | None:
        """What `x` is multiplied with; None if it is passed on as it is."""
        if not self.training or self.p == 0:
            return None
        if self.p == 1:
            return x.new_zeros(())
        shape = x.shape[: x.dim() - self.dims] + (1,) * self.dims
        return self.draw.mask(self.name, self.p, shape, x.dtype).to(x.device)


KEYED_DROPOUT = register_operation(
    Operation(name="keyed_dropout", modules=(KeyedDropout,), per_sample=True, keeps_channels=True)
)

DROPOUT_DIMS: dict[type[nn.Module], int] = {
    nn.Dropout: 0,
    nn.Dropout1d: 1,
    nn.Dropout2d: 2,
    nn.Dropout3d: 3,
}
"""Dims of the input that share one draw, counted from the last."""


def key_dropout(model: nn.Module, draw: Draw) -> nn.Module:
    """Replace dropout modules by keyed ones, in place; a network that is one itself, by return."""
    for name, module in list(model.named_modules()):
        dims = DROPOUT_DIMS.get(type(module))
        if dims is None:
            continue
        keyed = KeyedDropout(float(module.p), dims, name, draw)
        keyed.train(module.training)
        if not name:
            return keyed
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, keyed)
    return model
