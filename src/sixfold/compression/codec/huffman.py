"""Canonical Huffman coding in many lanes, decoded in lockstep by NumPy.

D. A. Huffman, "A method for the construction of minimum-redundancy codes", Proc. IRE 40, 1952;
code lengths limited by the package-merge algorithm: L. Larmore, D. Hirschberg, "A fast algorithm
for optimal length-limited Huffman codes", JACM 37, 1990.

A canonical code follows from its lengths alone: codes of one length are consecutive numbers, in
the order of the symbols. The symbols are dealt to S lanes in turn (symbol i to lane i mod S), and
every lane is a bit string of its own. The strings follow each other without gaps, and the lanes'
lengths are stored, so that one step decodes one symbol of every lane: a dozen NumPy operations on
S elements each. `tests.compression.huffman_reference` does the same bit by bit.
"""

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.compression.codec.wire import Symbols

LONGEST = 12
"""Bits of the longest code: the decoding table of 2**12 entries stays in the first-level cache.
Against unlimited lengths this costs less than 0.01 bits a symbol on 257 symbols."""

LARGEST_ALPHABET = 1 << (LONGEST - 1)
_CHUNK = 1 << 20  # Symbols whose codes are put into the bit string at a time


def code_lengths(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The lengths of an optimal prefix code of at most `LONGEST` bits, by package-merge.

    From (A,) counts to (A,) bits; 0 for symbols that do not occur. A single symbol gets 1 bit.
    """
    present = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(present) > LARGEST_ALPHABET:
        raise ValueError(f"{len(present)} symbols are more than {LARGEST_ALPHABET}")
    if len(present) == 1:
        lengths[present] = 1
    if len(present) < 2:
        return lengths
    coins = sorted((int(counts[symbol]), (int(symbol),)) for symbol in present)
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(LONGEST):
        merged = list(heapq.merge(coins, packages))
        packages = [
            (a[0] + b[0], a[1] + b[1]) for a, b in zip(merged[::2], merged[1::2], strict=False)
        ]
    # The cheapest n - 1 packages of the last level; each symbol's length is how often it is there.
    for _, symbols in packages[: len(present) - 1]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def canonical_codes(lengths: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The codes that follow from the lengths, (A,); right-aligned."""
    codes = np.zeros(len(lengths), np.uint32)
    code, before = 0, 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        length = int(lengths[symbol])
        if length == 0:
            continue
        code <<= length - before
        codes[symbol] = code
        code, before = code + 1, length
    return codes


def is_complete(lengths: NDArray[np.uint8]) -> bool:
    """Whether lengths belong to a prefix code in which every bit string means something.

    A single symbol of one bit is allowed, though half of the strings mean nothing then.
    """
    used = lengths[lengths > 0].astype(np.int64)
    if len(used) == 0 or used.max() > LONGEST:
        return False
    return len(used) == 1 or int((1 << (LONGEST - used)).sum()) == 1 << LONGEST


def encode(
    symbols: NDArray[Any], lengths: NDArray[np.uint8], lanes: int
) -> tuple[bytes, NDArray[np.int64]]:
    """Code (n,) symbols in S lanes.

    The bit strings of all lanes, one behind the other, filled up with zero bits to whole bytes; and
    (S,) how many bits each lane has.
    """
    codes = canonical_codes(lengths)
    whole = (
        np.concatenate([symbols[lane::lanes] for lane in range(lanes)]) if lanes > 1 else symbols
    )
    bits = lengths[whole].astype(np.int64)
    ends = np.cumsum(bits)
    per_lane = (len(symbols) - np.arange(lanes) + lanes - 1) // lanes
    lane_ends = np.concatenate([[0], ends])[np.cumsum(per_lane)]
    total = int(ends[-1]) if len(ends) else 0
    out = np.zeros((total + 7) // 8 + 3, np.uint8)
    for start in range(0, len(whole), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        _write(out, codes[whole[chunk]], bits[chunk], ends[chunk] - bits[chunk])
    return out[: (total + 7) // 8].tobytes(), np.diff(lane_ends, prepend=0)


def _write(
    out: NDArray[np.uint8],
    codes: NDArray[np.uint32],
    bits: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> None:
    """Put codes into the bit string; each lies within three bytes, and no two share a bit."""
    base = int(starts[0]) >> 3
    octet = (starts >> 3) - base
    placed = codes << (24 - bits - (starts & 7)).astype(np.uint32)
    length = int(octet[-1]) + 1
    for plane in range(3):
        part = (placed >> np.uint32(16 - 8 * plane)) & np.uint32(255)
        # Sums instead of ors: the bits of different codes never meet. Exact in float64.
        sums = np.bincount(octet, weights=part, minlength=length).astype(np.uint8)
        out[base + plane : base + plane + length] += sums


def decode(
    data: bytes | memoryview, lane_bits: NDArray[np.int64], lengths: NDArray[np.uint8], count: int
) -> Symbols:
    """Decode what `encode` made; ValueError if a lane does not end where it should."""
    lanes = len(lane_bits)
    ends = np.cumsum(lane_bits)
    if int(ends[-1]) > 8 * len(data):
        raise ValueError("the lanes are longer than the data")
    windows = _windows(np.frombuffer(data, np.uint8))
    table = _table(lengths)
    place = ends - lane_bits
    out = np.empty(count, np.uint16)
    for start in range(0, count, lanes):
        some = place[: count - start]  # the last step may have fewer symbols than lanes
        # A crafted file may run beyond its end: clipped here, found out below.
        window = windows.take(some >> 3, mode="clip")
        window <<= (some & 7).astype(np.uint32)
        window >>= np.uint32(32 - LONGEST)
        entry = table.take(window, mode="clip")
        out[start : start + len(some)] = entry >> np.uint32(8)
        some += entry & np.uint32(255)
    if not np.array_equal(place, ends):
        raise ValueError("a lane does not end where it should")
    return out


def _windows(octets: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The 32 bits that begin at every byte."""
    padded = np.concatenate([octets, np.zeros(4, np.uint8)]).astype(np.uint32)
    stop = len(octets) + 1
    windows = np.zeros(stop, np.uint32)
    for number in range(4):
        windows |= padded[number : number + stop] << np.uint32(24 - 8 * number)
    return windows


def _table(lengths: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """For every `LONGEST` bits the symbol they begin with, times 256, plus its length."""
    codes = canonical_codes(lengths)
    table = np.full(1 << LONGEST, LONGEST, np.uint32)
    for symbol in np.flatnonzero(lengths):
        length = int(lengths[symbol])
        first = int(codes[symbol]) << (LONGEST - length)
        table[first : first + (1 << (LONGEST - length))] = int(symbol) << 8 | length
    return table
