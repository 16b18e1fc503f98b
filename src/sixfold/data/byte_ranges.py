"""Where a file's bytes are: in a file of their own, or in a stretch of an archive.

An `Extent` is small and picklable, so a worker can be told what to read without being handed it.
"""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

from sixfold.core.errors import UserError
from sixfold.data import paths
from sixfold.data.images import BadImageError, check_head

MOST_BYTES = 2**31
"""Of a file that is read whole, such as a batch of CIFAR-10: what a forged size may ask for."""

MOST_PICTURE_BYTES = 2**28
"""Of one encoded picture: Pillow decodes at most 179 million pixels, mostly of less than a byte."""

HEAD_BYTES = 2**14  # Of a packed picture that are looked at before the rest is unpacked
BLOCK_BYTES = 2**20
SPARE_BYTES = 2**29  # What stays free on a disk that temporary copies are written to


class Extent(NamedTuple):
    """Some bytes."""

    path: str
    offset: int = 0  # where they begin in it
    size: int | None = None  # how many there are in the file; None: all of it
    # how many there will be once inflated (zip's deflate); None: they are not packed
    unpacked: int | None = None
    crc: int | None = None  # CRC-32 that they must have (unpacked), if known
    missing: str | None = None  # why they cannot be had, whatever the rest says


def too_large(size: int, most: int = MOST_PICTURE_BYTES) -> str:
    """The reason why so many bytes are not read."""
    what = "a picture has" if most == MOST_PICTURE_BYTES else "it may have"
    return f"claims to have {size} bytes: {what} at most {most}"


def copy_to(target: Path, source: Any, path: str, most: int = 2**63) -> None:
    """Write a stream, at most `most` bytes, to a temporary file, as far as the disk allows."""
    room = shutil.disk_usage(target.parent).free - SPARE_BYTES
    with target.open("wb") as file:
        while block := source.read(min(BLOCK_BYTES, most)):
            room -= len(block)
            most -= len(block)
            if room < 0:
                raise UserError(
                    f"{path}: unpacks to more than the disk of {target.parent} has room for "
                    f"({file.tell()} bytes so far): unpack it yourself, or set SIXFOLD_CACHE"
                )
            file.write(block)


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

    def read(self, extent: Extent, *, most: int = MOST_BYTES, picture: bool = False) -> bytes:
        """The bytes; a `picture` that begins like none is not unpacked."""
        if extent.missing is not None:
            raise BadImageError(extent.missing)
        most = MOST_PICTURE_BYTES if picture else most
        try:
            if extent.size is None:
                return _whole(extent.path, most)
            if max(extent.size, extent.unpacked or 0) > most:
                raise BadImageError(too_large(max(extent.size, extent.unpacked or 0), most))
            with paths.explained(extent.path):
                return self._stretch(extent, extent.size, picture)
        except UserError as error:
            reason = error.problems[0].removeprefix(f"{extent.path}: ")
            raise BadImageError(reason) from None

    def _stretch(self, extent: Extent, size: int, picture: bool) -> bytes:
        if extent.path not in self._open:
            self._open[extent.path] = paths.open_file(extent.path)
        file = self._open[extent.path]
        file.seek(extent.offset)
        data = file.read(size)
        if len(data) != size:
            raise BadImageError(f"cut off after {len(data)} of {size} bytes")
        if extent.unpacked is not None:
            data = _inflate(data, extent.unpacked, picture)
        if extent.crc is not None and zlib.crc32(data) != extent.crc:
            raise BadImageError("wrong checksum in the archive")
        return data


def _whole(path: str, most: int) -> bytes:
    """All of a file, unless it is too large."""
    if not paths.is_url(path):
        with paths.explained(path):
            size = Path(path).stat().st_size
        if size > most:
            raise BadImageError(too_large(size, most))
    return paths.read_file(path)


def _inflate(data: bytes, size: int, picture: bool) -> bytes:
    try:
        if picture and size > HEAD_BYTES:
            check_head(zlib.decompressobj(-15).decompress(data, HEAD_BYTES))
        # One byte more than promised is enough to tell that the promise is broken.
        plain = zlib.decompressobj(-15).decompress(data, size + 1)
    except zlib.error as error:
        raise BadImageError(f"damaged in the archive: {error}") from None
    if len(plain) != size:
        raise BadImageError("another size in the archive than its directory says")
    return plain
