"""What the members of a search do: one layer's pruning, or a whole compression, judged.

In a trial, one sparsity for each layer, bits are tried from coarse to fine: each layer gets the
fewest with which sharing it alone raises the validation loss by no more than a tolerance; the
tolerance is lowered until the network, its shared values trained, is within the bound. All judging
is done on the validation part, by one process alone.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sixfold import data as datasets
from sixfold.compression.codec.plan import Plan
from sixfold.compression.codec.sensitivity import bits_within, pruning_losses, sharing_losses
from sixfold.compression.codec.stages import MODEL, CompressionTask, prune, share_and_code
from sixfold.compression.loading import load_network
from sixfold.core.files import write_json
from sixfold.core.run_directory import RunDirectory, as_json
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.process_group import alone
from sixfold.training.config import TrainConfig
from sixfold.training.evaluate import Evaluation, evaluate
from sixfold.training.model_card import weights_file
from sixfold.training.worker import TrainJob, train_rank

TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.0)
"""Of the loss before sharing, by which one layer's sharing may raise it before training."""

_PRUNING = 0.7  # Part of a trial's time that pruning takes, about


def train_alone(source: Mapping[str, str], config: TrainConfig) -> None:
    """Train without any engine; `source` has the hashes of what the network is made of."""
    directory = RunDirectory(Path(str(config.run.out)))
    if directory.result() is not None:
        return
    directory.create()
    config = dataclasses.replace(config, engine=EngineConfig(engine="inline", workers=1))
    write_json(directory.file("config.json"), as_json(config))
    attempt = directory.claim()
    result = train_rank(
        TrainJob(config=config, claim=directory.ticket(), source=source), alone(attempt)
    )
    write_json(directory.file("result.json"), result)


class _Judge:
    def __init__(self, task: CompressionTask) -> None:
        self.task = task
        self.part = datasets.open_data(task.base.data).validation
        self.make_batch = datasets.BatchMaker(task.card, task.base.training.precision)

    def load(self, weights: Path) -> nn.Module:
        return load_network(weights_file(weights), trusted=self.task.card.model)[0]

    def evaluate(self, network: nn.Module) -> Evaluation:
        found = evaluate(alone(), network, self.part, self.make_batch)
        assert found is not None, "rank 0 has the evaluation"
        return found

    def loss(self, network: nn.Module) -> float:
        """Infinite if it is no number."""
        loss = self.evaluate(network).loss
        return loss if loss == loss else float("inf")


def sensitivity(task: CompressionTask, name: str) -> dict[str, Any]:
    """What pruning one layer costs: see `pruning_losses`; and how good the network is."""
    judge = _Judge(task)
    network = judge.load(task.weights)
    accuracy = judge.evaluate(network).quality
    losses = pruning_losses(network, name, judge.loss)
    return {"losses": losses, "validation_accuracy": accuracy}


def trial(
    task: CompressionTask,
    sparsity: Mapping[str, float],
    target: float,
    folder: Path,
    tell: Callable[[float], None],
) -> dict[str, Any]:
    """Compress by one sparsity: `accuracy` on the validation part.

    If it reaches the target also `bytes`, `bits` by layer, and the `folder` with the shared
    network's files, relative to `folder`.
    """
    judge, rounds = _Judge(task), task.settings.rounds
    done = iter(range(rounds))
    pruned = Plan(sparsity=dict(sparsity), bits={})
    trainer = functools.partial(train_alone, task.source)
    weights, _ = prune(
        task, pruned, folder, trainer, lambda _: tell(_PRUNING * next(done) / rounds)
    )
    tell(_PRUNING)
    network = judge.load(weights)
    before = judge.evaluate(network)
    best = before.quality
    # Training shared values seldom gains more than this.
    if best < target - 0.002:
        return {"accuracy": best, "reached": False}
    start = task.settings.kmeans_init
    losses = {name: sharing_losses(network, name, judge.loss, start) for name in sparsity}
    tried: dict[str, int] | None = None
    for number, tolerance in enumerate(TOLERANCES):
        allowed = tolerance * before.loss
        bits = {name: bits_within(found, before.loss, allowed) for name, found in losses.items()}
        if bits == tried:
            continue
        tried = bits
        plan = Plan(sparsity=dict(sparsity), bits=bits)
        inner = folder / f"bits-{number}"
        inner.mkdir(exist_ok=True)
        packed = share_and_code(task, plan, weights, inner, trainer, lambda _: None)
        tell(_PRUNING + (1 - _PRUNING) * (number + 1) / len(TOLERANCES))
        best = judge.evaluate(judge.load(inner / MODEL)).quality
        if best >= target:
            size = packed["code"].size_bytes
            found = {"bytes": size, "bits": bits, "folder": inner.name}
            return {"accuracy": best, "reached": True, **found}
    return {"accuracy": best, "reached": False}
