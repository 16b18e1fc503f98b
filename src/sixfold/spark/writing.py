"""What an executor does with a partition of a table of images: it writes tensor shards.

Every image that is not prepared yet is decoded and resized, where its row is, and goes to the
shared folder from there; the driver hears of files, counts and bad rows. A record is named by a key
of its content (pixels, label, weight), by which the whole set is ordered afterwards: so the same
rows make the same set however they are partitioned, and in whatever order tasks run. A file's name
holds the task's attempt; the driver lists files of the attempts that Spark accepted, so a task that
is tried twice or speculatively counts once.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from sixfold.data import shard_files
from sixfold.data.formats.labels import class_name
from sixfold.data.formats.tensors import ImageColumn
from sixfold.data.images import BadImageError, Pixels, quiet_decoder
from sixfold.data.records import EncodedPicture, Picture
from sixfold.data.shard_building import COLOR, content_keys
from sixfold.data.targets import CLASSES, MULTI_LABEL
from sixfold.spark.prepared import ROW, Known

if TYPE_CHECKING:
    import pyarrow as pa

FILE_BYTES = 2**26
"""Of pixels in a file, as in sets that `sixfold prepare` makes."""

MOST_BAD = 100
"""Rows of a partition whose reason is told; the others are counted."""

REPORT = "report string"
"""Schema of what a partition returns: one row of JSON a file."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns hold what, and how."""

    image: ImageColumn
    is_path: bool = False  # whether images are paths of files
    label: tuple[str, ...] = ()
    kind: str = CLASSES  # of targets
    numbers: int = 0  # how many numbers a target is; 0: it is a class
    weight: str | None = None
    validation: str | None = None  # a boolean: whether a row is for validation


@dataclass(frozen=True, kw_only=True)
class PartitionWriter:
    """Writes the rows of a partition; called by Spark with its record batches."""

    folder: str
    token: str  # begins the names of files
    columns: Columns
    classes: Mapping[str, int]  # number of each label, by its text
    resize: int | None
    part: str = "train"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write all rows.

        Yields:
            One row for each file, and one for what was left out.
        """
        import pyarrow as pa
        from pyspark import TaskContext

        context = TaskContext.get()
        task = "0-0" if context is None else f"{context.partitionId()}-{context.taskAttemptId()}"
        reports = self._reports(batches, task)
        while True:
            try:
                report = next(reports, None)
            except OSError as error:
                report = {"failed": f"{socket.gethostname()}: {error}"}
            if report is None:
                return
            yield pa.RecordBatch.from_pydict({"report": [json.dumps(report)]})

    def _reports(self, batches: Iterator[pa.RecordBatch], task: str) -> Iterator[dict[str, Any]]:
        partition = _Partition(self, task)
        with quiet_decoder():
            for batch in batches:
                for row in range(batch.num_rows):
                    partition.take(batch, row)
                yield from partition.reports
                partition.reports.clear()
        yield from partition.end()


@dataclass
class _Open:
    """Records of one shape that are not written yet."""

    number: int  # of the file
    images: list[Pixels] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    targets: list[list[float]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


class _Partition:
    def __init__(self, writer: PartitionWriter, task: str) -> None:
        self._writer, self._task, self._files = writer, task, 0
        self._stem = f"{writer.token}-{task}"  # of the names of its files
        self._known = Known(Path(writer.folder))
        self._open: dict[tuple[int, ...], _Open] = {}
        self._rows: dict[str, list[tuple[bytes, int, int]]] = {}
        self._bad: list[tuple[str, str]] = []
        self._counts: Counter[str] = Counter()
        self._shapes: Counter[tuple[int, ...]] = Counter()
        self._labels: Counter[int] = Counter()
        self.reports: list[dict[str, Any]] = []

    def take(self, batch: pa.RecordBatch, row: int) -> None:
        writer, columns = self._writer, self._writer.columns
        cells = {name: batch.column(name)[row] for name in batch.schema.names}
        self._counts["rows"] += 1
        try:
            target = target_of(columns, cells, writer.classes)
            if target is None:
                self._counts["unlabelled"] += 1
                return
            weight = 1.0 if columns.weight is None else weight_of(cells[columns.weight].as_py())
            shape, place = self._place(picture_of(columns, cells), target, weight)
        except BadImageError as error:
            self._counts["bad"] += 1
            if len(self._bad) < MOST_BAD:
                self._bad.append((f"{self._task}[{self._counts['rows'] - 1}]", error.reason))
            return
        part = writer.part
        if columns.validation is not None and cells[columns.validation].as_py():
            part = "validation"
        self._counts["weighted"] += part == "train" and weight > 0
        self._rows.setdefault(part, []).append(place)
        self._shapes[shape] += 1
        if isinstance(target, int) and part == "train":
            self._labels[target] += 1

    def _place(
        self, picture: Picture, target: int | list[float], weight: float
    ) -> tuple[tuple[int, ...], tuple[bytes, int, int]]:
        """An image's shape, and the key and place of its record, which is made if it is new."""
        pixels = (
            None if isinstance(picture, EncodedPicture) else picture.pixels(self._writer.resize)
        )
        digest = hashlib.blake2b(repr((target, weight)).encode(), digest_size=16)
        if isinstance(picture, EncodedPicture):
            digest.update(picture.data)
        else:
            assert pixels is not None, "it was read"
            digest.update(repr(pixels.shape).encode())
            digest.update(np.ascontiguousarray(pixels).data)
        key = digest.digest()
        if (known := self._known.find(key)) is not None:
            return self._known.shapes[known[0]], (key, *known)
        pixels = picture.pixels(self._writer.resize) if pixels is None else pixels
        self._counts["decoded"] += 1
        there = self._open.get(pixels.shape)
        if there is None:
            there = self._open[pixels.shape] = _Open(self._files)
            self._files += 1
        there.images.append(pixels)
        there.labels.append(target if isinstance(target, int) else 0)
        there.targets.append([] if isinstance(target, int) else target)
        there.weights.append(weight)
        place = key, -1 - there.number, len(there.images) - 1
        if len(there.images) * pixels.nbytes >= FILE_BYTES:
            self._write(pixels.shape)
        return pixels.shape, place

    def _write(self, shape: tuple[int, ...]) -> None:
        there = self._open.pop(shape)
        columns, count = self._writer.columns, len(there.labels)
        targets = np.array(there.targets, np.float64) if columns.numbers else None
        weights = None if columns.weight is None else np.array(there.weights, np.float64)
        keys = content_keys(there.images, there.labels, targets, weights)
        names, groups = [f"row {key[:12]}" for key in keys], [""] * count
        images = np.stack(there.images)
        data = shard_files.encode(images, there.labels, names, groups, targets, weights, keys)
        saved = save(Path(self._writer.folder, f"{self._stem}-{there.number}.arrow"), data)
        told = {"number": there.number, "shape": list(shape), "count": count}
        self.reports.append({"wrote": told | saved})

    def end(self) -> list[dict[str, Any]]:
        for shape in list(self._open):
            self._write(shape)
        rows = {}
        for part, chosen in self._rows.items():
            rows[part] = f"{self._stem}-{part}.npy"
            np.save(Path(self._writer.folder, rows[part]), np.array(chosen, ROW))
        told = {
            "task": self._task,
            "rows": rows,
            "counts": dict(self._counts),
            "shapes": [[*shape, count] for shape, count in self._shapes.items()],
            "labels": dict(self._labels),
            "bad": self._bad,
        }
        return [*self.reports, told]


def target_of(
    columns: Columns, cells: Mapping[str, Any], classes: Mapping[str, int]
) -> int | list[float] | None:
    """What is to be learned of a row: the number of its class, or numbers; None if it has none.

    Raises:
        BadImageError: if it is nothing of the kind.
    """
    values = [cells[name].as_py() for name in columns.label]
    if not columns.numbers:
        text = label_text(values[0])
        if text is not None and text not in classes:
            raise BadImageError(f"its label {text} is none of the training rows'")
        return None if text is None else classes[text]
    if columns.kind == MULTI_LABEL and classes:  # a list of names
        if values[0] is None:
            return None
        names = {str(value) for value in values[0]}
        if not names <= classes.keys():
            raise BadImageError(f"its label {min(names - classes.keys())} is no training row's")
        return [float(name in names) for name in classes]
    numbers = numbers_of(values[0] if len(values) == 1 else values)
    if numbers is not None and len(numbers) != columns.numbers:
        raise BadImageError(f"{len(numbers)} numbers to learn: expected {columns.numbers}")
    if numbers is not None and columns.kind == MULTI_LABEL and not {*numbers} <= {0.0, 1.0}:
        raise BadImageError("its labels are not all 0 or 1")
    return numbers


def picture_of(columns: Columns, cells: Mapping[str, Any]) -> Picture:
    """One row's image.

    Args:
        columns: where it is.
        cells: Arrow scalars of the row, by column.

    Raises:
        BadImageError: if it is none.
    """
    cell = cells[columns.image.name]
    if not columns.is_path:
        return columns.image.picture(cell, {name: cells[name] for name in columns.image.beside})
    if not cell.is_valid:
        raise BadImageError("no image (null)")
    import fsspec

    if not (path := cell.as_py()):
        raise BadImageError("no path (an empty text)")
    try:
        with fsspec.open(_local(path)) as file:
            return EncodedPicture(file.read())
    except (OSError, ValueError, ImportError) as error:
        raise BadImageError(f"{path} cannot be read: {error}") from None


def _local(path: str) -> str:
    """A path as fsspec takes it; in Spark's own columns it may be a URL with encoded characters."""
    if not path.startswith("file:/"):
        return path
    plain = path.removeprefix("file:")
    return plain if Path(plain).exists() else unquote(plain)


@dataclass(frozen=True, kw_only=True)
class Widener:
    """Writes files of grey images anew in colour, since others of their set are."""

    folder: str
    token: str  # begins the names of files

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write each file that a row of JSON names, with its shape.

        Yields:
            For each, its name, and what is to be known of the new one.
        """
        import pyarrow as pa

        for batch in batches:
            for text in batch.column("report").to_pylist():
                name, shape = json.loads(text)
                old = shard_files.open_shard(Path(self.folder, name), (shape[0], *shape[1:]))
                data = shard_files.encode(
                    np.repeat(old.pixels, COLOR, axis=1),
                    old.labels.tolist(),
                    old.names.to_pylist(),
                    old.groups.to_pylist(),
                    old.targets,
                    old.weights,
                    old.keys.to_pylist(),
                )
                target = Path(self.folder, f"{self.token}-{name.replace('.', '-colour.')}")
                made = save(target, data) | {"count": len(old.labels)}
                yield pa.RecordBatch.from_pydict({"report": [json.dumps([name, made])]})


def save(path: Path, data: bytes) -> dict[str, Any]:
    """Write a file, all at once; what the driver has to know of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
    return {
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def numbers_of(value: Any) -> list[float] | None:
    """A label as numbers; None if there is none, or one is missing.

    >>> numbers_of(2), numbers_of([1.0, 2.5]), numbers_of(float("nan")), numbers_of(None)
    ([2.0], [1.0, 2.5], None, None)
    >>> numbers_of({"type": 0, "size": 3, "indices": [1], "values": [4.0]})
    [0.0, 4.0, 0.0]
    """
    if isinstance(value, dict) and value["type"] == 0:  # Spark's sparse vector
        found = dict(zip(value["indices"], value["values"], strict=True))
        value = [found.get(place, 0.0) for place in range(value["size"])]
    elif isinstance(value, dict):
        value = value["values"]
    if value is None:
        return None
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if any(v is None or not np.isfinite(float(v)) for v in numbers):
        return None
    return [float(v) for v in numbers]


def weight_of(value: Any) -> float:
    """How much a row counts.

    Raises:
        BadImageError: if that is no number from 0.
    """
    if value is None or not (np.isfinite(float(value)) and float(value) >= 0):
        raise BadImageError(f"its weight is {value}: expected a number from 0")
    return float(value)


def label_text(value: Any) -> str | None:
    """A label as the text by which its class is known; None if there is none.

    >>> [label_text(value) for value in (3.0, "cat", True, None, b"x", "")]
    ['3', 'cat', 'True', None, 'x', None]
    """
    if value is None or value != value:
        return None
    if isinstance(value, bool | str):
        return class_name(str(value))
    if isinstance(value, bytes | bytearray):  # Spark's rows hold the latter
        return class_name(value.decode("utf-8", "backslashreplace"))
    return str(int(value)) if float(value).is_integer() else str(value)
