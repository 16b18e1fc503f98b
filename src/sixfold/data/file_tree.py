"""A folder or an archive, seen as files by name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.data import archives, paths
from sixfold.data.byte_ranges import MOST_BYTES, Extent, ExtentReader
from sixfold.data.images import BadImageError

MOST_UNPACKED_BYTES = 2**28
"""Of a file that is read by offset, such as a batch of CIFAR-10, where it lies packed in a zip."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Files by name."""

    path: str
    # relative name, with ``/`` between folders -> where its bytes are; by name
    files: Mapping[str, Extent]
    folders: frozenset[str]  # every folder, empty ones too
    spool: Path  # folder for temporary copies
    # (name, reason) of what is not read, by its name in the outermost tree
    left_out: tuple[tuple[str, str], ...] = ()
    # files that are the same as another by a link -> the other's name
    twins: Mapping[str, str] = field(default_factory=dict)

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
            left_out=self.left_out,
            twins={
                name[len(start) :]: other.removeprefix(start)
                for name, other in self.twins.items()
                if name.startswith(start)
            },
        )

    def top(self) -> list[str]:
        """Names of the folders directly in it."""
        return sorted({name.split("/")[0] for name in self.folders})

    def outermost(self, folders: Iterable[str]) -> Tree | None:
        """The tree inside the outermost of some of its folders."""
        found = min(folders, key=lambda folder: (folder.count("/"), folder), default=None)
        return None if found is None else self.below(found)

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """All bytes of a small file."""
        with ExtentReader() as reader, self._named(name):
            return reader.read(self.files[name], most=most)

    def plain(self, name: str) -> Extent:
        """Where the bytes of a file can be read by offset: in place, or in a temporary copy."""
        extent = self.files[name]
        if extent.unpacked is None and extent.missing is None and not paths.is_url(extent.path):
            with self._named(name), paths.explained(extent.path):
                size = Path(extent.path).stat().st_size if extent.size is None else extent.size
            return extent._replace(size=size, crc=None)
        return self.keep(name, self.read(name, MOST_UNPACKED_BYTES))

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Within it, what is wrong with the bytes of a file is told of its name."""
        try:
            yield
        except BadImageError as error:
            raise UserError(f"{paths.join(self.path, name)}: {error.reason}") from None

    def keep(self, name: str, data: bytes) -> Extent:
        """Put bytes into a temporary file that lasts as long as the preparation."""
        target = self.spool / name.replace("/", "_")
        target.write_bytes(data)
        return Extent(str(target), 0, len(data))


def open_tree(path: str, spool: Path) -> Tree:
    """List a folder or an archive."""
    identities: dict[str, object] = {}
    if paths.look(path).is_folder:
        members = archives.Members()
        for entry in paths.walk_all(path):
            name = paths.plain_name(entry.name)
            if entry.left_out:
                members.left_out.append((entry.name, entry.left_out))
            elif entry.is_folder:
                members.folders.add(name)
            else:
                members.add(name, Extent(paths.join(path, entry.name)))
                identities[name] = entry.identity
    else:
        members = archives.list_archive(path, spool)
        identities |= {name: extent[:2] for name, extent in members.files.items()}
    files, folders, left_out = members.files, members.folders, members.left_out
    kept = sorted(name for name in files if not paths.hidden(name))
    left_out += [
        (top if count == 1 and top in files else f"{top}/", counted(count, paths.HIDDEN))
        for top, count in Counter(filter(None, map(paths.hidden_part, files))).items()
    ]
    # An archive need not list its folders.
    for name in kept:
        while "/" in name and (name := name.rpartition("/")[0]) not in folders:
            folders.add(name)
    return Tree(
        path=path,
        files={name: files[name] for name in kept},
        folders=frozenset(name for name in folders if name and not paths.hidden(name)),
        spool=spool,
        left_out=tuple(left_out),
        twins=_twins(identities),
    )


def _twins(identities: Mapping[str, object]) -> dict[str, str]:
    """Names of files that an earlier name stands for already -> the earlier name."""
    first: dict[object, str] = {}
    named = ((name, first.setdefault(key, name)) for name, key in identities.items() if key)
    return {name: other for name, other in named if other != name}


def counted(count: int, reason: str) -> str:
    """A reason for so many files."""
    return reason if count == 1 else f"{count} files: {reason}"


def unused(
    tree: Tree, inner: Tree, used: Collection[str], reason: str
) -> tuple[tuple[str, str], ...]:
    """What of a tree is in no record, one line for all in a folder: found = used + told.

    `used` are files by their names in `inner`, a part of the tree; what the tree itself leaves out
    comes first.
    """
    prefix = inner.path[len(tree.path) :].strip("/")
    taken = {paths.join(prefix, name) if prefix else name for name in used}
    rest = [name for name in tree.files if name not in taken]
    folders = Counter(name.rpartition("/")[0] for name in rest)
    lines = [
        (f"{folder}/", counted(count, reason))
        for folder, count in sorted(folders.items())
        if folder and count > 1
    ]
    lines += [(n, reason) for n in rest if "/" not in n or folders[n.rpartition("/")[0]] == 1]
    return (*tree.left_out, *lines)


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
