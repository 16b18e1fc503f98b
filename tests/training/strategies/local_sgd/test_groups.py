"""Groups, their swaps, and exchanges within a group."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.training.strategies.local_sgd.groups import (
    gather_slices,
    groups_after,
    mean_over,
    scatter_slices,
)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 9))
def test_swaps_keep_sizes_and_lose_nobody(size: int, count: int, swaps: int) -> None:
    count = min(count, size)
    before, after = groups_after(size, count, 0), groups_after(size, count, swaps)
    assert [len(group) for group in before] == [len(group) for group in after]
    assert sorted(rank for group in after for rank in group) == list(range(size))
    if swaps and count > 1:
        changed = sum(a != b for a, b in zip(before, groups_after(size, count, 1), strict=True))
        assert changed == count


def _within(comm: Communicator) -> dict[str, list[float]]:
    members = [0, 3] if comm.rank in (0, 3) else [2, 1]
    own = torch.arange(5.0) + 10 * comm.rank
    peers = comm.subgroup(members)
    rows = scatter_slices(peers, own)
    whole = gather_slices(peers, rows.sum(0), 5)
    return {
        "sum": whole.tolist(),
        "mean": mean_over(peers, own).tolist(),
    }


def test_exchanges_stay_within_the_group() -> None:
    results = InlineEngine().run_ranks(_within, 4).results
    for rank, result in enumerate(results):
        members = [0, 3] if rank in (0, 3) else [2, 1]
        rows = np.stack([np.arange(5.0) + 10 * member for member in members])
        assert result["sum"] == rows.sum(0).tolist()
        assert result["mean"] == pytest.approx(rows.mean(0).tolist())
