"""Pruned networks: which weights are removed, how training keeps them at zero, how they run."""

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.training.sparsity.counts import Counts, prune_counts, round_for
    from sixfold.training.sparsity.layers import Prunable, prunable
    from sixfold.training.sparsity.masked import MaskedUpdate, mask_vector, zero_masked
    from sixfold.training.sparsity.masks import (
        Mask,
        kept_weights,
        load_mask,
        magnitude_mask,
        random_mask,
        save_mask,
    )

__all__ = [
    "Counts",
    "Mask",
    "MaskedUpdate",
    "Prunable",
    "kept_weights",
    "load_mask",
    "magnitude_mask",
    "mask_vector",
    "prunable",
    "prune_counts",
    "random_mask",
    "round_for",
    "save_mask",
    "zero_masked",
]

__getattr__ = lazy(
    __name__,
    {
        "counts": ("Counts", "prune_counts", "round_for"),
        "layers": ("Prunable", "prunable"),
        "masked": ("MaskedUpdate", "mask_vector", "zero_masked"),
        "masks": (
            "Mask",
            "kept_weights",
            "load_mask",
            "magnitude_mask",
            "random_mask",
            "save_mask",
        ),
    },
)
