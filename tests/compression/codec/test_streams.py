"""Streams of symbols: every coder gives back what it was given; rANS is near the entropy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.compression.codec.streams import CODERS, decode_stream, encode_stream, size_bits
from sixfold.compression.codec.wire import Reader


def gaps(
    kept: float, alphabet: int, n: int = 235_200
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Zeros before each entry that is kept at random; the last symbol stands for a filler."""
    mask = np.random.default_rng(0).random(n) < kept
    found = np.diff(np.concatenate([[-1], np.flatnonzero(mask)])) - 1
    symbols: list[int] = []
    for gap in found.tolist():
        symbols += [alphabet - 1] * (gap // (alphabet - 1)) + [gap % (alphabet - 1)]
    return np.array(symbols)


@pytest.mark.parametrize(("kept", "alphabet"), [(0.08, 32), (0.06, 256), (0.05, 256), (0.03, 256)])
def test_rans_is_within_one_percent_of_the_entropy_of_gaps(kept: float, alphabet: int) -> None:
    symbols = gaps(kept, alphabet)
    counts = np.bincount(symbols, minlength=alphabet)
    shares = counts[counts > 0] / len(symbols)
    entropy_bytes = -(counts[counts > 0] * np.log2(shares)).sum() / 8
    coded = encode_stream(symbols, alphabet, "ans")
    assert (decode_stream(Reader(coded), len(symbols), alphabet) == symbols).all()
    assert len(coded) <= 1.01 * entropy_bytes
    assert size_bits(counts, "ans") / 8 == pytest.approx(len(coded), rel=0.01)


@given(
    st.integers(1, 300).flatmap(
        lambda alphabet: st.tuples(
            st.just(alphabet), st.lists(st.integers(0, alphabet - 1), max_size=400)
        )
    ),
    st.sampled_from(CODERS),
)
def test_any_symbols_come_back(case: tuple[int, list[int]], coder: str) -> None:
    alphabet, symbols = case
    coded = encode_stream(np.array(symbols, np.int64), alphabet, coder)
    reader = Reader(coded)
    assert decode_stream(reader, len(symbols), alphabet).tolist() == symbols
    assert reader.left == 0
