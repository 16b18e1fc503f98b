import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.compression import huffman_reference

from sixfold.compression.codec import clusters
from sixfold.compression.config import STARTS


@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=60),
    st.integers(1, 8),
    st.sampled_from(STARTS),
    st.integers(1, 4),
)
def test_k_means_is_lloyd_s_algorithm(
    values: list[float], count: int, start: str, rounds: int
) -> None:
    ordered = np.sort(np.array(values).round(3))
    first = clusters.first_centroids(ordered, count, start, seed=0)
    assert (np.diff(first) >= 0).all()
    slow, fast = first.tolist(), first
    for _ in range(rounds):
        # Round by round from equal centroids: a value half-way may fall either way by rounding.
        slow = huffman_reference.k_means(ordered.tolist(), fast.tolist(), 1)
        middles = (fast[:-1] + fast[1:]) / 2
        if len(middles) and np.abs(ordered[:, None] - middles).min() < 1e-9:
            return
        fast = clusters.k_means(ordered, fast, 1)
        np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("start", STARTS)
def test_clusters_settle_where_no_move_helps(start: str) -> None:
    values = np.sort(np.random.default_rng(0).normal(size=5000))
    first = clusters.first_centroids(values, 15, start, seed=3)
    found = clusters.k_means(values, first)

    def error(centroids: clusters.Floats) -> float:
        return float(((values - centroids[clusters.nearest(values, centroids)]) ** 2).sum())

    assert error(found) <= error(first)
    assert error(clusters.k_means(values, found, 5)) == pytest.approx(error(found))


def test_sharing_keeps_zeros_and_counts_values() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(40, 50, generator=generator) * (
        torch.rand(40, 50, generator=generator) < 0.2
    )
    shared, numbers = clusters.share(weights, 4, start="linear", seed=0)
    assert torch.equal(shared == 0, weights == 0)
    assert torch.equal(numbers == 0, weights == 0)
    values = sorted(set(shared.flatten().tolist()))
    assert len(values) <= 16
    assert len(set(numbers.flatten().tolist())) == len(values)
    assert (shared - weights).abs().max() < weights.abs().max() / 10
    for value in values:
        assert len(set(numbers[shared == value].tolist())) == 1


def test_fewer_values_than_clusters_stay_as_they_are() -> None:
    weights = torch.tensor([[0.0, 1.0, 2.5], [2.5, 0.0, 1.0]])
    shared, _ = clusters.share(weights, 5, start="linear", seed=0)
    assert torch.equal(shared, weights)
    nothing, numbers = clusters.share(torch.zeros(3, 3), 5, start="linear", seed=0)
    assert not nothing.any()
    assert not numbers.any()


def test_halving_is_within_its_bound_or_not_done() -> None:
    fine = torch.tensor([0.0, 1e-9, 3e-6, 1e-3, -12.345, 60000.0])
    assert ((clusters.halved(fine) - fine).abs() <= fine.abs().clamp(min=2**-14) * 2**-11).all()
    for odd in (torch.tensor([65520.0, 1.0]), torch.tensor([float("inf")]), torch.arange(3)):
        assert torch.equal(clusters.halved(odd), odd)
