"""Checkpoints: everything comes back, and damage is told."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sixfold.core.errors import UserError
from sixfold.training.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    model_tensors,
    save_checkpoint,
    weights_sha256,
)
from sixfold.training.config import OptimizerConfig
from sixfold.training.progress import Progress
from sixfold.training.step.flat import FlatState
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.step.update_rule import Optimizer


def setting(seed: int, width: int = 5) -> tuple[FlatState, Optimizer]:
    torch.manual_seed(seed)
    state = FlatState(nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width)))
    optimizer = make_optimizer(OptimizerConfig(optimizer="adam"), state.parameters)
    for _ in range(seed):
        optimizer.update(state.parameters, torch.randn_like(state.parameters), 0.1)
    state.buffers.uniform_()
    return state, optimizer


def test_weights_buffers_moments_and_counters_come_back(tmp_path: Path) -> None:
    state, optimizer = setting(3)
    progress = Progress(step=7, best_step=4, best_accuracy=0.5, images=70)
    path = save_checkpoint(tmp_path, progress, state, optimizer, keep=2)
    other, other_optimizer = setting(1)
    assert load_checkpoint(path, other, other_optimizer) == progress
    assert weights_sha256(model_tensors(other.model)) == weights_sha256(model_tensors(state.model))
    assert other_optimizer.updates == 3
    for name, slot in optimizer.slots.items():
        for (key, a), (_, b) in zip(
            state.named_views(slot),
            other.named_views(other_optimizer.slots[name]),
            strict=True,
        ):
            assert torch.equal(a, b), key


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    state, optimizer = setting(1)
    for step in range(1, 7):
        progress = Progress(step=step, best_step=2, best_accuracy=0.5)
        save_checkpoint(tmp_path, progress, state, optimizer, keep=2)
    assert [int(path.stem[5:]) for path in list_checkpoints(tmp_path)] == [2, 5, 6]


@pytest.mark.parametrize("damage", ["truncated", "empty", "other network", "flipped header"])
def test_a_damaged_or_foreign_checkpoint_is_told_in_one_line(tmp_path: Path, damage: str) -> None:
    state, optimizer = setting(1, width=6 if damage == "other network" else 5)
    path = save_checkpoint(tmp_path, Progress(step=1), state, optimizer, keep=2)
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped header":
        path.write_bytes(data[:7] + b"\xff" + data[8:])
    fresh, fresh_optimizer = setting(2)
    with pytest.raises(UserError, match="is damaged or belongs to another network") as caught:
        load_checkpoint(path, fresh, fresh_optimizer)
    assert len(caught.value.problems) == 1


def test_the_hash_sees_names_shapes_dtypes_and_bytes() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    same = {"b": torch.ones(1), "a": torch.zeros(3, 2).t()}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3).double(), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1) * 2},
    ]
    assert weights_sha256(base) == weights_sha256(same)
    assert len({weights_sha256(tensors) for tensors in [base, *others]}) == 5
