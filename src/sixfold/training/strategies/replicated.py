"""A network of which every rank holds a whole copy, the same on all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sixfold.core.run_directory import RankFiles
from sixfold.data import BatchMaker, Part
from sixfold.distributed.process_group import Communicator
from sixfold.training.checkpoint import (
    load_checkpoint,
    model_tensors,
    save_checkpoint,
    weights_sha256,
)
from sixfold.training.evaluate import Evaluation, evaluate
from sixfold.training.losses.loss import Plain
from sixfold.training.model_card import ModelCard, pack
from sixfold.training.progress import Progress
from sixfold.training.step.averaging import averaged
from sixfold.training.step.device_model import DeviceModel
from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer

RAW = "model.raw.safetensors"
"""The weights themselves, where `model.safetensors` holds their average."""


def raw_figures(sha256: str) -> dict[str, Any]:
    """What a result says where weights and their average are saved."""
    return {"averaged_weights": True, "raw_weights": RAW, "raw_weights_sha256": sha256}


def move_state(
    comm: Communicator,
    state: FlatState,
    optimizer: Optimizer,
    source: int,
    lacking: Sequence[int],
) -> None:
    """Copy weights, buffers, and what the update rule keeps, as they lie in memory.

    Args:
        comm: the ranks; those that neither send nor receive need not call it.
        state: what is sent, or overwritten.
        optimizer: the same.
        source: the rank that sends.
        lacking: the ranks that receive.

    Raises:
        PeerLostError: if a rank is gone; those that lack the state may have a part of it.
    """
    numbers = torch.cat([state.counters().cpu(), torch.tensor([optimizer.updates])])
    slots = [optimizer.slots[name] for name in sorted(optimizer.slots)]
    for vector in (state.parameters, state.buffers, *slots, numbers):
        array = vector.detach().numpy()
        if comm.rank == source:
            comm.exchange(dict.fromkeys(lacking, array), {})
        elif comm.rank in lacking:
            comm.exchange({}, {source: array})
    if comm.rank in lacking:
        state.set_counters(numbers[:-1])
        optimizer.updates = int(numbers[-1])


class ReplicatedModel:
    """A network that every rank has whole; rank 0 saves for all, evaluations are shared.

    `device_model` is the network on the device that computes, if that is not the host.
    """

    together = False

    def __init__(
        self,
        comm: Communicator,
        state: FlatState,
        optimizer: Optimizer,
        make_batch: BatchMaker,
        loss: Plain,
        device_model: DeviceModel | None = None,
    ) -> None:
        self.device_model = device_model
        self._world, self._state, self._optimizer = comm, state, optimizer
        self._make_batch, self._loss = make_batch, loss

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._state.model

    def evaluate(self, part: Part) -> Evaluation | None:
        """Classify a part, its chunks shared out over the ranks."""
        with averaged(self._state, self._optimizer):
            model = self.model
            if self.device_model is not None:
                self.device_model.refresh()
                model = self.device_model.model
            return evaluate(self._world, model, part, self._make_batch, self._loss)

    def save(self, folder: Path, progress: Progress, *, keep: int) -> None:
        """Write a checkpoint, on rank 0."""
        save_checkpoint(folder, progress, self._state, self._optimizer, keep=keep)

    def restore(self, path: Path) -> Progress:
        """Read a checkpoint, on every rank."""
        return load_checkpoint(path, self._state, self._optimizer)

    def hand_over(self, source: int, lacking: Sequence[int]) -> bool:
        """Weights, buffers, and what the update rule keeps, as they lie in memory."""
        move_state(self._world, self._state, self._optimizer, source, lacking)
        return True

    def publish(self, files: RankFiles, card: ModelCard) -> dict[str, Any]:
        """Write the weights, on rank 0."""
        if self._world.rank != 0:
            return {}
        figures: dict[str, Any] = {}
        with averaged(self._state, self._optimizer) as is_average:
            files.write_bytes("model.safetensors", pack(self.model, card))
            found = weights_sha256(model_tensors(self.model))
        if is_average:
            files.write_bytes(RAW, pack(self.model, card))
            figures = raw_figures(weights_sha256(model_tensors(self.model)))
        return figures | {
            "weights_sha256": found,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "trainable_parameters": sum(
                p.numel() for p in self.model.parameters() if p.requires_grad
            ),
        }
