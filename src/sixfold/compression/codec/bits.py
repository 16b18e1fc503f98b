"""Symbols of a fixed number of bits, packed without gaps, most significant bit first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint16]
"""Small non-negative integers, as the coders take and give them."""

_CHUNK = 1 << 20
"""Symbols unfolded into single bits at a time; a multiple of 8, so that chunks end at bytes."""


def width_of(alphabet: int) -> int:
    """Bits for one of `alphabet` symbols.

    >>> [width_of(size) for size in (1, 2, 3, 32, 33)]
    [0, 1, 2, 5, 6]
    """
    return max(alphabet - 1, 0).bit_length()


def packed_bytes(count: int, width: int) -> int:
    """Length of `count` packed symbols of `width` bits, in bytes."""
    return (count * width + 7) // 8


def pack(symbols: NDArray[Any], width: int) -> bytes:
    """Pack (n,) symbols below 2**width.

    >>> pack(np.array([1, 2, 3]), 4).hex()
    '1230'
    """
    if width == 0:
        return b""
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint32)
    parts = [
        np.packbits((chunk.astype(np.uint32)[:, None] >> shifts & 1).astype(np.uint8)).tobytes()
        for chunk in _chunks(symbols)
    ]
    return b"".join(parts)


def unpack(data: bytes | memoryview, width: int, count: int) -> NDArray[np.uint32]:
    """The (count,) symbols that `pack` was given, of at most 32 bits each.

    >>> unpack(bytes.fromhex("1230"), 4, 3).tolist()
    [1, 2, 3]
    """
    out = np.zeros(count, np.uint32)
    if width == 0:
        return out
    octets = np.frombuffer(data, np.uint8)
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        first = start * width // 8
        bits = np.unpackbits(
            octets[first : first + packed_bytes(stop - start, width)],
            count=(stop - start) * width,
        ).reshape(-1, width)
        for column in range(width):
            out[start:stop] = out[start:stop] << 1 | bits[:, column]
    return out


def _chunks(symbols: NDArray[Any]) -> list[NDArray[Any]]:
    return [symbols[start : start + _CHUNK] for start in range(0, len(symbols), _CHUNK)]
