"""The stages of compression: prune, share, code. Each takes a weights file and leaves another.

folder/prune-01 ... run directories of the trainings after each round, with their masks
folder/share        the training of the centroids, with its clusters
folder/pruned.sixz, shared.sixz, model.sixz   the network after each stage
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sixfold.compression.codec import container
from sixfold.compression.codec.clusters import Start, halved, share
from sixfold.compression.codec.plan import Plan
from sixfold.compression.codec.retraining import Retraining, Trainer
from sixfold.compression.codec.streams import Coder
from sixfold.compression.codec.tensors import Parts
from sixfold.compression.loading import tied
from sixfold.core import tensor_file
from sixfold.core.files import write_atomically
from sixfold.training.model_card import ModelCard
from sixfold.training.sparsity import Counts, Mask, load_mask, magnitude_mask, save_mask
from sixfold.training.sparsity.initialization import read_weights
from sixfold.training.sparsity.shared import load_clusters, save_clusters

Weights = dict[str, Tensor]
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A network as a file."""

    path: Path
    size_bytes: int  # of the file, everything included
    parts: dict[str, Parts]  # by tensor, what its bytes are spent on


def prune(
    weights: Path,
    plan: Plan,
    folder: Path,
    *,
    rounds: int,
    retraining: Retraining,
    train: Trainer,
    tell: Tell,
) -> Path:
    """Remove small weights in rounds, each followed by training; masks only grow.

    After round r of R a layer that is to keep a part k of its weights has kept k^(r/R). Returns the
    last round's run directory.
    """
    mask: Mask | None = None
    for number in range(1, rounds + 1):
        out = folder / f"prune-{number:02d}"
        path = folder / f"mask-{number:02d}.safetensors"
        if not path.exists():
            save_mask(path, _mask(read_weights(weights), plan, number / rounds, mask))
        mask = load_mask(path)
        kept = sum(int(part.sum()) for part in mask.values())
        size = sum(part.numel() for part in mask.values())
        tell(f"pruning, round {number} of {rounds}: {kept:,} of {size:,} weights kept")
        train(retraining.after_pruning(weights, path, out))
        weights = out
    return weights


def _mask(weights: Mapping[str, Tensor], plan: Plan, progress: float, within: Mask | None) -> Mask:
    groups = []
    for name, sparsity in plan.sparsity.items():
        size = weights[name].numel()
        kept = round(size * (1 - sparsity) ** progress)
        before = int((~within[name]).sum()) if within is not None else 0
        groups.append(Counts(names=(name,), pruned=max(size - kept, before)))
    return magnitude_mask(weights, groups, within)


def share_weights(
    weights: Path,
    plan: Plan,
    folder: Path,
    *,
    start: Start,
    card: ModelCard,
    retraining: Retraining,
    train: Trainer,
    tell: Tell,
) -> Weights:
    """Share weights by k-means, train the centroids, and round what is left to 16 bits."""
    path, shared_path = folder / "clusters.safetensors", folder / "clustered.safetensors"
    if not shared_path.exists():
        tensors = read_weights(weights)
        clusters = {}
        for name, bits in plan.bits.items():
            tensors[name], clusters[name] = share(tensors[name], bits, start=start, seed=0)
        for other, name in tied(card).items():
            tensors[other] = tensors[name].clone()
        save_clusters(path, clusters)
        _save_tensors(shared_path, tensors, card)
    values = sum(int(numbers.max()) for numbers in load_clusters(path).values())
    tell(f"sharing: {values} values for all weights of {len(plan.bits)} layers")
    result = shared_path
    if retraining.share_epochs > 0:
        result = folder / "share"
        train(retraining.after_sharing(shared_path, path, result))
    return {name: halved(tensor) for name, tensor in read_weights(result).items()}


def _save_tensors(path: Path, tensors: Weights, card: ModelCard) -> None:
    metadata = {"sixfold": json.dumps(card.plain())}
    write_atomically(path, tensor_file.pack(tensors, metadata))


def write_packed(path: Path, tensors: Weights, card: ModelCard, coder: Coder) -> Packed:
    """Write a network as a .sixz file."""
    data, parts = container.to_bytes({"card": card.plain()}, tensors, coder)
    write_atomically(path, data)
    return Packed(path=path, size_bytes=len(data), parts=parts)


def dense_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the tensors as they lie in memory: what ratios are relative to."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
