"""Snapshots as files."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from sixfold.core.errors import RunError
from sixfold.training.strategies.param_server.server import LeaseName, Ledger, Snapshot
from sixfold.training.strategies.param_server.snapshots import (
    path_of,
    read_snapshot,
    write_snapshot,
)


def sample() -> Snapshot:
    return Snapshot(
        weights=torch.rand(5),
        buffers=torch.empty(0),
        counters=torch.tensor([3]),
        slots={"velocity": torch.rand(5)},
        updates=7,
        ledger=Ledger(
            applied={LeaseName(0, 1): 4, LeaseName(2, 0): 3},
            fences={LeaseName(0, 1): 9},
            clock=7,
            stalenesses=Counter({0: 5, 3: 2}),
            refused=Counter({"stale": 1}),
        ),
    )


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept, path = sample(), path_of(tmp_path, 3)
    write_snapshot(path, kept)
    found = read_snapshot(path)
    assert found.ledger == kept.ledger
    assert found.updates == kept.updates
    assert torch.equal(found.weights, kept.weights)
    assert torch.equal(found.slots["velocity"], kept.slots["velocity"])
    assert torch.equal(found.counters, kept.counters)
    assert found.buffers.shape == (0,)


def test_a_damaged_snapshot_is_told_with_the_remedy(tmp_path: Path) -> None:
    path = path_of(tmp_path, 0)
    write_snapshot(path, sample())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError, match="--resume"):
        read_snapshot(path)
    with pytest.raises(RunError, match="cannot be read"):
        read_snapshot(tmp_path / "none")
