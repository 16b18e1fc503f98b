"""A whole compression: the stages asked for, one after another, and a file after each.

folder/pruned.sixz   entries as they are, gaps of a fixed number of bits
folder/shared.sixz   symbols and gaps of a fixed number of bits
folder/model.sixz    the last stage's, by the entropy coder if that is among the stages
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sixfold.compression.codec.clusters import Start
from sixfold.compression.codec.plan import Plan
from sixfold.compression.codec.retraining import Retraining, Trainer
from sixfold.compression.codec.stages import Packed, Tell, prune, share_weights, write_packed
from sixfold.compression.codec.streams import Coder
from sixfold.compression.config import Stage
from sixfold.training.model_card import ModelCard
from sixfold.training.sparsity.initialization import read_weights

MODEL = "model.sixz"
FILES = {"prune": "pruned.sixz", "share": "shared.sixz", "code": MODEL}


@dataclass(frozen=True, kw_only=True)
class RetrainingTask:
    """What is compressed and how; what a member of a search is given."""

    weights: Path  # of the dense network: a run directory or a weights file
    card: ModelCard  # of the network
    retraining: Retraining  # how it is trained again
    stages: tuple[Stage, ...]  # those to go through, in the order of `STAGES`
    rounds: int  # of pruning
    start: Start  # of k-means
    coder: Coder  # of the last stage


def run_stages(
    task: RetrainingTask, plan: Plan, folder: Path, train: Trainer, tell: Tell
) -> dict[str, Packed]:
    """Compress: stage -> the file after it, in order.

    Trainings that are finished in the folder are not done again.
    """
    weights, packed = prune_stage(task, plan, folder, train, tell)
    packed |= share_and_code(task, plan, weights, folder, train, tell)
    if "code" not in packed:
        shutil.copyfile(list(packed.values())[-1].path, folder / MODEL)
    return packed


def prune_stage(
    task: RetrainingTask, plan: Plan, folder: Path, train: Trainer, tell: Tell
) -> tuple[Path, dict[str, Packed]]:
    """The first stage, if it is asked for: where its weights are, and the file after it."""
    if "prune" not in task.stages:
        return task.weights, {}
    weights = prune(
        task.weights,
        plan,
        folder,
        rounds=task.rounds,
        retraining=task.retraining,
        train=train,
        tell=tell,
    )
    tensors = read_weights(weights)
    return weights, {"prune": write_packed(folder / FILES["prune"], tensors, task.card, "fixed")}


def share_and_code(
    task: RetrainingTask, plan: Plan, weights: Path, folder: Path, train: Trainer, tell: Tell
) -> dict[str, Packed]:
    """The second and third stage, as far as they are asked for: the files after them."""
    packed = {}
    tensors = read_weights(weights)
    if "share" in task.stages:
        tensors = share_weights(
            weights,
            plan,
            folder,
            start=task.start,
            card=task.card,
            retraining=task.retraining,
            train=train,
            tell=tell,
        )
        packed["share"] = write_packed(folder / FILES["share"], tensors, task.card, "fixed")
    if "code" in task.stages:
        packed["code"] = write_packed(folder / MODEL, tensors, task.card, task.coder)
    return packed


def unsupported(tensors: Mapping[str, Tensor], plan: Plan) -> list[str]:
    """Float tensors of two and more dims that are neither pruned nor shared: stored as they are."""
    return [
        name
        for name, tensor in tensors.items()
        if tensor.dim() >= 2 and name not in plan.bits and tensor.is_floating_point()
    ]


def layer_table(packed: Mapping[str, Packed]) -> list[dict[str, Any]]:
    """A row for each tensor: what it takes after each stage, as plain data.

    Bits of a value and of a position are for each stored entry; the codebook counts in the bytes
    alone.
    """
    last = list(packed.values())[-1].parts
    rows = []
    for name, parts in last.items():
        stages = {}
        for stage, file in packed.items():
            own = file.parts[name]
            entries = max(own.entries, 1)
            stages[stage] = {
                "entries": own.entries,
                "bytes": own.position_bytes + own.value_bytes + own.codebook_bytes,
                "codebook_bytes": own.codebook_bytes,
                "value_bits": round(8 * own.value_bytes / entries, 3),
                "position_bits": round(8 * own.position_bytes / entries, 3),
            }
        rows.append(
            {
                "name": name,
                "weights": parts.elements,
                "kept": parts.kept,
                "values": parts.values,
                "gap_bits": parts.gap_bits,
                "entropy_bytes": round(parts.entropy_bytes, 1),
                "stages": stages,
            }
        )
    return rows
