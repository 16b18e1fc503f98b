import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compression import huffman_reference

from sixfold.compression.codec import rans
from sixfold.compression.codec.gaps import entropy_bits

COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=40).filter(any)


@given(COUNTS, st.sampled_from([8, 12, 15]), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_words_and_states_are_the_reference_s(
    counts: list[int], precision: int, lanes: int, seed: int
) -> None:
    frequencies = rans.normalise(np.array(counts), precision)
    symbols = np.random.default_rng(seed).choice(np.flatnonzero(counts), 50).astype(np.uint16)
    words, states = rans.encode(symbols, frequencies, precision, lanes)
    slow_words, slow_states = huffman_reference.rans_encode(
        symbols.tolist(), frequencies.tolist(), precision, lanes
    )
    # The reference writes lane by lane backwards, as the decoder reads forwards.
    assert words.tolist() == slow_words
    assert states.tolist() == slow_states
    decoded = rans.decode(words, states.copy(), frequencies, precision, len(symbols))
    assert decoded.tolist() == symbols.tolist()
    slow = huffman_reference.rans_decode(
        slow_words, slow_states, frequencies.tolist(), precision, 50
    )
    assert slow == symbols.tolist()


@given(COUNTS, st.sampled_from([8, 12, 15]))
def test_frequencies_fill_the_range_and_leave_no_symbol_out(
    counts: list[int], precision: int
) -> None:
    frequencies = rans.normalise(np.array(counts), precision)
    assert int(frequencies.sum()) == 1 << precision
    assert ((frequencies > 0) == (np.array(counts) > 0)).all()


def test_size_is_within_a_thousandth_of_entropy() -> None:
    weights = 0.9 ** np.arange(64)
    symbols = np.random.default_rng(0).choice(64, 500_000, p=weights / weights.sum())
    counts = np.bincount(symbols, minlength=64)
    table = rans.coarse(counts)
    frequencies = rans.normalise(rans.weights_of(table), 12)
    words, states = rans.encode(symbols.astype(np.uint16), frequencies, 12, 64)
    bits = 8 * (words.nbytes + states.nbytes + table.nbytes)
    assert 1 <= bits / entropy_bits(counts) < 1.002


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30))
def test_coarse_counts_are_near(counts: list[int]) -> None:
    array = np.array(counts)
    found = rans.weights_of(rans.coarse(array))
    assert ((found > 0) == (array > 0)).all()
    if array.max() < 2**18:
        assert (np.abs(found - array) <= 0.04 * array).all()


def test_what_is_missing_or_left_over_is_found() -> None:
    frequencies = rans.normalise(np.array([3, 1]), 8)
    symbols = np.array([0, 1, 1, 0, 1, 1, 1, 1] * 20, np.uint16)
    words, states = rans.encode(symbols, frequencies, 8, 2)
    with pytest.raises(ValueError, match="missing"):
        rans.decode(words[:-1], states.copy(), frequencies, 8, len(symbols))
    with pytest.raises(ValueError, match="end"):
        rans.decode(np.append(words, [1]).astype(np.uint16), states, frequencies, 8, len(symbols))
