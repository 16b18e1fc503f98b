"""`manifest.json`: what a folder of tensor shards holds, checked before any of it is believed.

A manifest may come from anywhere, so every number in it is held against the files' real sizes, and
every file name must be a plain name in the same folder.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from sixfold.core.errors import UserError
from sixfold.core.files import file_sha256, parse_json, write_json
from sixfold.data.dataset import Shape
from sixfold.data.targets import CLASSES, KINDS

NAME = "manifest.json"
FORMAT = "sixfold-tensor-shards"
VERSIONS = (1, 2, 3, 4)
"""1; 2 where images have targets or weights; 3 for a choice of the records of other shards; 4 of
floating-point pixels."""
PARTS = ("train", "test")
VALIDATION = "validation"  # a part that some sets have besides

MOST_MANIFEST_BYTES = 2**28
MOST_CLASSES = 2**24
MOST_SIDE = 2**16
MOST_IMAGE_BYTES = 2**30
MOST_PROBLEMS = 10


Count = Annotated[int, Field(strict=True, gt=0, lt=2**62)]
Side = Annotated[int, Field(strict=True, gt=0, le=MOST_SIDE)]
Reasons = tuple[tuple[str, str], ...]  # (name, reason) each


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One file of a part."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.arrow$")]
    count: Count  # images in it
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of the file


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if not 0 < len(set(names)) == len(names) <= MOST_CLASSES:
        raise ValueError
    return names


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError
    return kind


def _of_a_picture(shape: Shape) -> Shape:
    if shape[0] * shape[1] * shape[2] > MOST_IMAGE_BYTES:
        raise ValueError
    return shape


def _both(parts: Mapping[str, tuple[ShardEntry, ...]]) -> Mapping[str, tuple[ShardEntry, ...]]:
    if set(parts) - {VALIDATION} != set(PARTS):
        raise ValueError
    return parts


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of tensor shards holds."""

    name: str
    # of classes, labels or numbers
    classes: Annotated[tuple[str, ...], AfterValidator(_different)]
    shape: Annotated[tuple[Side, Side, Side], AfterValidator(_of_a_picture)]  # C H W
    dtype: Literal["uint8", "float32"] = "uint8"  # of pixels
    kind: Annotated[str, AfterValidator(_known)] = CLASSES  # of targets
    weighted: bool = False  # whether images have weights
    # "train" and "test", and "validation" if there is one: files in the order of their records
    parts: Annotated[Mapping[str, tuple[ShardEntry, ...]], AfterValidator(_both)]
    bad: Reasons = ()  # of each image that could not be read
    left_out: Reasons = ()  # of what was no image to begin with
    # what the shards were made from: the specification and its fingerprint
    source: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # by which they were made
    versions: Mapping[str, str] = field(default_factory=dict)  # of the programs that made them
    # where only some records of the shards in the folder above are meant: of every part that has
    # any, the file of their places among the part's records; `parts` then names files over there
    rows: Mapping[str, ShardEntry] = field(default_factory=dict)

    @property
    def entries(self) -> list[ShardEntry]:
        """All files."""
        return [entry for part in self.parts.values() for entry in part]

    @property
    def by_content(self) -> bool:
        """Whether trainings order records by their keys, which follow from their content."""
        return self.settings.get("order") == "content"

    def count(self, part: str) -> int:
        """Images of a part."""
        if self.rows:
            return self.rows[part].count if part in self.rows else 0
        return sum(entry.count for entry in self.parts[part])

    @property
    def skipped(self) -> int:
        """Images that are not in the shards; a line of `left_out` may speak of many, or of none."""
        return int(self.source.get("skipped", len(self.bad)))

    def bad_lines(self) -> tuple[str, ...]:
        """One line for everything that is not in the shards, with the reason."""
        return tuple(f"{name}: {reason}" for name, reason in (*self.bad, *self.left_out))

    def home(self, folder: Path) -> Path:
        """Where the files of the parts are, of a manifest in a folder."""
        return folder.parent if self.rows else folder

    def files(self, folder: Path) -> dict[Path, ShardEntry]:
        """All files, by their paths."""
        found = {self.home(folder) / entry.file: entry for entry in self.entries}
        return found | {folder / entry.file: entry for entry in self.rows.values()}

    def save(self, folder: Path) -> None:
        """Write it, all at once: a folder with a manifest is complete."""
        fields, version = asdict(self), 3
        if not self.rows:
            del fields["rows"]
            version = 2
        if not self.rows and self.kind == CLASSES and not self.weighted:
            del fields["kind"], fields["weighted"]
            version = 1
        if self.dtype != "uint8":
            version = 4
        write_json(folder / NAME, {"format": FORMAT, "version": version, **fields})


_FIELDS = {
    "name": "name is not a string",
    "classes": f"classes are not 1 to {MOST_CLASSES} different names",
    "shape": "shape {} is not that of an image, C H W",
    "dtype": "dtype {}: expected uint8 or float32",
    "kind": "kind {}: expected " + ", ".join(KINDS),
    "weighted": "weighted {}: expected true or false",
    "parts": "parts are not two lists, train and test",
    "bad": "bad is not a list of names with reasons",
    "left_out": "left_out is not a list of names with reasons",
    "source": "source is not an object",
    "settings": "settings is not an object",
    "versions": "versions is not an object",
    "rows": "rows are not a file for each part",
}
_ENTRY = {
    "file": "file {} is not a plain name ending in .arrow",
    "sha256": "file {}: sha256 is not 64 hexadecimal digits",
    "count": "file {}: count and bytes are not positive integers",
    "bytes": "file {}: count and bytes are not positive integers",
}
"""What is wrong where a manifest, or the entry of a file, is not as it must be."""


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
        value = parse_json(path.read_bytes())
    except ValueError as error:
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
    if value.get("version") not in VERSIONS:
        raise UserError(
            f"{path}: version {str(value.get('version'))[:80]}: this Sixfold reads versions "
            f"{VERSIONS[0]} to {VERSIONS[-1]}; prepare the shards again"
        )
    try:
        manifest = TypeAdapter(Manifest).validate_python(value)
    except ValidationError as error:
        problems = dict.fromkeys(_problem(value, *one["loc"]) for one in error.errors())
        raise UserError(shortened([f"{path}: {problem}" for problem in problems])) from None
    lists = manifest.parts.values() if manifest.rows else [manifest.entries]
    if any(len({entry.file for entry in each}) < len(each) for each in lists):
        raise UserError(f"{path}: a file is listed twice")
    return manifest


def _problem(value: dict[str, Any], name: str | int, *place: str | int) -> str:
    if name != "parts" or len(place) < 2:
        return _FIELDS[str(name)].format(str(value.get(str(name)))[:80])
    item = value["parts"][place[0]][place[1]]
    if not isinstance(item, dict) or place[-1] not in item:
        return f"{str(item)[:80]} is not a file's entry"
    return _ENTRY[str(place[-1])].format(repr(str(item.get("file"))[:80]))


def _file_problems(folder: Path, manifest: Manifest) -> list[str]:
    problems = []
    image_bytes = math.prod(manifest.shape) * np.dtype(manifest.dtype).itemsize
    rows = {folder / entry.file for entry in manifest.rows.values()}
    for path, entry in manifest.files(folder).items():
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            problems.append(f"{path}: no such file, though the manifest lists it")
        elif size != entry.bytes:
            problems.append(f"{path}: {size} bytes, but the manifest says {entry.bytes}")
        elif path not in rows and entry.count * image_bytes > size:
            problems.append(
                f"{path}: {size} bytes cannot hold {entry.count} images of {image_bytes} bytes"
            )
    return problems


def checksum_problems(folder: Path, manifest: Manifest, workers: int) -> list[str]:
    """One line for each file whose contents are not what was written."""

    def check(file: tuple[Path, ShardEntry]) -> str | None:
        path, entry = file
        if file_sha256(path) == entry.sha256:
            return None
        return f"{path}: damaged (wrong checksum): prepare the shards again"

    # Hashing lets go of Python's lock, so threads do run at the same time.
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return [problem for problem in pool.map(check, manifest.files(folder).items()) if problem]
