"""Reading a file that may be damaged: every length is checked before anything follows from it."""

from __future__ import annotations

from sixfold.core.errors import SixfoldError


class DamagedError(SixfoldError):
    """Bytes that no writer of this format can have written."""


def varint(value: int) -> bytes:
    """A whole number in 7-bit groups, lowest first; the high bit says that more follow.

    >>> varint(300).hex()
    'ac02'
    """
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
