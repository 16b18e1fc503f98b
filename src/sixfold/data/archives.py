"""Archives read in place: where each member's bytes are, without unpacking to files.

A zip or an uncompressed tar is read where it lies. A compressed tar cannot be entered in the
middle, so it is decompressed once, into one temporary file beside the shards.
"""

import bz2
import gzip
import lzma
import mmap
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sixfold.core.errors import UserError
from sixfold.data import paths
from sixfold.data.archive_links import follow_links
from sixfold.data.byte_ranges import MOST_PICTURE_BYTES, Extent, copy_to, too_large
from sixfold.data.signatures import recognise

SUFFIXES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.lzma", ".tlz", ".tar.bz2", ".tbz2"),
    ".zip",
)
_UNREADABLE = (".7z", ".rar", ".z", ".zst", ".tzst", ".lz", ".lz4", ".lzo", ".zipx", ".cab")
MOST_LINK_BYTES = 4096
_NOT_ZERO = re.compile(rb"[^\0]")
_DECOMPRESSORS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x5d\0\0": lzma.open,  # of `xz --format=lzma`, older than xz
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
    """Whether a file is called like an archive."""
    return name.lower().endswith(SUFFIXES)


def unpack_hint(names: Iterable[str]) -> str:
    """What to do where only an archive is found that cannot be read; empty where none is."""
    packed = next((name for name in names if name.lower().endswith(_UNREADABLE)), None)
    return f"; such archives are not read: unpack {packed} first" if packed else ""


@dataclass
class Members:
    """What an archive holds."""

    # where the bytes of each file are, by name
    files: dict[str, Extent] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    # (name, reason) of every member that is neither
    left_out: list[tuple[str, str]] = field(default_factory=list)
    # what each link names, from the root of the archive
    links: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, extent: Extent) -> None:
        """Add a file; of several members with one name the last counts, as when unpacked."""
        self._replace(name)
        self.files[name] = extent

    def add_link(self, name: str, target: str) -> None:
        """Add a link, which may lead to a later member."""
        self._replace(name)
        self.links[name] = target

    def _replace(self, name: str) -> None:
        if self.files.pop(name, None) or self.links.pop(name, None):
            self.left_out.append((name, "replaced by a later file of this name"))


def list_archive(path: str, spool: Path) -> Members:
    """Where everything in an archive is."""
    if paths.is_url(path):
        with paths.explained(path):
            path = _copied(paths.open_file(path), spool / "archive", path)
    try:
        with paths.open_file(path) as file:
            start = file.read(512)
            file.seek(0)
            for signature, decompressor in _DECOMPRESSORS.items():
                if start.startswith(signature):
                    return _list_tar(
                        _copied(decompressor(file), spool / "archive.tar", path), spool
                    )
            if start.startswith(b"PK"):
                return _list_zip(path, file)
            if start[257:262] == b"ustar" or path.lower().endswith(".tar"):
                return _list_tar(path, spool)
            if zipfile.is_zipfile(file):  # behind a program that unpacks it
                return _list_zip(path, file)
    except _DAMAGE as error:
        raise UserError(
            f"{path}: the archive is damaged or incomplete ({error}): fetch it again"
        ) from None
    what, remedy = recognise(start) or ("", "")
    raise UserError(
        f"{path}: {what and f'{what}, '}neither a folder nor an archive that can be read (tar, "
        f"tar.gz, tar.xz, tar.lzma, tar.bz2 or zip){remedy and f': {remedy}'}"
    )


def _copied(source: Any, target: Path, path: str) -> str:
    """Write a remote or compressed file to a temporary one; returns its path."""
    with source:
        copy_to(target, source, path)
    return str(target)


def _list_tar(path: str, spool: Path) -> Members:
    with Path(path).open("rb") as file:
        if not Path(path).stat().st_size:
            raise tarfile.ReadError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            members = _list_plain_tar(path, data)
            return members if members is not None else _list_any_tar(path, file, data, spool)


def _list_plain_tar(path: str, data: mmap.mmap) -> Members | None:
    """List plain files and folders with short names, ten times as fast as `tarfile`; else None."""
    members = Members()
    following = 0
    while (place := _next_header(data, following)) is not None:
        header = data[place : place + tarfile.BLOCKSIZE]
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
            members.folders.add(paths.plain_name(name))
        else:
            extent = Extent(path, place + tarfile.BLOCKSIZE, size)
            members.add(paths.plain_name(name), extent)
        following = place + tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
        if following > len(data):
            return None
    return members


def _next_header(data: mmap.mmap, place: int) -> int | None:
    """The next block that is not all zeros: beyond an archive's end others may be appended."""
    if data[place : place + 1] != b"\0":
        return place if place < len(data) else None
    found = _NOT_ZERO.search(data, place)
    return None if found is None else found.start() // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE


def _octal(field: bytes) -> int:
    return int(field.strip(b" \0"), 8)


def _until_null(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _list_any_tar(path: str, file: IO[bytes], data: mmap.mmap, spool: Path) -> Members:
    members = Members()
    place = _next_header(data, 0)
    while place is not None:
        file.seek(place)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                _add_member(members, member, path, archive, spool)
                archive.members = []  # type: ignore[attr-defined]  # a million are a gigabyte
            # `tarfile` takes a broken header for the end: there must be zeros, or nothing more.
            if any(data[archive.offset : archive.offset + tarfile.BLOCKSIZE]):
                raise tarfile.ReadError(f"broken header at byte {archive.offset}")
            place = _next_header(data, archive.offset)
    follow_links(members.files, members.folders, members.left_out, members.links)
    return members


def _add_member(
    members: Members, member: tarfile.TarInfo, path: str, archive: tarfile.TarFile, spool: Path
) -> None:
    name = paths.plain_name(member.name)
    target = paths.plain_name(member.linkname)
    if member.isdir():
        members.folders.add(name)
    elif member.issym():
        members.add_link(name, _link_target(name, member.linkname))
    elif member.islnk() and target in members.files:
        members.add(name, members.files[target])
    elif member.islnk():
        members.add_link(name, target)
    elif member.issparse():
        members.add(name, _without_holes(path, archive, member, spool))
    elif member.isreg():
        members.add(name, Extent(path, member.offset_data, member.size))
    else:
        members.left_out.append((name, "a pipe or device"))


def _link_target(name: str, target: str) -> str:
    """What a symbolic link names, from the root of the archive."""
    # What begins at the root of a disk is outside, wherever the archive is unpacked.
    return f"../{target}" if target.startswith("/") else f"{name.rpartition('/')[0]}/{target}"


def _without_holes(
    path: str, archive: tarfile.TarFile, member: tarfile.TarInfo, spool: Path
) -> Extent:
    """A sparse file, written out in full: it lies in the archive in pieces."""
    if member.size > MOST_PICTURE_BYTES:
        return Extent(path, missing=too_large(member.size))
    target = spool / f"sparse-{member.offset}"
    source = archive.extractfile(member)
    assert source is not None, "only a link or a folder has nothing to be read"
    with source:
        copy_to(target, source, path)
    return Extent(str(target), 0, member.size)


def _list_zip(path: str, file: IO[bytes]) -> Members:
    members = Members()
    methods = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = paths.plain_name(info.filename)
            if info.filename.endswith(("/", "\\")):
                members.folders.add(name)
                continue
            if info.flag_bits & 1:
                raise UserError(f"{path}: {name} is encrypted: unpack the archive yourself")
            if stat.S_ISLNK(info.external_attr >> 16) and info.file_size < MOST_LINK_BYTES:
                target = archive.read(info).decode("utf-8", "surrogateescape")
                members.add_link(name, _link_target(name, target))
                continue
            if info.compress_type not in methods:
                raise UserError(
                    f"{path}: {name} is packed by zip's method {info.compress_type}: only stored "
                    "and deflated members can be read; unpack the archive yourself"
                )
            packed = info.compress_type == zipfile.ZIP_DEFLATED
            offset = _zip_data_offset(file, info.header_offset)
            unpacked = info.file_size if packed else None
            members.add(name, Extent(path, offset, info.compress_size, unpacked, info.CRC))
    follow_links(members.files, members.folders, members.left_out, members.links)
    return members


def _zip_data_offset(file: IO[bytes], header_offset: int) -> int:
    """Where a member's bytes begin: after a header of its own, of varying length."""
    file.seek(header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("a member's header is missing")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return header_offset + 30 + int(name_bytes) + int(extra_bytes)
