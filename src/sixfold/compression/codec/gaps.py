"""Where a sparse tensor's entries are: relative indices with filler zeros.

S. Han, H. Mao, W. Dally, "Deep compression: compressing deep neural networks with pruning, trained
quantization and Huffman coding", ICLR 2016, section 2: instead of its index, every entry stores how
many zeros lie between it and the entry before, in b bits. Where there are 2**b or more, a filler
entry of value zero is put behind the first 2**b - 1 of them. Zeros behind the last entry are not
stored: the tensor's size tells them.

A tensor may be scanned by its rows (dim 0 first, as it lies in memory) or by its columns (dim 0
last), whichever has the more regular gaps: pixels at the border of an image leave whole columns of
a linear layer empty.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.compression.codec.wire import Symbols

MOST_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """The entries of a flat tensor of symbols."""

    gaps: Symbols  # (n,) zeros before each entry, below 2**bits
    symbols: Symbols  # (n,) of each entry, 0 for fillers
    bits: int  # b

    @property
    def fillers(self) -> int:
        """How many entries stand for nothing but distance."""
        return int((self.symbols == 0).sum())


def encode(places: NDArray[np.int64], symbols: NDArray[Any], bits: int) -> Sparse:
    """Relative indices of entries: (n,) flat indices, ascending, and (n,) symbols above 0.

    >>> found = encode(np.array([1, 20]), np.array([7, 8]), bits=3)
    >>> found.gaps.tolist(), found.symbols.tolist()
    ([1, 7, 7, 2], [7, 0, 0, 8])
    """
    distance = np.diff(places, prepend=-1) - 1
    fillers = distance >> bits
    own = np.arange(len(places)) + np.cumsum(fillers)
    total = int(own[-1]) + 1 if len(own) else 0
    gaps = np.full(total, (1 << bits) - 1, np.uint16)
    values = np.zeros(total, np.uint16)
    gaps[own] = distance & ((1 << bits) - 1)
    values[own] = symbols
    return Sparse(gaps=gaps, symbols=values, bits=bits)


def places_of(gaps: Symbols) -> NDArray[np.int64]:
    """Flat index of every entry, fillers among them, (n,)."""
    steps = gaps.astype(np.int64)
    steps += 1
    np.cumsum(steps, out=steps)
    steps -= 1
    return steps


def best_bits(
    places: NDArray[np.int64], symbols: NDArray[Any], size_of: Callable[[NDArray[Any]], float]
) -> tuple[int, float]:
    """How many bits of a gap make the file smallest, and the size of gaps and symbols in bits.

    `size_of` gives the bits that a coder needs for symbols of given counts.
    """
    distance = np.diff(places, prepend=-1) - 1
    counts = np.bincount(symbols, minlength=1)
    options = []
    for bits in range(1, MOST_BITS + 1):
        fillers = int((distance >> bits).sum())
        gaps = np.bincount(distance & ((1 << bits) - 1), minlength=1 << bits)
        gaps[-1] += fillers
        with_fillers = counts.copy()
        with_fillers[0] = fillers
        options.append((size_of(gaps) + size_of(with_fillers), bits))
    size, bits = min(options)
    return bits, size


def entropy_bits(counts: NDArray[Any]) -> float:
    """Bits that symbols of these counts need at least, by a coder that knows just the counts."""
    used = counts[counts > 0].astype(np.float64)
    return float((used * np.log2(used.sum() / used)).sum()) if len(used) else 0.0


def by_columns(places: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Places by rows to places by columns (dim 0 last); not sorted."""
    rows, columns = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    row, column = np.divmod(places, columns)
    found: NDArray[np.int64] = column * rows + row
    return found


def by_rows(places: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """What `by_columns` made, back to places by rows."""
    rows, columns = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    column, row = np.divmod(places, rows)
    found: NDArray[np.int64] = row * columns + column
    return found
