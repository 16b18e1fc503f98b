"""The tree over logical shards: counts, bounds, covers, and the order of sums."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.distributed.logical_shards import (
    Node,
    TreeFold,
    cover,
    is_power_of_two,
    owned_shards,
    shard_bounds,
    shard_count,
)


@given(st.integers(1, 100_000), st.booleans())
def test_count_is_a_power_of_two_that_leaves_no_shard_empty(samples: int, norm: bool) -> None:
    count = shard_count(samples, batch_norm=norm)
    assert is_power_of_two(count)
    assert count <= min(samples, 256)
    floor = 4 if samples >= 16 else 2 if samples >= (4 if norm else 2) else 1
    smallest = 32 if norm else 16
    assert count == floor or samples // count >= smallest
    if floor <= count < 256:
        assert samples // (2 * count) < smallest


@pytest.mark.parametrize(
    ("samples", "count"),
    [(1, 1), (2, 2), (15, 2), (16, 4), (100, 4), (127, 4), (128, 8), (4095, 128), (4096, 256)],
)
def test_count_at_the_edges(samples: int, count: int) -> None:
    assert shard_count(samples) == count


def test_with_batch_norm_no_shard_has_a_single_sample() -> None:
    assert [shard_count(n, batch_norm=True) for n in (1, 2, 3, 4, 7)] == [1, 1, 1, 2, 2]


def test_wanted_count_is_used_as_far_as_samples_reach() -> None:
    assert shard_count(100, wanted=16) == 16
    assert shard_count(7, wanted=16) == 4


@given(st.integers(1, 5000), st.integers(0, 8))
def test_bounds_cut_the_batch_without_gap(samples: int, level: int) -> None:
    count = min(1 << level, shard_count(samples, wanted=256))
    bounds = [shard_bounds(samples, count, shard) for shard in range(count)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == samples
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    sizes = {stop - start for start, stop in bounds}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@given(st.integers(0, 8), st.integers(1, 20))
def test_ranks_own_each_shard_once_and_those_beyond_stay_idle(level: int, size: int) -> None:
    count = 1 << level
    runs = [list(owned_shards(count, size, rank)) for rank in range(size)]
    assert [shard for run in runs for shard in run] == list(range(count))
    assert all(runs[rank] for rank in range(min(size, count)))
    assert not any(runs[count:])


@given(st.integers(0, 256), st.integers(0, 256))
def test_cover_is_what_the_fold_leaves(a: int, b: int) -> None:
    run = range(min(a, b), max(a, b))
    fold: TreeFold[list[int]] = TreeFold(lambda left, right: left + right)
    for shard in run:
        fold.push(Node(0, shard), [shard])
    assert [node for node, _ in fold.nodes] == cover(run)
    assert [shard for _, value in fold.nodes for shard in value] == list(run)
    assert len(fold.nodes) <= 16


@given(st.integers(0, 7), st.integers(1, 9))
def test_sum_has_one_shape_for_any_number_of_ranks(level: int, size: int) -> None:
    count = 1 << level

    def tree(low: int, high: int) -> str:
        if high - low == 1:
            return str(low)
        middle = (low + high) // 2
        return f"({tree(low, middle)} {tree(middle, high)})"

    def add(left: str, right: str) -> str:
        return f"({left} {right})"

    final: TreeFold[str] = TreeFold(add)
    for rank in range(size):
        own: TreeFold[str] = TreeFold(add)
        for shard in owned_shards(count, size, rank):
            own.push(Node(0, shard), str(shard))
        for node, value in own.nodes:
            final.push(node, value)
    assert final.root(count) == tree(0, count)


def test_a_missing_shard_is_an_internal_error() -> None:
    fold: TreeFold[int] = TreeFold(lambda left, right: left + right)
    fold.push(Node(0, 0), 1)
    with pytest.raises(AssertionError):
        fold.root(2)
