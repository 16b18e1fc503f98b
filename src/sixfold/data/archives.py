"""Archives read in place: where each member's bytes are, without unpacking to files.

A zip or an uncompressed tar is read where it lies. A compressed tar cannot be entered in the
middle, so it is decompressed once, into one temporary file beside the shards; its members are
listed on the way, while another thread decompresses.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import queue
import shutil
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from sixfold.data import paths
from sixfold.data.extents import Extent
from sixfold.errors import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")
BLOCK_BYTES = 2**20
STREAM_BYTES = 2**14
"""What `tarfile` takes at a time: it copies the rest of it for every header that it reads."""


_DECOMPRESSORS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
)


def is_archive_name(name: str) -> bool:
    """Whether a file is called like an archive.

    >>> is_archive_name("cifar-10-python.tar.gz"), is_archive_name("t10k-images-idx3-ubyte.gz")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


Members = tuple[dict[str, Extent], set[str]]
"""Files by name, and the names of folders."""


def list_archive(path: str, spool: Path) -> Members:
    """Where everything in an archive is.

    Args:
        path: file or URL.
        spool: folder for a temporary copy, where one is needed.

    Raises:
        UserError: if it is no archive, or damaged.
    """
    if paths.is_url(path):
        path = _fetch(path, spool)
    try:
        with paths.open_file(path) as file:
            start = file.read(512)
            file.seek(0)
            for signature, decompressor in _DECOMPRESSORS.items():
                if start.startswith(signature):
                    return _list_compressed_tar(decompressor(file), spool)
            if start.startswith(b"PK"):
                return _list_zip(path, file)
            if start[257:262] == b"ustar" or path.lower().endswith(".tar"):
                return _list_tar(path, file)
    except _DAMAGE as error:
        raise UserError(
            f"{path}: the archive is damaged or incomplete ({error}): fetch it again"
        ) from None
    raise UserError(
        f"{path}: neither a folder nor an archive (tar, tar.gz, tar.xz, tar.bz2 or zip)"
    )


def _fetch(url: str, spool: Path) -> str:
    """Copy a remote archive here; returns its path."""
    target = spool / "archive"
    with paths.explained(url), paths.open_file(url) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK_BYTES)
    return str(target)


def _list_tar(path: str, file: IO[bytes]) -> Members:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        members, end = _members(archive, path)
    _check_end(path, end)
    return members


def _members(archive: tarfile.TarFile, path: str) -> tuple[Members, int]:
    """Members of an archive that will be found at `path`, and where their list ended."""
    files: dict[str, Extent] = {}
    folders: set[str] = set()
    while (member := archive.next()) is not None:
        name = _plain(member.name)
        if member.isdir():
            folders.add(name)
        elif member.isreg() and not member.issparse():
            files[name] = Extent(path, member.offset_data, member.size)
        archive.members = []  # type: ignore[attr-defined]  # a million records are a gigabyte
    return (files, folders), archive.offset


def _check_end(path: str, end: int) -> None:
    """The list must end with zeros or with the file: `tarfile` takes a broken header for an end."""
    with Path(path).open("rb") as file:
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"broken header at byte {end}")


def _plain(name: str) -> str:
    return name.removeprefix("./").strip("/")


def _list_compressed_tar(source: Any, spool: Path) -> Members:
    """Decompress to a temporary file; list the members from the same blocks as they pass."""
    target = spool / "archive.tar"
    tee = _Tee(source, target)
    try:
        # Stream mode: never seeks, so it can read what the other thread is only just producing.
        with tarfile.open(fileobj=cast(IO[bytes], tee), mode="r|", bufsize=STREAM_BYTES) as archive:
            members, end = _members(archive, str(target))
        tee.drain()
    finally:
        tee.close()
    _check_end(str(target), end)
    return members


class _Tee:
    """A readable stream of what a thread decompresses and also writes to a file."""

    def __init__(self, source: Any, target: Path) -> None:
        self._blocks: queue.Queue[bytes | BaseException] = queue.Queue(16)
        self._closing = threading.Event()
        self._rest = b""
        self._ended = False
        self._thread = threading.Thread(target=self._run, args=(source, target), daemon=True)
        self._thread.start()

    def _run(self, source: Any, target: Path) -> None:
        try:
            with target.open("wb") as file:
                while not self._closing.is_set():
                    block = source.read(BLOCK_BYTES)
                    file.write(block)
                    if not block:
                        break
                    self._blocks.put(block)
            self._blocks.put(b"")
        except BaseException as error:  # raised again in the thread that reads
            self._blocks.put(error)

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and not self._ended:
            block = self._blocks.get()
            if isinstance(block, BaseException):
                self._ended = True
                raise block
            self._ended = not block
            self._rest += block
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def drain(self) -> None:
        """Read what follows the last member: a checksum may be wrong only there."""
        while self.read(BLOCK_BYTES):
            pass

    def close(self) -> None:
        self._closing.set()
        while self._thread.is_alive():
            try:
                self._blocks.get(timeout=0.01)
            except queue.Empty:
                self._thread.join(0.01)


def _list_zip(path: str, file: IO[bytes]) -> Members:
    files: dict[str, Extent] = {}
    folders: set[str] = set()
    methods = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = _plain(info.filename)
            if info.is_dir():
                folders.add(name)
                continue
            if info.flag_bits & 1:
                raise UserError(f"{path}: {name} is encrypted: unpack the archive yourself")
            if info.compress_type not in methods:
                raise UserError(
                    f"{path}: {name} is packed by zip's method {info.compress_type}: only stored "
                    "and deflated members can be read; unpack the archive yourself"
                )
            packed = info.compress_type == zipfile.ZIP_DEFLATED
            files[name] = Extent(
                path,
                _zip_data_offset(file, info.header_offset),
                info.compress_size,
                info.file_size if packed else None,
                info.CRC,
            )
    return files, folders


def _zip_data_offset(file: IO[bytes], header_offset: int) -> int:
    """Where a member's bytes begin: after a header of its own, of varying length."""
    file.seek(header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("a member's header is missing")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return header_offset + 30 + int(name_bytes) + int(extra_bytes)
