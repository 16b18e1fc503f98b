"""The stages of a compression: prune, share, code. Each leaves a file; the last is model.sixz.

folder/prune-01 ...  run directories of the trainings after each round; their masks beside them
folder/share         the training of the centroids
folder/pruned.sixz   entries as they are, gaps of a fixed number of bits
folder/shared.sixz   symbols and gaps of a fixed number of bits
folder/model.sixz    the last stage's, by the entropy coder if that is among the stages

Trainings that are finished in the folder are not done again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sixfold.compression.codec import container
from sixfold.compression.codec.clusters import halved, share
from sixfold.compression.codec.plan import Plan
from sixfold.compression.codec.tensors import Parts
from sixfold.compression.config import STAGES, CompressionConfig
from sixfold.compression.loading import tied
from sixfold.core import tensor_file
from sixfold.core.config import RunConfig
from sixfold.core.files import write_atomically
from sixfold.core.random_keys import key
from sixfold.training.config import (
    InitializationConfig,
    OptimizerConfig,
    StrategyConfig,
    TrainConfig,
)
from sixfold.training.model_card import ModelCard
from sixfold.training.sparsity import Counts, Mask, load_mask, magnitude_mask, save_mask
from sixfold.training.sparsity.initialization import read_weights
from sixfold.training.sparsity.shared import load_clusters, save_clusters

MODEL = "model.sixz"
FILES = {"prune": "pruned.sixz", "share": "shared.sixz", "code": MODEL}
Tell = Callable[[str], None]
Trainer = Callable[[TrainConfig], object]
"""Trains in the run directory that the settings name, going on with what is there."""


@dataclass(frozen=True, kw_only=True)
class CompressionTask:
    """What is compressed and how; what a member of a search is given."""

    weights: Path  # of the dense network: a run directory or a weights file
    card: ModelCard  # of the network
    base: TrainConfig  # of the training that made it; data, batches and seed are taken over
    settings: CompressionConfig
    # hashes of the files of the user's own that the network is made of, as the job began
    source: Mapping[str, str] = field(default_factory=dict)

    @property
    def stages(self) -> tuple[str, ...]:
        """Those to go through, in their order."""
        return tuple(stage for stage in STAGES if stage in self.settings.stages.split(","))

    @property
    def pruning_rates(self) -> tuple[float, float]:
        """Learning rate and weight decay after pruning.

        As large as in the first training is best: A. Renda, J. Frankle, M. Carbin, "Comparing
        rewinding and fine-tuning in neural network pruning", ICLR 2020.
        """
        asked, base = self.settings, self.base.optimizer
        return (
            base.lr if asked.lr is None else asked.lr,
            base.weight_decay if asked.weight_decay is None else asked.weight_decay,
        )

    def after_pruning(self, weights: Path, mask: Path, out: Path) -> TrainConfig:
        """Train the weights that a mask keeps; the rate falls to 0 in every round by a cosine."""
        lr, decay = self.pruning_rates
        base = self.base.optimizer
        if base.optimizer == "muon":  # a mask needs an update that works element by element
            base = replace(base, optimizer="adamw", optimizer_args="")
        optimizer = replace(
            base, lr=lr, weight_decay=decay, schedule="cosine", warmup=0.0, freeze=""
        )
        start = InitializationConfig(weights=str(weights), mask=str(mask))
        return self._training(optimizer, start, self.settings.prune_epochs, out)

    def after_sharing(self, weights: Path, clusters: Path, out: Path) -> TrainConfig:
        """Train centroids, biases and batch-norm.

        The gradient of a centroid is a sum over anything from one to thousands of weights; Adam,
        which goes by the gradient's sign and steadiness, needs no learning rate for each.
        """
        optimizer = OptimizerConfig(optimizer="adam", lr=self.settings.share_lr, schedule="cosine")
        start = InitializationConfig(weights=str(weights), shared=str(clusters))
        return self._training(optimizer, start, self.settings.share_epochs, out)

    def _training(
        self, optimizer: OptimizerConfig, start: InitializationConfig, epochs: float, out: Path
    ) -> TrainConfig:
        training = self.base.training
        seed = key(training.seed, "compress", out.name) % (1 << 31)
        return replace(
            self.base,
            optimizer=optimizer,
            initialization=start,
            strategy=StrategyConfig(),
            training=replace(training, epochs=epochs, steps=None, seed=seed, evaluate_every=0.0),
            run=RunConfig(out=str(out), resume=out.is_dir(), keep_checkpoints=1),
        )

    def write(self, path: Path, tensors: Mapping[str, Tensor], coder: str = "fixed") -> Packed:
        """Write the network with these tensors as a .sixz file."""
        data, parts = container.to_bytes({"card": self.card.plain()}, tensors, coder)
        write_atomically(path, data)
        return Packed(path=path, size_bytes=len(data), parts=parts)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A network as a file."""

    path: Path
    size_bytes: int  # of the file, everything included
    parts: dict[str, Parts]  # by tensor, what its bytes are spent on


def run_stages(
    task: CompressionTask, plan: Plan, folder: Path, train: Trainer, tell: Tell
) -> dict[str, Packed]:
    """Compress: stage -> the file after it, in order."""
    weights, packed = prune(task, plan, folder, train, tell)
    packed |= share_and_code(task, plan, weights, folder, train, tell)
    if "code" not in packed:
        shutil.copyfile(list(packed.values())[-1].path, folder / MODEL)
    return packed


def prune(
    task: CompressionTask, plan: Plan, folder: Path, train: Trainer, tell: Tell
) -> tuple[Path, dict[str, Packed]]:
    """Remove small weights in rounds, each followed by training; masks only grow.

    After round r of R a layer that is to keep a part k of its weights has kept k^(r/R). Returns
    where the weights are then, and the file.
    """
    weights, mask, rounds = task.weights, None, task.settings.rounds
    if "prune" not in task.stages:
        return weights, {}
    for number in range(1, rounds + 1):
        out = folder / f"prune-{number:02d}"
        path = folder / f"mask-{number:02d}.safetensors"
        if not path.exists():
            save_mask(path, _mask(read_weights(weights), plan, number / rounds, mask))
        mask = load_mask(path)
        kept = sum(int(part.sum()) for part in mask.values())
        size = sum(part.numel() for part in mask.values())
        tell(f"pruning, round {number} of {rounds}: {kept:,} of {size:,} weights kept")
        train(task.after_pruning(weights, path, out))
        weights = out
    return weights, {"prune": task.write(folder / FILES["prune"], read_weights(weights))}


def _mask(weights: Mapping[str, Tensor], plan: Plan, progress: float, within: Mask | None) -> Mask:
    groups = []
    for name, sparsity in plan.sparsity.items():
        size = weights[name].numel()
        kept = round(size * (1 - sparsity) ** progress)
        before = int((~within[name]).sum()) if within is not None else 0
        groups.append(Counts(names=(name,), pruned=max(size - kept, before)))
    return magnitude_mask(weights, groups, within)


def share_and_code(
    task: CompressionTask, plan: Plan, weights: Path, folder: Path, train: Trainer, tell: Tell
) -> dict[str, Packed]:
    """The second and third stage, as far as they are asked for: the files after them."""
    packed, tensors = {}, read_weights(weights)
    if "share" in task.stages:
        tensors = _share(task, plan, weights, folder, train, tell)
        packed["share"] = task.write(folder / FILES["share"], tensors)
    if "code" in task.stages:
        packed["code"] = task.write(folder / MODEL, tensors, task.settings.coder)
    return packed


def _share(
    task: CompressionTask, plan: Plan, weights: Path, folder: Path, train: Trainer, tell: Tell
) -> dict[str, Tensor]:
    """Share weights by k-means, train the centroids, and round what is left to 16 bits."""
    path, shared_path = folder / "clusters.safetensors", folder / "clustered.safetensors"
    if not shared_path.exists():
        tensors, clusters = read_weights(weights), {}
        for name, bits in plan.bits.items():
            tensors[name], clusters[name] = share(tensors[name], bits, task.settings.kmeans_init)
        for other, name in tied(task.card).items():
            tensors[other] = tensors[name].clone()
        save_clusters(path, clusters)
        metadata = {"sixfold": json.dumps(task.card.plain())}
        write_atomically(shared_path, tensor_file.pack(tensors, metadata))
    values = sum(int(numbers.max()) for numbers in load_clusters(path).values())
    tell(f"sharing: {values} values for all weights of {len(plan.bits)} layers")
    result = shared_path
    if task.settings.share_epochs > 0:
        result = folder / "share"
        train(task.after_sharing(shared_path, path, result))
    return {name: halved(tensor) for name, tensor in read_weights(result).items()}


def layer_table(packed: Mapping[str, Packed]) -> list[dict[str, Any]]:
    """A row for each tensor: what it takes after each stage, as plain data.

    Bits of a value and of a position are for each stored entry; the codebook counts in the bytes
    alone.
    """
    return [
        {
            "name": name,
            "weights": parts.elements,
            "kept": parts.kept,
            "values": parts.values,
            "gap_bits": parts.gap_bits,
            "entropy_bytes": round(parts.entropy_bytes, 1),
            "stages": {stage: _stage_row(file.parts[name]) for stage, file in packed.items()},
        }
        for name, parts in list(packed.values())[-1].parts.items()
    ]


def _stage_row(parts: Parts) -> dict[str, Any]:
    entries = max(parts.entries, 1)
    return {
        "entries": parts.entries,
        "bytes": parts.position_bytes + parts.value_bytes + parts.codebook_bytes,
        "codebook_bytes": parts.codebook_bytes,
        "value_bits": round(8 * parts.value_bytes / entries, 3),
        "position_bits": round(8 * parts.position_bytes / entries, 3),
    }
