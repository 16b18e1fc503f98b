"""Whole numbers as bytes and back: varints, fixed widths without gaps, and Rice-coded tables.

A file may be damaged: `Reader` checks every length before anything follows from it.

Small tables (R. F. Rice, "Some practical universal noiseless coding techniques", JPL publication
79-22, 1979): those of a code are smooth, since weights are distributed as a bell and gaps as a
slope, so neighbours differ little. A difference d is made the number 2d, or -2d - 1 below zero; its
part above k bits is written in unary (so many ones and a zero), the lower k bits as they are. k,
the first 3 bits, is whichever makes the table shortest.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import SixfoldError

Symbols = NDArray[np.uint16]  # Small non-negative integers, as the coders take and give them
_CHUNK = 1 << 20
"""Symbols unfolded into single bits at a time; a multiple of 8, so that chunks end at bytes."""


def width_of(alphabet: int) -> int:
    """Bits for one of `alphabet` symbols."""
    return max(alphabet - 1, 0).bit_length()


def packed_bytes(count: int, width: int) -> int:
    """Length of `count` packed symbols of `width` bits, in bytes."""
    return (count * width + 7) // 8


def pack(symbols: NDArray[Any], width: int) -> bytes:
    """Pack (n,) symbols below 2**width."""
    if width == 0:
        return b""
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint32)
    parts = [
        np.packbits((chunk.astype(np.uint32)[:, None] >> shifts & 1).astype(np.uint8)).tobytes()
        for chunk in _chunks(symbols)
    ]
    return b"".join(parts)


def unpack(data: bytes | memoryview, width: int, count: int) -> NDArray[np.uint32]:
    """The (count,) symbols that `pack` was given, of at most 32 bits each."""
    out = np.zeros(count, np.uint32)
    if width == 0:
        return out
    octets = np.frombuffer(data, np.uint8)
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        first = start * width // 8
        bits = np.unpackbits(
            octets[first : first + packed_bytes(stop - start, width)], count=(stop - start) * width
        ).reshape(-1, width)
        for column in range(width):
            out[start:stop] = out[start:stop] << 1 | bits[:, column]
    return out


def _chunks(symbols: NDArray[Any]) -> list[NDArray[Any]]:
    return [symbols[start : start + _CHUNK] for start in range(0, len(symbols), _CHUNK)]


class DamagedError(SixfoldError):
    """Bytes that no writer of this format can have written."""


def varint(value: int) -> bytes:
    """A whole number in 7-bit groups, lowest first; the high bit says that more follow."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    """Takes bytes one after another."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self._data) - self._at

    def take(self, length: int) -> memoryview:
        """The next bytes, not copied."""
        if length > self.left:
            raise DamagedError(f"{length} bytes are announced where {self.left} are left")
        self._at += length
        return self._data[self._at - length : self._at]

    def octet(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self, most: int) -> int:
        """The next number, refused above `most`."""
        value = 0
        for shift in range(0, 64, 7):
            octet = self.octet()
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                if value > most:
                    raise DamagedError(f"{value} stands where at most {most} makes sense")
                return value
        raise DamagedError("a number has no end")

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self.left:
            raise DamagedError(f"{self.left} bytes too many")


_PARAMETERS = range(8)
_PARAMETER_BITS = 3


def pack_table(table: Sequence[int]) -> bytes:
    """A table of numbers from 0 to 255 as bytes."""
    folded = _folded(table)
    k = int(np.argmin(_sizes(folded)))
    text = [f"{k:0{_PARAMETER_BITS}b}"]
    for value in folded.tolist():
        text.append("1" * (value >> k) + "0" + (f"{value & (1 << k) - 1:0{k}b}" if k else ""))
    bits = np.frombuffer("".join(text).encode(), np.uint8) - ord("0")
    return np.packbits(bits).tobytes()


def packed_size(table: Sequence[int] | NDArray[np.uint8]) -> int:
    """Bytes that `pack_table` makes, without making them."""
    return -(-(_PARAMETER_BITS + min(_sizes(_folded(table)))) // 8)


def _folded(table: Sequence[int] | NDArray[np.uint8]) -> NDArray[np.int64]:
    """Differences of neighbours as numbers from 0 on."""
    differences = np.diff(np.asarray(table, np.int64), prepend=0)
    return np.where(differences >= 0, 2 * differences, -2 * differences - 1)


def _sizes(folded: NDArray[np.int64]) -> list[int]:
    """Bits of the numbers for every parameter k."""
    return [int((folded >> k).sum()) + len(folded) * (k + 1) for k in _PARAMETERS]


def unpack_table(data: bytes | memoryview, count: int) -> NDArray[np.uint8]:
    """The table of `count` numbers that `pack_table` was given; ValueError if there is none."""
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
