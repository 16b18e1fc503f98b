import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compression import huffman_reference

from sixfold.compression.codec import huffman

COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=60).filter(any)


def optimal_bits(counts: list[int]) -> int:
    """Total length by Huffman's own construction, without a limit."""
    heap = [count for count in counts if count]
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        total += pair
        heapq.heappush(heap, pair)
    return total


@given(COUNTS)
def test_lengths_are_optimal_where_the_limit_does_not_bind(counts: list[int]) -> None:
    lengths = huffman.code_lengths(np.array(counts))
    assert huffman.is_complete(lengths)
    assert ((lengths > 0) == (np.array(counts) > 0)).all()
    if lengths.max() < huffman.LONGEST:
        assert int((lengths * np.array(counts)).sum()) == optimal_bits(counts)


def test_lengths_are_limited_at_little_cost() -> None:
    counts = np.array([2**k for k in range(40)])  # Huffman's own code would have 39 bits
    lengths = huffman.code_lengths(counts)
    assert lengths.max() == huffman.LONGEST
    assert huffman.is_complete(lengths)
    assert int((lengths * counts).sum()) < 1.01 * optimal_bits(counts.tolist())


@given(COUNTS, st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_lanes_are_the_reference_s_bit_strings(counts: list[int], lanes: int, seed: int) -> None:
    lengths = huffman.code_lengths(np.array(counts))
    present = np.flatnonzero(counts)
    symbols = np.random.default_rng(seed).choice(present, max(lanes, 23)).astype(np.uint16)
    strings = huffman_reference.huffman_encode(symbols.tolist(), lengths.tolist(), lanes)
    data, lane_bits = huffman.encode(symbols, lengths, lanes)
    assert lane_bits.tolist() == [len(string) for string in strings]
    text = "".join(strings)
    assert data == bytes(int(text[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(text), 8))
    decoded = huffman.decode(data, lane_bits, lengths, len(symbols))
    assert decoded.tolist() == symbols.tolist()
    assert (
        huffman_reference.huffman_decode(strings, lengths.tolist(), len(symbols))
        == symbols.tolist()
    )


def test_codes_of_one_length_are_consecutive() -> None:
    lengths = np.array([3, 0, 2, 3, 1], np.uint8)
    codes = huffman_reference.canonical(lengths.tolist())
    assert codes == {4: "0", 2: "10", 0: "110", 3: "111"}
    fast = huffman.canonical_codes(lengths)
    assert {s: f"{fast[s]:0{lengths[s]}b}" for s in codes} == codes


@pytest.mark.parametrize("lengths", [[], [0, 0], [1, 2], [1, 1, 1], [13, 13], [2, 2, 2]])
def test_lengths_that_make_no_code_are_found(lengths: list[int]) -> None:
    assert not huffman.is_complete(np.array(lengths, np.uint8))


def test_a_lane_that_ends_elsewhere_is_found() -> None:
    lengths = np.array([1, 2, 2], np.uint8)
    data, lane_bits = huffman.encode(np.array([0, 1, 2, 0, 1]), lengths, 2)
    moved = lane_bits + np.array([1, -1])
    with pytest.raises(ValueError, match="where it should"):
        huffman.decode(data, moved, lengths, 5)
