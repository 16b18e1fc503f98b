"""What an executor does with a partition of a table of images: it writes tensor shards.

Every image is decoded and resized once, where its row is, and goes to the shared folder from there;
the driver hears of files, counts and bad rows. A record is named by a key of its content (pixels,
label, weight), by which the whole set is ordered afterwards: so the same rows make the same set
however they are partitioned, and in whatever order tasks run. A file's name holds the task's
attempt; the driver lists files of the attempts that Spark accepted, so a task that is tried twice
or speculatively counts once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sixfold.data import shard_files
from sixfold.data.formats.tensors import ImageColumn
from sixfold.data.images import BadImageError, Pixels, quiet_decoder
from sixfold.data.records import EncodedPicture, Picture
from sixfold.data.shard_building import COLOR, GRAY, content_keys

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
    label: str | None = None
    numbers: int = 0  # how many numbers a label is; 0: it is a class
    weight: str | None = None
    validation: str | None = None  # a boolean: whether a row is for validation


@dataclass(frozen=True, kw_only=True)
class PartitionWriter:
    """Writes the rows of a partition; called by Spark with its record batches."""

    folder: str
    columns: Columns
    classes: Mapping[str, int]  # number of each label, by its text
    resize: int | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write all rows.

        Yields:
            One row for each file, and one for what was left out.
        """
        import pyarrow as pa
        from pyspark import TaskContext

        context = TaskContext.get()
        task = "0-0" if context is None else f"{context.partitionId()}-{context.taskAttemptId()}"
        partition = _Partition(self, task)
        with quiet_decoder():
            for batch in batches:
                for row in range(batch.num_rows):
                    partition.take(batch, row)
                for report in partition.reports:
                    yield pa.RecordBatch.from_pydict({"report": [json.dumps(report)]})
                partition.reports.clear()
        for report in partition.end():
            yield pa.RecordBatch.from_pydict({"report": [json.dumps(report)]})


@dataclass
class _Open:
    """Records of one part and shape that are not written yet."""

    images: list[Pixels] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    targets: list[list[float]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


class _Partition:
    def __init__(self, writer: PartitionWriter, task: str) -> None:
        self._writer, self._task, self._files = writer, task, 0
        self._open: dict[tuple[str, tuple[int, ...]], _Open] = {}
        self._bad: list[tuple[str, str]] = []
        self._counts: Counter[str] = Counter()
        self.reports: list[dict[str, Any]] = []

    def take(self, batch: pa.RecordBatch, row: int) -> None:
        writer, columns = self._writer, self._writer.columns
        cells = {name: batch.column(name)[row] for name in batch.schema.names}
        self._counts["rows"] += 1
        given = None if columns.label is None else cells[columns.label].as_py()
        target = numbers_of(given) if columns.numbers else None
        text = None if columns.numbers else label_text(given)
        if text is None and target is None:
            self._counts["unlabelled"] += 1
            return
        try:
            weight = 1.0 if columns.weight is None else weight_of(cells[columns.weight].as_py())
            pixels = picture_of(columns, cells).pixels(writer.resize)
            if target is not None and len(target) != columns.numbers:
                raise BadImageError(f"{len(target)} numbers to learn: expected {columns.numbers}")
        except BadImageError as error:
            self._counts["bad"] += 1
            if len(self._bad) < MOST_BAD:
                self._bad.append((f"{self._task}[{self._counts['rows'] - 1}]", error.reason))
            return
        part = "train"
        if columns.validation is not None and cells[columns.validation].as_py():
            part = "validation"
        there = self._open.setdefault((part, pixels.shape), _Open())
        there.images.append(pixels)
        there.labels.append(0 if text is None else writer.classes[text])
        there.targets.append(target or [])
        there.weights.append(weight)
        if len(there.images) * pixels.nbytes >= FILE_BYTES:
            self._write(part, pixels.shape)

    def _write(self, part: str, shape: tuple[int, ...]) -> None:
        there = self._open.pop((part, shape))
        columns, count = self._writer.columns, len(there.labels)
        targets = np.array(there.targets, np.float64) if columns.numbers else None
        weights = None if columns.weight is None else np.array(there.weights, np.float64)
        keys = content_keys(there.images, there.labels, targets, weights)
        names, groups = [f"row {key[:12]}" for key in keys], [""] * count
        images = np.stack(there.images)
        data = shard_files.encode(images, there.labels, names, groups, targets, weights, keys)
        name = f"{part}-{self._task}-{self._files}.arrow"
        self._files += 1
        self.reports.append(
            {
                "part": part,
                "shape": list(shape),
                "count": count,
                "labels": dict(Counter(there.labels)),
            }
            | save(Path(self._writer.folder, name), data)
        )

    def end(self) -> list[dict[str, Any]]:
        for part, shape in list(self._open):
            self._write(part, shape)
        return [*self.reports, {"counts": dict(self._counts), "bad": self._bad}]


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

    path = cell.as_py()
    try:
        with fsspec.open(path.removeprefix("file:") if path.startswith("file:/") else path) as file:
            return EncodedPicture(file.read())
    except (OSError, ValueError, ImportError) as error:
        raise BadImageError(f"{path} cannot be read: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Widener:
    """Writes files of grey images anew in colour, since others of their set are."""

    folder: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write each file that a row of JSON reports.

        Yields:
            The reports of the new files.
        """
        import pyarrow as pa

        for batch in batches:
            for text in batch.column("report").to_pylist():
                report = json.loads(text)
                _, rows, columns = report["shape"]
                old = shard_files.open_shard(
                    Path(self.folder, report["file"]), (GRAY, rows, columns)
                )
                data = shard_files.encode(
                    np.repeat(old.pixels, COLOR, axis=1),
                    old.labels.tolist(),
                    old.names.to_pylist(),
                    old.groups.to_pylist(),
                    old.targets,
                    old.weights,
                    old.keys.to_pylist(),
                )
                name = report["file"].replace(".arrow", "-colour.arrow")
                changed = save(Path(self.folder, name), data)
                new = report | changed | {"shape": [COLOR, rows, columns]}
                yield pa.RecordBatch.from_pydict({"report": [json.dumps(new)]})


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
    """
    if isinstance(value, dict):  # Spark's dense vector
        value = value.get("values")
    if value is None:
        return None
    found = list(value) if isinstance(value, list | tuple) else [value]
    if any(v is None or not np.isfinite(float(v)) for v in found):
        return None
    return [float(v) for v in found]


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

    >>> label_text(3.0), label_text("cat"), label_text(True), label_text(None), label_text(b"x")
    ('3', 'cat', 'True', None, 'x')
    """
    if value is None or value != value:
        return None
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(int(value)) if float(value).is_integer() else str(value)
