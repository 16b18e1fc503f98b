"""The compression's codecs once more, slow and obvious: one bit, symbol or weight at a time.

Tests hold the fast ones to these, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sixfold.compression.codec.rans import LOWEST_STATE


def canonical(lengths: Sequence[int]) -> dict[int, str]:
    """Symbol to code, as text of 0 and 1, from the lengths of a canonical code.

    >>> canonical([1, 2, 0, 2])
    {0: '0', 1: '10', 3: '11'}
    """
    codes: dict[int, str] = {}
    code, before = 0, 0
    for length, symbol in sorted((n, s) for s, n in enumerate(lengths) if n):
        code <<= length - before
        codes[symbol] = f"{code:0{length}b}"
        code, before = code + 1, length
    return codes


def huffman_encode(symbols: Sequence[int], lengths: Sequence[int], lanes: int) -> list[str]:
    """The bit string of every lane, as text."""
    codes = canonical(lengths)
    return ["".join(codes[symbol] for symbol in symbols[lane::lanes]) for lane in range(lanes)]


def huffman_decode(strings: Sequence[str], lengths: Sequence[int], count: int) -> list[int]:
    """The symbols, taken from the lanes in turn."""
    symbols = {code: symbol for symbol, code in canonical(lengths).items()}
    places = [0] * len(strings)
    out = []
    for number in range(count):
        lane, code = number % len(strings), ""
        while code not in symbols:
            code += strings[lane][places[lane]]
            places[lane] += 1
        out.append(symbols[code])
    return out


def rans_encode(
    symbols: Sequence[int], frequencies: Sequence[int], precision: int, lanes: int
) -> tuple[list[int], list[int]]:
    """Words in the decoder's order, and the decoder's first states."""
    size = 1 << precision
    states, words = [LOWEST_STATE] * lanes, []
    for number in reversed(range(len(symbols))):
        symbol, lane = symbols[number], number % lanes
        frequency, before = frequencies[symbol], sum(frequencies[:symbol])
        state = states[lane]
        if state >= frequency << (32 - precision):
            words.append(state & 0xFFFF)
            state >>= 16
        states[lane] = state // frequency * size + before + state % frequency
    return words[::-1], states


def rans_decode(
    words: Sequence[int],
    states: Sequence[int],
    frequencies: Sequence[int],
    precision: int,
    count: int,
) -> list[int]:
    """The symbols, taken from the lanes in turn."""
    size, read, states, out = 1 << precision, 0, list(states), []
    for number in range(count):
        lane = number % len(states)
        slot = states[lane] % size
        symbol, before = 0, 0
        while before + frequencies[symbol] <= slot:
            before += frequencies[symbol]
            symbol += 1
        states[lane] = frequencies[symbol] * (states[lane] // size) + slot - before
        if states[lane] < LOWEST_STATE:
            states[lane] = states[lane] << 16 | words[read]
            read += 1
        out.append(symbol)
    return out


def relative_index(flat: Sequence[int], bits: int) -> tuple[list[int], list[int]]:
    """Gaps and symbols of a flat tensor of symbols, of which 0 is absent, with filler zeros."""
    furthest = (1 << bits) - 1
    gaps, symbols, zeros = [], [], 0
    for symbol in flat:
        if symbol or zeros == furthest:
            gaps.append(zeros)
            symbols.append(symbol)
            zeros = 0
        else:
            zeros += 1
    while symbols and not symbols[-1]:  # fillers behind the last value lead nowhere
        gaps.pop()
        symbols.pop()
    return gaps, symbols


def nearest(values: Sequence[float], centroids: Sequence[float]) -> list[int]:
    """For each value the number of the nearest centroid; of two equally near, the lower."""
    return [
        min(range(len(centroids)), key=lambda k: (abs(value - centroids[k]), k)) for value in values
    ]


def k_means(values: Sequence[float], centroids: Sequence[float], rounds: int) -> list[float]:
    """Lloyd's algorithm: to the nearest centroid, then centroids to the means of their values."""
    found = list(centroids)
    for _ in range(rounds):
        groups: list[list[float]] = [[] for _ in found]
        for value, cluster in zip(values, nearest(values, found), strict=True):
            groups[cluster].append(value)
        found = [math.fsum(g) / len(g) if g else c for g, c in zip(groups, found, strict=True)]
    return found
