"""Small tables as few bits: differences of neighbours by a Rice code.

R. F. Rice, "Some practical universal noiseless coding techniques", JPL publication 79-22, 1979. The
tables of a code are smooth: weights are distributed as a bell and gaps as a slope, so neighbours
differ little. A difference d is made the number 2d, or -2d - 1 below zero; its part above k bits is
written in unary (so many ones and a zero), the lower k bits as they are. k, the first 3 bits, is
whichever makes the table shortest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PARAMETERS = range(8)
_PARAMETER_BITS = 3


def pack_table(table: Sequence[int]) -> bytes:
    """A table of numbers from 0 to 255 as bytes.

    >>> len(pack_table([20, 21, 23, 22, 20, 17, 15, 12, 10, 9]))
    6
    """
    folded = _folded(table)
    k = int(np.argmin(_sizes(folded)))
    text = [f"{k:0{_PARAMETER_BITS}b}"]
    for value in folded.tolist():
        text.append("1" * (value >> k) + "0" + (f"{value & (1 << k) - 1:0{k}b}" if k else ""))
    bits = np.frombuffer("".join(text).encode(), np.uint8) - ord("0")
    return np.packbits(bits).tobytes()


def packed_size(table: Sequence[int] | NDArray[np.uint8]) -> int:
    """Bytes that `pack_table` makes, without making them.

    >>> packed_size([20, 21, 23, 22, 20, 17, 15, 12, 10, 9])
    6
    """
    return -(-(_PARAMETER_BITS + min(_sizes(_folded(table)))) // 8)


def _folded(table: Sequence[int] | NDArray[np.uint8]) -> NDArray[np.int64]:
    """Differences of neighbours as numbers from 0 on."""
    differences = np.diff(np.asarray(table, np.int64), prepend=0)
    return np.where(differences >= 0, 2 * differences, -2 * differences - 1)


def _sizes(folded: NDArray[np.int64]) -> list[int]:
    """Bits of the numbers for every parameter k."""
    return [int((folded >> k).sum()) + len(folded) * (k + 1) for k in _PARAMETERS]


def unpack_table(data: bytes | memoryview, count: int) -> NDArray[np.uint8]:
    """The table of `count` numbers that `pack_table` was given; ValueError if there is none.

    >>> unpack_table(pack_table([3, 250, 0]), 3).tolist()
    [3, 250, 0]
    """
    text = "".join(f"{octet:08b}" for octet in bytes(data))
    if len(text) < _PARAMETER_BITS + count:
        raise ValueError("a table is too short")
    k, at = int(text[:_PARAMETER_BITS], 2), _PARAMETER_BITS
    out, value = np.zeros(count, np.uint8), 0
    for number in range(count):
        end = text.find("0", at)
        if end < 0 or end + 1 + k > len(text):
            raise ValueError("a table ends in the middle")
        low = text[end + 1 : end + 1 + k]
        folded = (end - at) << k | (int(low, 2) if k else 0)
        value += folded >> 1 if folded % 2 == 0 else -(folded >> 1) - 1
        if not 0 <= value <= 255:
            raise ValueError("a table holds a number that is no byte")
        out[number] = value
        at = end + 1 + k
    if len(text) - at >= 8 or "1" in text[at:]:
        raise ValueError("a table is too long")
    return out
