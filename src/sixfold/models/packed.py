"""Files that hold an object of the user's: `objects/model-1f0c….pkl` of a run directory.

A file is one line of JSON, which is read without running anything, and a pickle. Opening the pickle
runs code, so a file that only another file names (a `config.json`, a weights file) is opened only
if this user has written it on this machine: its hash is noted in the cache (`objects`).
"""

import hashlib
import json
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.environment import cache_directory
from sixfold.core.errors import UserError
from sixfold.core.files import make_folder, parse_json, write_atomically
from sixfold.core.run_directory import OBJECTS, found_here
from sixfold.models.user_traceback import one_line

_WRITTEN: set[str] = set()
"""Hashes of the files that this process has written: the cache may not be writable."""


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """What the first line of a file says."""

    path: Path  # of the file
    name: str  # what the user calls the object
    identity: str  # hash of its content; see `sixfold.models.identity`
    is_network: bool  # whether it is a network that has its weights, rather than what builds one
    # The user's own modules that it uses by name -> folder in which each is found.
    modules: Mapping[str, str]


def is_packed(name: str) -> bool:
    """Whether a setting names an object in a file, as `path/objects/model-1f0c.pkl:Net`."""
    return name.rpartition(":")[0].endswith(".pkl")


def packed_path(name: str) -> Path:
    """The file of a packed object's name."""
    return Path(name.rpartition(":")[0])


def beside(name: str, file: Path) -> str:
    """A packed object's name as seen from a file of its run, which may have been moved."""
    return str(found_here(name, file.resolve().parent))


def write_packed(header: PackedFile, body: bytes) -> None:
    """Write a file, and note that it is this user's; a `UserError` if it cannot be written."""
    line = {
        "name": header.name,
        "identity": header.identity,
        "is_network": header.is_network,
        "modules": dict(header.modules),
        "python": _python(),
    }
    data = json.dumps(line).encode() + b"\n" + body
    make_folder(header.path.parent)
    write_atomically(header.path, data)
    digest = hashlib.sha256(data).hexdigest()
    _WRITTEN.add(digest)
    mark = cache_directory() / OBJECTS / digest
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:  # then it is this user's for this process only
        pass


def is_own_file(path: Path) -> bool:
    """Whether this user has packed this very file on this machine."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return False
    return digest in _WRITTEN or (cache_directory() / OBJECTS / digest).exists()


def read_header(name: str, option: str = "--model") -> PackedFile:
    """What a file says of itself, nothing being run; a `UserError` if it is absent or damaged."""
    return _read(name, option)[0]


def load_packed(name: str, option: str = "--model") -> Any:
    """The object, made anew by every call; a `UserError` if absent or its modules do not open."""
    header, body = _read(name, option)
    try:
        return pickle.loads(body)
    except Exception as error:
        raise UserError(
            f"{option} {name}: opening {header.name} raised {one_line(error)}; what it was made of "
            "must be installed here as it was there"
        ) from error


def _read(name: str, option: str) -> tuple[PackedFile, bytes]:
    path = packed_path(name)
    try:
        with path.open("rb") as file:
            fields = parse_json(file.readline())
            body = file.read()
        header = PackedFile(
            path=path,
            name=str(fields["name"]),
            identity=str(fields["identity"]),
            is_network=fields["is_network"] is True,
            modules={str(k): str(v) for k, v in fields["modules"].items()},
        )
    except OSError as error:
        raise UserError(
            f"{option} {name}: {path} cannot be read ({error.strerror}): a run's directory holds "
            "the objects that it was given; put it back, or give the object itself again"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{option} {name}: {path} is damaged: give the object again") from error
    if (made := fields.get("python")) != _python():
        raise UserError(
            f"{option} {name}: packed by Python {made}, and this is {_python()}: use that Python, "
            "or give the object again"
        )
    return header, body


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
