"""A folder or an archive, seen as files by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sixfold.data import archives, paths
from sixfold.data.extents import Extent, ExtentReader
from sixfold.data.images import BadImageError
from sixfold.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Files by name.

    Attributes:
        path: of the folder or archive, for messages.
        files: relative name, with ``/`` between folders -> where its bytes are; by name.
        folders: every folder, empty ones too.
        spool: folder for temporary copies.
    """

    path: str
    files: Mapping[str, Extent]
    folders: frozenset[str]
    spool: Path

    def below(self, prefix: str) -> Tree:
        """The tree inside one of its folders (the tree itself for an empty prefix)."""
        if not prefix:
            return self
        start = f"{prefix}/"
        return Tree(
            path=paths.join(self.path, prefix),
            files={n[len(start) :]: e for n, e in self.files.items() if n.startswith(start)},
            folders=frozenset(n[len(start) :] for n in self.folders if n.startswith(start)),
            spool=self.spool,
        )

    def top(self) -> list[str]:
        """Names of the folders directly in it."""
        return sorted({name.split("/")[0] for name in self.folders})

    def read(self, name: str) -> bytes:
        """All bytes of a small file.

        Raises:
            UserError: if it cannot be read.
        """
        with ExtentReader() as reader:
            try:
                return reader.read(self.files[name])
            except BadImageError as error:
                raise UserError(f"{paths.join(self.path, name)}: {error.reason}") from None

    def plain(self, name: str) -> Extent:
        """Where the bytes of a file can be read by offset: in place, or in a temporary copy."""
        extent = self.files[name]
        if extent.unpacked is None and not paths.is_url(extent.path):
            size = Path(extent.path).stat().st_size if extent.size is None else extent.size
            return extent._replace(size=size, crc=None)
        return self.keep(name, self.read(name))

    def keep(self, name: str, data: bytes) -> Extent:
        """Put bytes into a temporary file that lasts as long as the preparation."""
        target = self.spool / name.replace("/", "_")
        target.write_bytes(data)
        return Extent(str(target), 0, len(data))


def open_tree(path: str, spool: Path) -> Tree:
    """List a folder or an archive.

    Args:
        path: of either; may be a URL.
        spool: folder for temporary copies, which must exist.

    Raises:
        UserError: if it is neither, or damaged.
    """
    if not paths.look(path).is_folder:
        files, folders = archives.list_archive(path, spool)
    else:
        found = paths.walk(path)
        files = {e.name: Extent(paths.join(path, e.name)) for e in found if not e.is_folder}
        folders = {entry.name for entry in found if entry.is_folder}
    kept = sorted(name for name in files if not paths.hidden(name))
    # An archive need not list its folders.
    for name in kept:
        while "/" in name and (name := name.rpartition("/")[0]) not in folders:
            folders.add(name)
    return Tree(
        path=path,
        files={name: files[name] for name in kept},
        folders=frozenset(name for name in folders if name and not paths.hidden(name)),
        spool=spool,
    )


def fingerprint(path: str) -> str:
    """A hash that changes when the files at a path do: of their names, sizes and times."""
    digest = hashlib.sha256()
    entry = paths.look(path)
    entries = [entry] if not entry.is_folder else paths.walk(path)
    for entry in entries:
        # A folder's own time changes with files that are not looked at.
        stamp = "" if entry.is_folder else f"{entry.size}\0{entry.stamp}"
        digest.update(f"{entry.name}\0{stamp}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
