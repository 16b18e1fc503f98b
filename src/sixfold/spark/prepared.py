"""Images that executors have decoded, kept in a shared folder for the next table that has them.

A folder of prepared images belongs to one way of preparing them (size, classes, kind of labels).
It holds shard files, an index from the key of each row (of its encoded image and its label) to the
record's place, and a folder for each choice of rows that was trained on: a manifest, and places in
the files. So the folds of a cross-validation, a fit with other settings, and a table that has grown
decode no image twice, and each is the very data set that a table of these rows alone would make.

Files are never changed. `prepared.json` lists those that count; it is written last.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, write_atomically, write_json
from sixfold.data.dataset import Shape
from sixfold.data.manifest import VALIDATION, Manifest, ShardEntry, load_manifest
from sixfold.data.shard_building import COLOR, GRAY
from sixfold.data.shard_files import ShardStore, encode_places

TABLE = "prepared.json"

ROW = np.dtype([("key", "S16"), ("file", "<i4"), ("row", "<i4")])
"""A row of a table: its key, and the file and place of its record. In what a task reports, files
below 0 are its own new ones: -1 is the first."""


@dataclass(kw_only=True)
class PreparedFile:
    """A shard file of images of one shape."""

    file: str
    count: int
    bytes: int
    sha256: str
    shape: Shape
    colour: dict[str, Any] | None = None  # the same images in colour, if some set needed that

    def names(self) -> list[str]:
        """Its own file's name, and that of the same images in colour."""
        return [self.file, *([str(self.colour["file"])] if self.colour else [])]

    def entry(self, shape: Shape) -> ShardEntry:
        """What a manifest of images of that shape says of it."""
        told = self.colour if self.colour and shape != self.shape else self.__dict__
        return ShardEntry(**{name: told[name] for name in ("file", "count", "bytes", "sha256")})


@dataclass(kw_only=True)
class Prepared:
    """What a folder holds."""

    folder: Path
    files: list[PreparedFile] = field(default_factory=list)
    index: str = ""  # name of the index's file

    @classmethod
    def open(cls, folder: Path) -> Prepared:
        """What is in a folder, which may be empty."""
        try:
            table = parse_json((folder / TABLE).read_bytes())
        except (OSError, ValueError):
            return cls(folder=folder)
        files = [PreparedFile(**{**each, "shape": tuple(each["shape"])}) for each in table["files"]]
        return cls(folder=folder, files=files, index=table["index"])

    def forget_lost(self) -> None:
        """Let files that are gone or cut off no longer count."""
        sound = np.array([_is_there(self.folder, each) for each in self.files], np.bool_)
        if sound.all() and (not self.index or (self.folder / self.index).is_file()):
            return
        rows = self.rows() if (self.folder / self.index).is_file() else np.empty(0, ROW)
        rows = rows[sound[rows["file"]]]
        rows["file"] = (np.cumsum(sound) - 1)[rows["file"]]
        self.files = [each for each, there in zip(self.files, sound, strict=True) if there]
        self.save(rows, secrets.token_hex(4))

    def rows(self) -> NDArray[Any]:
        """The index, by key."""
        if not self.index:
            return np.empty(0, ROW)
        rows: NDArray[Any] = np.load(self.folder / self.index, mmap_mode="r")
        return rows

    def save(self, rows: NDArray[Any], token: str) -> None:
        """Take these rows for the index; `token` tells its file from others."""
        rows = np.sort(rows, order="key")
        old, self.index = self.index, f"index-{token}-{len(rows)}.npy"
        np.save(self.folder / self.index, rows)
        files = [each.__dict__ for each in self.files]
        write_json(self.folder / TABLE, {"files": files, "index": self.index})
        if old and old != self.index:
            (self.folder / old).unlink(missing_ok=True)

    def choose(
        self, chosen: dict[str, NDArray[Any]], facts: dict[str, Any]
    ) -> tuple[Path, Manifest]:
        """The folder of a choice of rows, as `shards:` takes it.

        Args:
            chosen: rows (`ROW`) of every part.
            facts: of the manifest.
        """
        numbers = np.unique(np.concatenate([rows["file"] for rows in chosen.values()]))
        shapes = {self.files[number].shape for number in numbers}
        shape = max(shapes)  # in colour where some are
        parts, rows = {}, {}
        content = hashlib.sha256(json.dumps([facts["classes"], facts["kind"]]).encode())
        scratch = self.folder / "choice"
        for part in ("train", "test", VALIDATION):
            own = chosen.get(part, np.empty(0, ROW))
            if part == VALIDATION and not len(own):
                continue
            used = np.unique(own["file"])
            parts[part] = tuple(self.files[number].entry(shape) for number in used)
            if not len(own):
                continue
            all_of = Manifest(**facts, shape=shape, parts={"train": parts[part], "test": ()})
            keys = ShardStore(self.folder, all_of, "train").keys()
            assert keys is not None, "executors write them"
            starts = np.cumsum([0, *(entry.count for entry in parts[part])])
            places = starts[np.searchsorted(used, own["file"])] + own["row"]
            places = places[np.argsort(keys[places], kind="stable")].astype(np.int64)
            content.update(part.encode() + "".join(keys[places].tolist()).encode())
            data = encode_places(places)
            digest = hashlib.sha256(data).hexdigest()
            name = f"{part}-{digest[:16]}.arrow"
            rows[part] = ShardEntry(file=name, count=len(places), bytes=len(data), sha256=digest)
            scratch.mkdir(exist_ok=True)
            write_atomically(scratch / name, data)
        folder = self.folder / f"rows-{content.hexdigest()[:16]}"
        manifest = Manifest(
            **facts | {"source": {**facts["source"], "content": content.hexdigest()}},
            shape=shape,
            parts=parts,
            rows=rows,
        )
        return _kept(scratch, folder, manifest), manifest


def _kept(scratch: Path, folder: Path, manifest: Manifest) -> Path:
    """Put a choice in its folder, unless it is there."""
    try:
        load_manifest(folder)
        shutil.rmtree(scratch)
    except UserError:
        manifest.save(scratch)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    return folder


def _is_there(folder: Path, file: PreparedFile) -> bool:
    try:
        return (folder / file.file).stat().st_size == file.bytes
    except OSError:
        return False


def is_mixed(shapes: Sequence[Shape]) -> bool:
    """Whether images are some grey and some in colour, and else alike."""
    return {shape[0] for shape in shapes} == {GRAY, COLOR} and len({s[1:] for s in shapes}) == 1


class Known:
    """In a task: which rows have been prepared, and where they are."""

    def __init__(self, folder: Path) -> None:
        prepared = Prepared.open(folder)
        self._rows = prepared.rows()
        self._keys = np.ascontiguousarray(self._rows["key"])
        self.shapes = [file.shape for file in prepared.files]

    def find(self, key: bytes) -> tuple[int, int] | None:
        """File and row of a key's record."""
        wanted = np.bytes_(key.rstrip(b"\0"))  # NumPy's texts have no zeros at their end
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            return None
        return int(self._rows["file"][place]), int(self._rows["row"][place])


def name_of(settings: Sequence[Any]) -> str:
    """The name of the folder for one way of preparing images."""
    told = json.dumps([*settings, metadata.version("pillow"), metadata.version("sixfold")])
    return f"spark-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
