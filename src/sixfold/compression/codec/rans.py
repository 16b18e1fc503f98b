"""Range asymmetric numeral systems (rANS) in many lanes, in lockstep by NumPy.

J. Duda, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with
compression rate of arithmetic coding", arXiv:1311.2540, 2013; lanes as in F. Giesen, "Interleaved
entropy coders", arXiv:1402.3392, 2014.

The coder's state is a whole number x. With M = 2**precision, a symbol s of frequency f out of M
and sum c of the frequencies before it:

    encode   x -> (x // f) M + c + x mod f
    decode   s is where x mod M falls;   x -> f (x // M) + x mod M - c

States are kept in [2**16, 2**32): before a symbol is encoded that would lift x beyond, the lower 16
bits are written out; after one is decoded that leaves x below, 16 bits are read in. The symbols are
dealt to S lanes in turn (symbol i to lane i mod S), each with a state of its own; all share one
sequence of 16-bit words, read in the order of the lanes. Arithmetic is on whole numbers only, so
the format does not depend on a library or a machine. `tests.compression.huffman_reference` does the
same symbol by symbol.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.compression.codec.wire import Symbols

LOWEST_STATE = 1 << 16
PRECISIONS = range(8, 16)
"""Binary logarithms of M that the format allows; states need 2**16 M to fit into 32 bits."""

_WORD = np.uint32(16)


def encode(
    symbols: NDArray[Any], frequencies: NDArray[np.uint32], precision: int, lanes: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Code (n,) symbols in S lanes by (A,) frequencies with sum 2**precision.

    The words, in the order in which the decoder reads them; and its first states, (S,).
    """
    shift = np.uint32(precision)
    limit = np.uint32(32 - precision)
    before = (np.cumsum(frequencies) - frequencies).astype(np.uint32)
    state = np.full(lanes, LOWEST_STATE, np.uint32)
    words: list[NDArray[np.uint16]] = []
    for start in reversed(range(0, len(symbols), lanes)):
        now = symbols[start : start + lanes]
        some = state[: len(now)]
        frequency = frequencies[now]
        full = np.flatnonzero((some >> limit) >= frequency)
        if len(full):
            words.append(some[full].astype(np.uint16))
            some[full] >>= _WORD
        quotient, rest = np.divmod(some, frequency)
        some[:] = (quotient << shift) + rest + before[now]
    words.reverse()
    return (np.concatenate(words) if words else np.empty(0, np.uint16)), state


def decode(
    words: NDArray[np.uint16],
    states: NDArray[np.uint32],
    frequencies: NDArray[np.uint32],
    precision: int,
    count: int,
) -> Symbols:
    """Decode what `encode` made; `states` is overwritten.

    ValueError if words are missing or left over, or the states do not end where the encoder began.
    """
    lanes, mask, shift = len(states), np.uint32((1 << precision) - 1), np.uint32(precision)
    symbol_of, step_of = _tables(frequencies)
    out = np.empty(count, np.uint16)
    read = 0
    for start in range(0, count, lanes):
        some = states[: count - start]
        slot = some & mask
        out[start : start + len(some)] = symbol_of.take(slot)
        step = step_of.take(slot)
        some >>= shift
        some *= step & np.uint32(0xFFFF)
        some += step >> _WORD
        low = np.flatnonzero(some < LOWEST_STATE)
        if len(low):
            fresh = words[read : read + len(low)]
            if len(fresh) < len(low):
                raise ValueError("words are missing")
            some[low] = some[low] << _WORD | fresh
            read += len(low)
    if read != len(words) or not (states == LOWEST_STATE).all():
        raise ValueError("the lanes do not end where they should")
    return out


def _tables(frequencies: NDArray[np.uint32]) -> tuple[Symbols, NDArray[np.uint32]]:
    """For every slot, (M,): its symbol; and its frequency plus 2**16 times its place in that."""
    symbol_of = np.repeat(np.arange(len(frequencies), dtype=np.uint16), frequencies)
    before = np.cumsum(frequencies) - frequencies
    inside = np.arange(len(symbol_of), dtype=np.uint32) - before[symbol_of].astype(np.uint32)
    return symbol_of, frequencies[symbol_of] | inside << _WORD


def coarse(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Counts (A,) as one byte each, in proportion within 3%: the tables in a file.

    A byte b stands for b below 32, above for (16 + b mod 16) 2**(b // 16 - 1). Counts too large for
    that are all halved until they fit; 0 stands only for what does not occur.

    >>> coarse(np.array([0, 1, 31, 100, 1000])).tolist()
    [0, 1, 31, 57, 111]
    >>> weights_of(np.array([57, 111], np.uint8)).tolist()
    [100, 992]
    """
    known = weights_of(np.arange(256, dtype=np.uint8))
    halvings = max(int(counts.max(initial=0)).bit_length() - int(known[-1]).bit_length(), 0)
    scaled = counts >> halvings
    above = np.clip(np.searchsorted(known, scaled), 1, 255)
    nearer = scaled - known[above - 1] < known[above] - scaled
    found = np.where(nearer, above - 1, above)
    return np.where(counts > 0, np.maximum(found, 1), 0).astype(np.uint8)


def weights_of(table: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What the bytes of `coarse` stand for, (A,)."""
    wide = table.astype(np.int64)
    return np.where(wide < 32, wide, (16 + wide % 16) << np.maximum(wide // 16 - 1, 0))


def normalise(weights: NDArray[np.int64], precision: int) -> NDArray[np.uint32]:
    """Frequencies with sum 2**precision, in proportion to weights and at least 1 for each above 0.

    Whole numbers only: every symbol gets the floor of its share, at least 1; what is missing or
    too much is then settled at the symbols of the largest frequency, one after another, the first
    of equals first.
    """
    size = 1 << precision
    total = sum(int(weight) for weight in weights)
    shares = [max(int(weight) * size // total, 1) if weight else 0 for weight in weights]
    frequencies = np.array(shares, np.int64)
    missing = size - int(frequencies.sum())
    if missing > 0:
        frequencies[int(frequencies.argmax())] += missing
    while missing < 0:
        largest = int(frequencies.argmax())
        # Never below half: a large surplus is spread over several symbols.
        taken = min(-missing, max(int(frequencies[largest]) // 2, 1))
        frequencies[largest] -= taken
        missing += taken
    return frequencies.astype(np.uint32)
