"""A trial of a search: one sparsity for each layer, and the fewest bits that hold the bound.

Bits are tried from coarse to fine: each layer gets the fewest with which sharing it alone raises
the validation loss by no more than a tolerance; the tolerance is lowered until the network, its
shared values trained, is within the bound. All judging is done on the validation part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sixfold import data as datasets
from sixfold.compression.codec.pipeline import MODEL, RetrainingTask, prune_stage, share_and_code
from sixfold.compression.codec.plan import Plan
from sixfold.compression.codec.retraining import train_alone
from sixfold.compression.codec.sensitivity import bits_within, pruning_losses, sharing_losses
from sixfold.compression.loading import load_network
from sixfold.distributed.process_group import alone
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.training.evaluate import Evaluation, evaluate
from sixfold.training.model_card import ModelCard, weights_file

TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.0)
"""Of the loss before sharing, by which one layer's sharing may raise it before training."""

_PRUNING = 0.7
"""Part of a trial's time that pruning takes, about."""


class Judge:
    """Evaluates networks on the validation part, with this process alone."""

    def __init__(self, task: RetrainingTask) -> None:
        base = task.retraining.base
        self.part = datasets.open_data(base.data).validation
        precision = base.training.precision
        self.make_batch = datasets.BatchMaker(
            task.card.statistics(), "float64" if precision == "float64" else "float32"
        )

    def evaluate(self, network: nn.Module) -> Evaluation:
        """Loss and accuracy on the validation part."""
        found = evaluate(alone(), network, self.part, self.make_batch)
        assert found is not None, "rank 0 has the evaluation"
        return found

    def loss(self, network: nn.Module) -> float:
        """Loss on the validation part; infinite if it is no number."""
        loss = self.evaluate(network).loss
        return loss if loss == loss else float("inf")


@dataclass(frozen=True, kw_only=True)
class SearchWork:
    """The work of a search's members."""

    task: RetrainingTask  # what is compressed and how

    def _load(self, file: Path) -> tuple[nn.Module, ModelCard]:
        return load_network(file, trusted=self.task.card.model)

    def sensitivity(self, name: str) -> dict[str, Any]:
        """What pruning one layer costs: see `pruning_losses`; and how good the network is."""
        with one_thread():
            judge = Judge(self.task)
            network, _ = self._load(weights_file(self.task.weights))
            found = judge.evaluate(network)
            losses = pruning_losses(network, name, judge.loss)
            return {"losses": losses, "validation_accuracy": found.accuracy}

    def trial(
        self,
        sparsity: Mapping[str, float],
        target: float,
        folder: Path,
        tell: Callable[[float], None],
    ) -> dict[str, Any]:
        """Compress by one sparsity: `accuracy` on the validation part.

        If it reaches the target also `bytes`, `bits` by layer, and the `folder` with the shared
        network's files, relative to `folder`.
        """
        with one_thread():
            return self._trial(sparsity, target, folder, tell)

    def _trial(
        self,
        sparsity: Mapping[str, float],
        target: float,
        folder: Path,
        tell: Callable[[float], None],
    ) -> dict[str, Any]:
        judge = Judge(self.task)
        pruned = Plan(sparsity=dict(sparsity), bits={})
        rounds = iter(range(self.task.rounds))
        weights, _ = prune_stage(
            self.task,
            pruned,
            folder,
            train_alone,
            lambda _: tell(_PRUNING * next(rounds) / self.task.rounds),
        )
        tell(_PRUNING)
        network, _ = self._load(weights_file(weights))
        before = judge.evaluate(network)
        # Training shared values seldom gains more than this.
        if before.accuracy < target - 0.002:
            return {"accuracy": before.accuracy, "reached": False}
        losses = {
            name: sharing_losses(network, name, judge.loss, self.task.start) for name in sparsity
        }
        tried: dict[str, int] | None = None
        best = before.accuracy
        for number, tolerance in enumerate(TOLERANCES):
            bits = {
                name: bits_within(found, before.loss, tolerance * before.loss)
                for name, found in losses.items()
            }
            if bits == tried:
                continue
            tried = bits
            plan = Plan(sparsity=dict(sparsity), bits=bits)
            inner = folder / f"bits-{number}"
            inner.mkdir(exist_ok=True)
            packed = share_and_code(self.task, plan, weights, inner, train_alone, lambda _: None)
            tell(_PRUNING + (1 - _PRUNING) * (number + 1) / len(TOLERANCES))
            best = judge.evaluate(self._load(inner / MODEL)[0]).accuracy
            if best >= target:
                return {
                    "accuracy": best,
                    "reached": True,
                    "bytes": packed["code"].size_bytes,
                    "bits": bits,
                    "folder": inner.name,
                }
        return {"accuracy": best, "reached": False}
