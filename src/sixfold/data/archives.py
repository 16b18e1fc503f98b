"""Archives read in place: where each member's bytes are, without unpacking to files.

A zip or an uncompressed tar is read where it lies. A compressed tar cannot be entered in the
middle, so it is decompressed once, into one temporary file beside the shards.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import mmap
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from sixfold.data import paths
from sixfold.data.extents import Extent
from sixfold.errors import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")
BLOCK_BYTES = 2**20
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
                    return _list_tar(_decompress(decompressor(file), spool))
            if start.startswith(b"PK"):
                return _list_zip(path, file)
            if start[257:262] == b"ustar" or path.lower().endswith(".tar"):
                return _list_tar(path)
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


def _decompress(source: Any, spool: Path) -> str:
    """Write what a compressed file holds to a temporary one; returns its path."""
    target = spool / "archive.tar"
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK_BYTES)
    return str(target)


def _list_tar(path: str) -> Members:
    with Path(path).open("rb") as file:
        if not Path(path).stat().st_size:
            raise tarfile.ReadError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            members = _list_plain_tar(path, data)
            return members if members is not None else _list_any_tar(path, file, data)


def _list_plain_tar(path: str, data: mmap.mmap) -> Members | None:
    """List a tar of nothing but files and folders with short names, ten times as fast as `tarfile`.

    Returns:
        None if there is anything else in it, or anything wrong.
    """
    files: dict[str, Extent] = {}
    folders: set[str] = set()
    place = 0
    while any(header := data[place : place + tarfile.BLOCKSIZE]):
        kind, magic = header[156:157], header[257:263]
        try:
            size, checksum = _octal(header[124:136]), _octal(header[148:156])
        except ValueError:
            return None
        # The checksum is of the header with spaces in the checksum's own place.
        right = checksum == sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if kind not in (tarfile.REGTYPE, tarfile.DIRTYPE) or magic[:5] != b"ustar" or not right:
            return None
        name = _until_null(header[:100])
        if magic == b"ustar\0" and header[345]:
            name = f"{_until_null(header[345:500])}/{name}"
        if kind == tarfile.DIRTYPE:
            folders.add(_plain(name))
        else:
            files[_plain(name)] = Extent(path, place + tarfile.BLOCKSIZE, size)
        place += tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
    return (files, folders) if place <= len(data) else None


def _octal(field: bytes) -> int:
    return int(field.strip(b" \0"), 8)


def _until_null(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _list_any_tar(path: str, file: IO[bytes], data: mmap.mmap) -> Members:
    files: dict[str, Extent] = {}
    folders: set[str] = set()
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            name = _plain(member.name)
            if member.isdir():
                folders.add(name)
            elif member.isreg() and not member.issparse():
                files[name] = Extent(path, member.offset_data, member.size)
            archive.members = []  # type: ignore[attr-defined]  # a million records are a gigabyte
        # `tarfile` takes a broken header for the end: there must be zeros, or nothing more.
        if any(data[archive.offset : archive.offset + tarfile.BLOCKSIZE]):
            raise tarfile.ReadError(f"broken header at byte {archive.offset}")
    return files, folders


def _plain(name: str) -> str:
    return name.removeprefix("./").strip("/")


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
