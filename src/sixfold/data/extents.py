"""Where a file's bytes are: in a file of their own, or in a stretch of an archive.

An `Extent` is small and picklable, so a worker can be told what to read without being handed it.
"""

from __future__ import annotations

import zlib
from typing import IO, NamedTuple

from sixfold.data import paths
from sixfold.data.images import BadImageError
from sixfold.errors import UserError

MOST_BYTES = 2**31
"""Of one member of an archive: far above any image, far below what a forged size would ask for."""


class Extent(NamedTuple):
    """Some bytes.

    Attributes:
        path: file or URL.
        offset: where they begin in it.
        size: how many there are in the file; None: all of it.
        unpacked: how many there will be once inflated (zip's deflate); None: they are not packed.
        crc: CRC-32 that they must have (unpacked), if known.
    """

    path: str
    offset: int = 0
    size: int | None = None
    unpacked: int | None = None
    crc: int | None = None


class ExtentReader:
    """Reads extents, keeping the archive open between them; to be used in a `with`."""

    def __init__(self) -> None:
        self._open: dict[str, IO[bytes]] = {}

    def __enter__(self) -> ExtentReader:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def read(self, extent: Extent) -> bytes:
        """The bytes.

        Raises:
            BadImageError: if they are not there, or damaged.
        """
        try:
            if extent.size is None:
                return paths.read_file(extent.path)
            with paths.explained(extent.path):
                return self._stretch(extent, extent.size)
        except UserError as error:
            reason = error.problems[0].removeprefix(f"{extent.path}: ")
            raise BadImageError(reason) from None

    def _stretch(self, extent: Extent, size: int) -> bytes:
        if max(size, extent.unpacked or 0) > MOST_BYTES:
            raise BadImageError(f"claims to have {max(size, extent.unpacked or 0)} bytes")
        if extent.path not in self._open:
            self._open[extent.path] = paths.open_file(extent.path)
        file = self._open[extent.path]
        file.seek(extent.offset)
        data = file.read(size)
        if len(data) != size:
            raise BadImageError(f"cut off after {len(data)} of {size} bytes")
        if extent.unpacked is not None:
            data = _inflate(data, extent.unpacked)
        if extent.crc is not None and zlib.crc32(data) != extent.crc:
            raise BadImageError("wrong checksum in the archive")
        return data


def _inflate(data: bytes, size: int) -> bytes:
    try:
        # One byte more than promised is enough to tell that the promise is broken.
        plain = zlib.decompressobj(-15).decompress(data, size + 1)
    except zlib.error as error:
        raise BadImageError(f"damaged in the archive: {error}") from None
    if len(plain) != size:
        raise BadImageError("another size in the archive than its directory says")
    return plain
