"""Files and folders by path or by URL: one way to list and read both.

Plain paths go to the operating system; anything with ``://`` goes through fsspec. What cannot be
reached is a `UserError` that names the path.
"""

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from sixfold.core.errors import UserError

HIDDEN = "hidden"  # Why a file or folder is left out that is not the user's own
SYSTEM_NAMES = frozenset(
    {"__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"}
    | {"$recycle.bin", "system volume information", "@eadir", "lost+found"}
)
"""What macOS, Windows, Synology's servers and ext4 put into folders, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file or folder."""

    name: str  # relative to what was listed, with ``/`` between folders
    is_folder: bool
    size: int  # bytes of a file
    stamp: str  # what changes when the file does: a time, or a tag of the remote store
    left_out: str = ""  # why it is not read, nor what is in it; empty if it is
    # of a local file, the same by whatever link it is reached
    identity: tuple[int, int] | None = None


def is_url(path: str) -> bool:
    """Whether a path belongs to fsspec."""
    return "://" in path


def absolute(path: str) -> str:
    """An absolute path or a URL, the same wherever it is read from; ``file://`` becomes a path."""
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if is_url(path):
        return path.rstrip("/") if not path.endswith("://") else path
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 (pathlib keeps "..")


def join(path: str, name: str) -> str:
    """The path of something inside a folder; the folder itself for an empty name."""
    return f"{path.rstrip('/')}/{name}" if name else path


def base_name(path: str) -> str:
    """Last part of a path or URL."""
    return path.rstrip("/").rpartition("/")[2]


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn a refusal to read `path`, local or remote, into one line."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder") from None
    except ImportError as error:
        raise UserError(f"{path}: {error} (a package for this kind of URL is missing)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        if not is_url(path):
            raise
        # A remote store may raise anything.
        raise UserError(f"{path}: cannot be read: {error or type(error).__name__}") from None


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path inside it."""
    import fsspec

    with explained(url):
        fs, inner = fsspec.core.url_to_fs(url)
        return fs, inner


def look(path: str) -> Entry:
    """What is at a path."""
    with explained(path):
        if not is_url(path):
            return _local_entry("", Path(path).stat())
        fs, inner = filesystem(path)
        return _remote_entry("", fs.info(inner))


def children(path: str) -> list[Entry]:
    """What lies directly in a folder, by name; nothing if it is a file."""
    with explained(path):
        if not is_url(path):
            folder = Path(path)
            if not folder.is_dir():
                return []
            found = [_local_child(child) for child in folder.iterdir()]
        else:
            fs, inner = filesystem(path)
            if not fs.isdir(inner):
                return []
            found = [
                _remote_entry(base_name(info["name"]), info) for info in fs.ls(inner, detail=True)
            ]
    return sorted((entry for entry in found if entry), key=lambda entry: entry.name)


def walk(path: str) -> list[Entry]:
    """Every file and folder below a folder, at any depth, by name; hidden ones are left out."""
    return [entry for entry in walk_all(path) if not entry.left_out]


def walk_all(path: str) -> list[Entry]:
    """As `walk`, with what is left out: hidden files, and links back to a folder around them."""
    with explained(path):
        found = _walk_local(path) if not is_url(path) else _walk_remote(path)
    return sorted(found, key=lambda entry: entry.name)


def open_file(path: str) -> IO[bytes]:
    """Open a file to be read, anywhere in it."""
    with explained(path):
        if not is_url(path):
            return Path(path).open("rb")
        fs, inner = filesystem(path)
        opened: IO[bytes] = fs.open(inner, "rb")
        return opened


def read_file(path: str) -> bytes:
    """All bytes of a file."""
    with explained(path):
        if not is_url(path):
            return Path(path).read_bytes()
        fs, inner = filesystem(path)
        data: bytes = fs.cat_file(inner)
        return data


def plain_name(name: str) -> str:
    r"""A name relative to the set, whatever separators, roots and dots a program wrote into it.

    >>> [plain_name(name) for name in ("./a//b.png", r"a\b.png", "/a/x/../b.png", "../a/b.png")]
    ['a/b.png', 'a/b.png', 'a/b.png', 'a/b.png']
    """
    # Below a root "..", as at the beginning of a name, leads nowhere: programs that unpack drop it.
    return posixpath.normpath("/" + name.replace("\\", "/")).strip("/")


def hidden(name: str) -> bool:
    """Whether a file is not the user's own: hidden, or left by an operating system."""
    return bool(hidden_part(name))


def hidden_part(name: str) -> str:
    """The outermost hidden file or folder on the way to a file; empty if there is none."""
    parts = name.split("/")
    for index, part in enumerate(parts):
        if part.startswith(".") or part.lower() in SYSTEM_NAMES:
            return "/".join(parts[: index + 1])
    return ""


def _local_entry(name: str, status: os.stat_result) -> Entry:
    return Entry(
        name=name,
        is_folder=stat.S_ISDIR(status.st_mode),
        size=status.st_size,
        stamp=str(status.st_mtime_ns),
        identity=(status.st_dev, status.st_ino),
    )


def _local_child(child: Path) -> Entry | None:
    try:
        return _local_entry(child.name, child.stat())
    except OSError:  # a dangling link, or gone meanwhile
        return None


def _walk_local(path: str) -> list[Entry]:
    found = []
    # Each with the identities of the folders around it: only a link back to one of them is a
    # circle. A folder that is reached in two ways is read twice.
    pending: list[tuple[str, str, frozenset[tuple[int, int]]]] = [("", path, frozenset())]
    while pending:
        prefix, folder, around = pending.pop()
        with explained(folder):
            status = Path(folder).stat()
            around |= {(status.st_dev, status.st_ino)}
            with os.scandir(folder) as listing:
                items = list(listing)
        for item in items:
            entry = _scanned(prefix + item.name, item)
            if entry.identity in around:
                entry = replace(entry, left_out="a link back to a folder around it")
            found.append(entry)
            if entry.is_folder and not entry.left_out:
                pending.append((f"{entry.name}/", item.path, around))
    return found


def _scanned(name: str, item: os.DirEntry[str]) -> Entry:
    try:
        status = item.stat()
    except OSError:
        # A dangling link stays in the list: reading it will say what is wrong.
        return Entry(name=name, is_folder=False, size=0, stamp="gone")
    entry = _local_entry(name, status)
    if hidden(item.name):
        entry = replace(entry, left_out=HIDDEN)
    elif not (entry.is_folder or stat.S_ISREG(status.st_mode)):
        entry = replace(entry, left_out="a pipe, socket or device")  # opening it might never end
    return entry


def _walk_remote(path: str) -> list[Entry]:
    fs, inner = filesystem(path)
    root = inner.rstrip("/")
    entries: dict[str, Entry] = {}
    for full, info in fs.find(inner, withdirs=True, detail=True).items():
        entry = _remote_entry(full[len(root) :].strip("/"), info)
        if top := hidden_part(entry.name):
            entry = replace(entry, name=top, is_folder=top != entry.name, left_out=HIDDEN)
        if entry.name:
            entries.setdefault(entry.name, entry)
    return list(entries.values())


def _remote_entry(name: str, info: dict[str, Any]) -> Entry:
    # Stores differ in how they tell that a file has changed.
    tags = ("mtime", "ETag", "etag", "md5Hash", "LastModified", "last_modified", "created")
    stamps = [str(info[tag]) for tag in tags if info.get(tag)]
    return Entry(
        name=name,
        is_folder=info["type"] == "directory",
        size=int(info.get("size") or 0),
        stamp=stamps[0] if stamps else "",
    )
