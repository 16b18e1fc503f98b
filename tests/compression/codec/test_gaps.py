import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compression import huffman_reference

from sixfold.compression.codec import gaps

FLAT = st.lists(st.sampled_from([0, 0, 0, 0, 1, 2, 9]), max_size=300)


@given(FLAT, st.integers(1, 4))
def test_gaps_and_fillers_are_the_reference_s(flat: list[int], bits: int) -> None:
    array = np.array(flat, np.int64)
    places = np.flatnonzero(array)
    sparse = gaps.encode(places, array[places], bits)
    slow_gaps, slow_symbols = huffman_reference.relative_index(flat, bits)
    assert sparse.gaps.tolist() == slow_gaps
    assert sparse.symbols.tolist() == slow_symbols
    again = np.zeros(len(flat), np.int64)
    again[gaps.places_of(sparse.gaps)] = sparse.symbols
    assert again.tolist() == flat


def test_the_best_bits_are_those_of_the_smallest_streams() -> None:
    rng = np.random.default_rng(0)
    places = np.flatnonzero(rng.random(20_000) < 0.03)
    symbols = rng.integers(1, 16, len(places))
    bits, size = gaps.best_bits(places, symbols, gaps.entropy_bits)
    sizes = {}
    for other in range(1, gaps.MOST_BITS + 1):
        sparse = gaps.encode(places, symbols, other)
        sizes[other] = gaps.entropy_bits(np.bincount(sparse.gaps)) + gaps.entropy_bits(
            np.bincount(sparse.symbols)
        )
    assert size == pytest.approx(sizes[bits])
    assert size == pytest.approx(min(sizes.values()))


def test_columns_are_a_transposed_scan() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.random((5, 3, 2)) < 0.4
    found = np.sort(gaps.by_columns(np.flatnonzero(matrix), matrix.shape))
    assert found.tolist() == np.flatnonzero(matrix.reshape(5, 6).T).tolist()
    assert sorted(gaps.by_rows(found, matrix.shape)) == np.flatnonzero(matrix).tolist()
