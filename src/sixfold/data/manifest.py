"""`manifest.json`: what a folder of tensor shards holds, checked before any of it is believed.

A manifest may come from anywhere, so every number in it is held against the files' real sizes, and
every file name must be a plain name in the same folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.files import write_json
from sixfold.data.dataset import Shape

NAME = "manifest.json"
FORMAT = "sixfold-tensor-shards"
VERSION = 1
PARTS = ("train", "test")
VALIDATION = "validation"
"""A part that some sets have besides."""
ENTRY = ("file", "count", "bytes", "sha256")

MOST_MANIFEST_BYTES = 2**28
MOST_CLASSES = 2**24
MOST_SIDE = 2**16
MOST_IMAGE_BYTES = 2**30
MOST_PROBLEMS = 10
HASH_BLOCK_BYTES = 2**20

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.arrow")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One file of a part."""

    file: str  # name in the folder
    count: int  # images in it
    bytes: int
    sha256: str  # of the file, hexadecimal


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of tensor shards holds."""

    name: str
    classes: tuple[str, ...]
    shape: Shape  # of every image, C H W; the pixels are uint8
    # "train" and "test", and "validation" if there is one: files in the order of their records
    parts: Mapping[str, tuple[ShardEntry, ...]]
    bad: tuple[tuple[str, str], ...] = ()  # (name, reason) of each image that could not be read
    left_out: tuple[tuple[str, str], ...] = ()  # (name, reason) of what was no image to begin with
    # what the shards were made from: the specification and its fingerprint
    source: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # by which they were made
    versions: Mapping[str, str] = field(default_factory=dict)  # of the programs that made them

    @property
    def entries(self) -> list[ShardEntry]:
        """All files."""
        return [entry for part in self.parts.values() for entry in part]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(entry.bytes for entry in self.entries)

    def count(self, part: str) -> int:
        """Images of a part."""
        return sum(entry.count for entry in self.parts[part])

    @property
    def skipped(self) -> int:
        """Images that are not in the shards; a line of `left_out` may speak of many, or of none."""
        return int(self.source.get("skipped", len(self.bad)))

    def bad_lines(self) -> tuple[str, ...]:
        """One line for everything that is not in the shards, with the reason."""
        return tuple(f"{name}: {reason}" for name, reason in (*self.bad, *self.left_out))

    def save(self, folder: Path) -> None:
        """Write it, all at once: a folder with a manifest is complete."""
        value = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "classes": list(self.classes),
            "shape": list(self.shape),
            "dtype": "uint8",
            "parts": {part: [vars(e) for e in entries] for part, entries in self.parts.items()},
            "bad": [list(item) for item in self.bad],
            "left_out": [list(item) for item in self.left_out],
            "source": dict(self.source),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }
        write_json(folder / NAME, value)


def load_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder, and that its files are there in their full size."""
    path = folder / NAME
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not path.is_file():
        raise UserError(
            f"{folder}: no {NAME} in it: not a folder of tensor shards, or its preparation was not "
            "finished: run `sixfold prepare` again"
        )
    if path.stat().st_size > MOST_MANIFEST_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes are no manifest")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    manifest = parse_manifest(value, str(path))
    problems = _file_problems(folder, manifest)
    if problems:
        raise UserError(shortened(problems))
    return manifest


def shortened(problems: Sequence[str]) -> list[str]:
    """The first ten problems, and how many more there are."""
    more = len(problems) - MOST_PROBLEMS
    return [*problems[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]


def parse_manifest(value: Any, path: str) -> Manifest:
    """Build a manifest from what JSON held."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UserError(f"{path}: not a manifest of tensor shards")
    if value.get("version") != VERSION:
        raise UserError(
            f"{path}: version {str(value.get('version'))[:80]}: this Sixfold reads version "
            f"{VERSION}; prepare the shards again"
        )
    problems = _field_problems(value)
    entries: dict[str, tuple[ShardEntry, ...]] = {}
    for part in () if problems else value["parts"]:
        items = value["parts"][part]
        problems += [problem for item in items for problem in _entry_problems(item)]
        if not problems:
            entries[part] = tuple(ShardEntry(**{k: item[k] for k in ENTRY}) for item in items)
    names = [entry.file for part in entries.values() for entry in part]
    if len(set(names)) < len(names):
        problems.append("a file is listed twice")
    if problems:
        raise UserError(shortened([f"{path}: {problem}" for problem in problems]))
    channels, rows, columns = value["shape"]
    return Manifest(
        name=value["name"],
        classes=tuple(value["classes"]),
        shape=(channels, rows, columns),
        parts=entries,
        bad=tuple((name, reason) for name, reason in value.get("bad", [])),
        left_out=tuple((name, reason) for name, reason in value.get("left_out", [])),
        source=value.get("source", {}),
        settings=value.get("settings", {}),
        versions=value.get("versions", {}),
    )


def _field_problems(value: dict[str, Any]) -> list[str]:
    parts = value.get("parts")
    checks = {
        "name is not a string": isinstance(value.get("name"), str),
        f"classes are not 1 to {MOST_CLASSES} different names": _are_classes(value.get("classes")),
        f"shape {str(value.get('shape'))[:80]} is not that of an image, C H W": _is_shape(
            value.get("shape")
        ),
        f"dtype {str(value.get('dtype'))[:80]}: expected uint8": value.get("dtype") == "uint8",
        "parts are not two lists, train and test": isinstance(parts, dict)
        and sorted({*parts} - {VALIDATION}) == sorted(PARTS)
        and all(isinstance(items, list) for items in parts.values()),
    }
    for name in ("bad", "left_out"):
        checks[f"{name} is not a list of names with reasons"] = _are_pairs(value.get(name, []))
    for name in ("source", "settings", "versions"):
        checks[f"{name} is not an object"] = isinstance(value.get(name, {}), dict)
    return [problem for problem, holds in checks.items() if not holds]


def _entry_problems(item: Any) -> list[str]:
    if not isinstance(item, dict) or any(key not in item for key in ENTRY):
        return [f"{str(item)[:80]} is not a file's entry"]
    file, sha256 = item["file"], item["sha256"]
    shown = repr(str(file)[:80])
    checks = {
        f"file {shown} is not a plain name ending in .arrow": isinstance(file, str)
        and _FILE_NAME.fullmatch(file) is not None,
        f"file {shown}: sha256 is not 64 hexadecimal digits": isinstance(sha256, str)
        and _SHA256.fullmatch(sha256) is not None,
        f"file {shown}: count and bytes are not positive integers": _is_count(item["count"])
        and _is_count(item["bytes"]),
    }
    return [problem for problem, holds in checks.items() if not holds]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**62


def _are_classes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MOST_CLASSES
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(_is_count(size) and size <= MOST_SIDE for size in value)
        and value[0] * value[1] * value[2] <= MOST_IMAGE_BYTES
    )


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item)
        for item in value
    )


def _file_problems(folder: Path, manifest: Manifest) -> list[str]:
    problems = []
    image_bytes = manifest.shape[0] * manifest.shape[1] * manifest.shape[2]
    for entry in manifest.entries:
        path = folder / entry.file
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            problems.append(f"{path}: no such file, though the manifest lists it")
        elif size != entry.bytes:
            problems.append(f"{path}: {size} bytes, but the manifest says {entry.bytes}")
        elif entry.count * image_bytes > size:
            problems.append(
                f"{path}: {size} bytes cannot hold {entry.count} images of {image_bytes} bytes"
            )
    return problems


def checksum_problems(folder: Path, manifest: Manifest, workers: int) -> list[str]:
    """One line for each file whose contents are not what was written."""

    def check(entry: ShardEntry) -> str | None:
        if file_sha256(folder / entry.file) == entry.sha256:
            return None
        return f"{folder / entry.file}: damaged (wrong checksum): prepare the shards again"

    # Hashing lets go of Python's lock, so threads do run at the same time.
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return [problem for problem in pool.map(check, manifest.entries) if problem]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
