"""Masks: which weights of a network are kept, by magnitude or at random, with exact counts.

Magnitude pruning removes the weights that are smallest in absolute value (Han et al., "Learning
both weights and connections for efficient neural networks", 2015). The threshold is therefore a
quantile of the magnitudes; where several weights lie exactly on it, those that come first in the
order of the layers and of their elements are removed, so that the count is exact and the same
everywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from sixfold.core import tensor_file
from sixfold.core.errors import UserError
from sixfold.core.files import write_atomically
from sixfold.core.random_keys import key
from sixfold.training.sparsity.counts import Counts

Mask = dict[str, Tensor]
"""Name of a weight tensor -> bool tensor of its shape, True where the weight is kept."""


def magnitude_mask(
    weights: Mapping[str, Tensor], groups: Sequence[Counts], within: Mask | None = None
) -> Mask:
    """Remove the smallest weights of each group; a mask of every tensor of the groups.

    `groups` say which tensors are ranked together and how many of their weights go, as of
    `prune_counts`; what is removed in `within` stays removed. A ValueError if a magnitude is no
    number, or fewer weights are to go than already have.

    >>> mask = magnitude_mask({"w": torch.tensor([3.0, -1.0, 1.0, 2.0])},
    ...                       [Counts(names=("w",), pruned=1)])
    >>> mask["w"].tolist()
    [True, False, True, True]
    """
    mask: Mask = {}
    for group in groups:
        tensors = [weights[name] for name in group.names]
        ranks = torch.cat([tensor.detach().reshape(-1).abs() for tensor in tensors])
        if torch.isnan(ranks).any():
            raise ValueError(f"a weight of {', '.join(group.names)} is no number")
        if within is not None:
            kept = torch.cat([within[name].reshape(-1) for name in group.names])
            # Below every magnitude, so that what was removed is removed again before any other.
            ranks = torch.where(kept, ranks, -1.0)
            gone = int((~kept).sum())
            if gone > group.pruned:
                raise ValueError(f"{gone} weights are removed already, {group.pruned} asked for")
        keep = ~_smallest(ranks, group.pruned)
        parts = torch.split(keep, [tensor.numel() for tensor in tensors])
        for name, tensor, part in zip(group.names, tensors, parts, strict=True):
            mask[name] = part.reshape(tensor.shape).clone()
    return mask


def _smallest(ranks: Tensor, count: int) -> Tensor:
    """True for the `count` smallest of `ranks` (n,), of equals those that come first."""
    if count == 0:
        return torch.zeros_like(ranks, dtype=torch.bool)
    threshold = torch.kthvalue(ranks, count).values
    chosen = ranks < threshold
    equal = torch.nonzero(ranks == threshold).reshape(-1)
    chosen[equal[: count - int(chosen.sum())]] = True
    return chosen


def random_mask(mask: Mask, seed: int) -> Mask:
    """A control: as many weights of every tensor kept as in `mask`, at random places.

    The draw depends on seed and tensor's name.
    """
    drawn: Mask = {}
    for name, kept in mask.items():
        generator = torch.Generator().manual_seed(key(seed, "random mask", name))
        flat = torch.zeros(kept.numel(), dtype=torch.bool)
        flat[torch.randperm(kept.numel(), generator=generator)[: int(kept.sum())]] = True
        drawn[name] = flat.reshape(kept.shape)
    return drawn


def kept_weights(mask: Mask) -> tuple[int, int]:
    """How many weights a mask keeps, and of how many.

    >>> kept_weights({"w": torch.tensor([True, False, True])})
    (2, 3)
    """
    return (
        sum(int(kept.sum()) for kept in mask.values()),
        sum(kept.numel() for kept in mask.values()),
    )


def save_mask(path: Path, mask: Mask) -> None:
    """Write a mask, atomically; a `RunError` if it cannot be written."""
    write_atomically(path, tensor_file.pack(dict(mask), {"sixfold": "mask"}))


def load_mask(path: Path) -> Mask:
    """Read a mask; a `UserError` if the file is damaged or is no mask."""
    try:
        with tensor_file.open_tensors(path) as file:
            if (file.metadata() or {}).get("sixfold") != "mask":
                raise UserError(f"{path} is no mask that Sixfold wrote")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"the mask {path} cannot be read ({error})") from error
