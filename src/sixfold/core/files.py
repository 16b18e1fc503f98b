"""Writing files so that a reader, or a crash, never meets half of one."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sixfold.core.errors import RunError, UserError

_CHECKSUM_LINE = re.compile(rb"\n([ \t]+)\n?\Z")


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` into `path` all at once: under another name first, on the disk, then renamed."""
    # The process number keeps two writers of one path from sharing a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON, atomically, with a checksum that `parse_json` verifies."""
    data = (json.dumps(value, indent=2) + "\n").encode()
    write_atomically(path, data + _checksum(data) + b"\n")


def _checksum(data: bytes) -> bytes:
    """CRC-32 as 32 spaces (0) and tabs (1), which every reader of JSON passes over."""
    return f"{zlib.crc32(data):032b}".replace("0", " ").replace("1", "\t").encode()


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds; a ValueError if not what `write_json` wrote, or nested too deep."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    ended = _CHECKSUM_LINE.search(data)
    if ended and ended[1] != _checksum(data[: ended.start() + 1]):
        raise ValueError(
            "its checksum, a last line of spaces and tabs, does not match; whoever has edited the "
            "file removes that line"
        )
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply to be JSON of ours") from None


def parse_json_lines(lines: Iterable[str]) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects in some lines, and how many lines held none.

    >>> parse_json_lines(['{"a": 1}', '{"a": ', ''])
    ([{'a': 1}], 1)
    """
    lines = [line for line in lines if line.strip()]
    with suppress(ValueError):  # all at once, which is twice as fast
        values = parse_json(f"[{','.join(lines)}]")
        if len(values) == len(lines) and all(isinstance(value, dict) for value in values):
            return values, 0
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(parse_json(line))
    found = [value for value in found if isinstance(value, dict)]
    return found, len(lines) - len(found)


def make_folder(path: Path, option: str = "--out") -> None:
    """Make a folder, with its parents, in which files can be made; `option` is what named it."""
    with _refused(option, path):
        path.mkdir(parents=True, exist_ok=True)
        _try_to_write(path)


def _try_to_write(folder: Path) -> None:
    probe = folder / f".probe-{secrets.token_hex(8)}"
    probe.touch()
    probe.unlink()


def file_problems(option: str, path: Path) -> list[str]:
    """Why no file can be written where `option` says; looked at before any work is done for it."""
    path = path.expanduser()
    if path.is_dir() or not path.absolute().parent.is_dir():
        return [f"{option} {path}: must be a file in a directory that exists"]
    try:
        with _refused(option, path):
            _try_to_write(path.absolute().parent)
    except UserError as error:
        return list(error.problems)
    return []


@contextmanager
def folder_of_parts(out: Path) -> Iterator[Path]:
    """A folder for the parts of a file that is joined later; it goes, whatever happens."""
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.parts")
    with _refused("--out", out):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _refused(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{option} {path}: cannot be written ({error.strerror}); choose another directory"
        ) from error


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one line with the remedy."""
    with space_explained(path.parent):
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def space_explained(folder: Path) -> Iterator[None]:
    """Turn a full disk, met by whoever writes below `folder`, into one line with the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise RunError(
            f"no space left on the disk of {folder}: what was saved before is intact; free some "
            "space and start again, a run with --resume (SIXFOLD_CACHE names the place of "
            "prepared data)"
        ) from error


_FULL = (errno.ENOSPC, errno.EDQUOT)
