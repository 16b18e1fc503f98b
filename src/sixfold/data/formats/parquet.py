"""Images in Parquet files: encoded pictures, Hugging Face's structs, tensors or nested lists.

Columns are found by their names, or given. An image is one of: bytes of a JPEG, PNG or the like; a
struct with such bytes (``{bytes, path}``, as Hugging Face writes); Arrow's fixed-shape tensor, one
of whose dimensions may be the channels; a nested list (rows x columns, or with channels first or
last); or one flat list, channel after channel. Numbers are 0 to 255, or 0 to 1 in floating point.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data import paths
from sixfold.data.formats.columns import choose, classify, common_schema, read_labels, readable
from sixfold.data.formats.folder import (
    TEST_FRACTION,
    TEST_NAMES,
    VALIDATION_NAMES,
    empty_classes_problem,
)
from sixfold.data.formats.tensors import PixelLayout, layout_of
from sixfold.data.images import BadImageError
from sixfold.data.records import ArrayPicture, BadPicture, EncodedPicture, Listing, Picture
from sixfold.data.splits import cut
from sixfold.errors import UserError

SUFFIXES = (".parquet", ".pq", ".parq")
READ_ROWS = 64
"""Rows decoded at a time: bounds memory where row groups are large."""


@dataclass(frozen=True)
class TableRecords:
    """Rows of Parquet files.

    Attributes:
        files: paths or URLs.
        file: which file each record is in, (N,).
        row: which row of it, (N,), ascending within each file.
        labels: class of each record, (N,).
        column: name of the image column.
        layout: how pixels lie in it; None: encoded pictures.
    """

    files: tuple[str, ...]
    file: NDArray[np.int64]
    row: NDArray[np.int64]
    labels: NDArray[np.int64]
    column: str
    layout: PixelLayout | None

    def take(self, indices: NDArray[np.int64]) -> TableRecords:
        """See `Records.take`."""
        return TableRecords(
            self.files,
            self.file[indices],
            self.row[indices],
            self.labels[indices],
            self.column,
            self.layout,
        )

    def chunk(self, start: int, stop: int) -> TableChunk:
        """See `Records.chunk`."""
        taken = self.take(np.arange(start, min(stop, len(self.labels))))
        used, places = np.unique(taken.file, return_inverse=True)
        files = tuple(self.files[int(index)] for index in used)
        return TableChunk(
            TableRecords(files, places, taken.row, taken.labels, self.column, self.layout)
        )


@dataclass(frozen=True)
class TableChunk:
    """A chunk of `TableRecords`."""

    records: TableRecords

    @property
    def names(self) -> Sequence[str]:
        """File and row of each record."""
        files = [paths.base_name(file) for file in self.records.files]
        return [
            f"{files[file]}[{row}]"
            for file, row in zip(self.records.file, self.records.row, strict=True)
        ]

    @property
    def labels(self) -> Sequence[int]:
        """See `Chunk`."""
        labels: list[int] = self.records.labels.tolist()
        return labels

    @property
    def groups(self) -> Sequence[str]:
        """None of them."""
        return [""] * len(self.records.labels)

    def pictures(self) -> Iterator[Picture]:
        """See `Chunk.pictures`."""
        for number, file in enumerate(self.records.files):
            rows = self.records.row[self.records.file == number]
            for value in _values(file, self.records.column, rows):
                try:
                    yield _picture(value, self.records.layout)
                except BadImageError as error:
                    yield BadPicture(error)


def _picture(value: Any, layout: PixelLayout | None) -> Picture:
    """Arrow scalar to picture."""
    if not value.is_valid:
        raise BadImageError("no image (null)")
    if layout is not None:
        return ArrayPicture(layout.pixels(value))
    if hasattr(value, "items"):  # a struct
        value = value["bytes"]
        if not value.is_valid:
            raise BadImageError("no bytes (null): the file that `path` names is not looked for")
    return EncodedPicture(value.as_py())


def _values(path: str, column: str, rows: NDArray[np.int64]) -> Iterator[Any]:
    """Arrow scalars of one column at ascending rows, reading only the row groups they are in."""
    import pyarrow.parquet as pq

    with readable(path), paths.open_file(path) as source, pq.ParquetFile(source) as file:
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        for group in np.unique(np.searchsorted(starts, rows, side="right") - 1):
            start = int(starts[group])
            wanted = rows[(rows >= start) & (rows < starts[group + 1])]
            for batch in file.iter_batches(READ_ROWS, row_groups=[int(group)], columns=[column]):
                stop = start + batch.num_rows
                for row in wanted[(wanted >= start) & (wanted < stop)]:
                    yield batch.column(0)[int(row) - start]
                start = stop
                if start > wanted[-1]:
                    break


def read(path: str, name: str) -> Listing:
    """List the rows of a file, or of all files below a folder.

    Rows for training and for testing are told apart by the names of folders and files ("train",
    "test", else "val"); where there is no such name, 80 to 20, stratified.

    Args:
        path: file, folder or URL.
        name: of the data set.

    Raises:
        UserError: with everything that is wrong with files, columns and labels.
    """
    sides, split = _files(path)
    files = tuple(file for names in sides.values() for file in names)
    schema = common_schema(files)
    image = choose(path, schema, "image")
    label = choose(path, schema, "label")
    layout = layout_of(files[0], schema.field(image))
    columns = [read_labels(file, label) for file in files]
    problems = [
        f"{file}: column {label!r} is null in {values.null_count} rows: remove them"
        for file, values in zip(files, columns, strict=True)
        if values.null_count
    ]
    if problems:
        raise UserError(problems)
    classes, numbers = classify([values.to_pylist() for values in columns], schema, label)
    test_files = len(sides.get("test", ()))
    parts = _parts(files, numbers, len(files) - test_files, image, layout)
    problems = _problems(path, label, classes, parts)
    if problems:
        raise UserError(problems)
    return Listing(name=name, classes=classes, parts=parts, split=split)


def _parts(
    files: tuple[str, ...],
    numbers: Sequence[NDArray[np.int64]],
    train_files: int,
    image: str,
    layout: PixelLayout | None,
) -> dict[str, TableRecords]:
    lengths = [len(values) for values in numbers]
    everything = TableRecords(
        files,
        np.repeat(np.arange(len(files)), lengths),
        np.concatenate([np.arange(length) for length in lengths]),
        np.concatenate(numbers),
        image,
        layout,
    )
    if train_files < len(files):
        test = everything.file >= train_files
    else:
        test = cut(everything.labels, TEST_FRACTION, purpose="test")
    return {
        "train": everything.take(np.flatnonzero(~test)),
        "test": everything.take(np.flatnonzero(test)),
    }


def _problems(
    path: str, label: str, classes: Sequence[str], parts: dict[str, TableRecords]
) -> list[str]:
    if len(classes) < 2:
        return [f"{path}: column {label!r} has {len(classes)} classes: expected at least two"]
    counts = np.bincount(parts["train"].labels, minlength=len(classes))
    empty = [classes[number] for number in np.flatnonzero(counts == 0).tolist()]
    return [empty_classes_problem(path, "train", empty)] if empty else []


def _files(path: str) -> tuple[dict[str, list[str]], str]:
    """Files of each part, and how they were told apart."""
    if not paths.look(path).is_folder:
        return {"train": [path]}, "80/20, stratified by class"
    names = [
        entry.name
        for entry in paths.walk(path)
        if entry.name.lower().endswith(SUFFIXES)
        and not entry.is_folder
        and not paths.base_name(entry.name).startswith("_")
    ]
    if not names:
        raise UserError(f"{path}: no files *.parquet in it")
    for sides in (TEST_NAMES, VALIDATION_NAMES):
        test = [name for name in names if _mentions(name, sides)]
        train = [name for name in names if _mentions(name, ("train", "training"))]
        if test and train and not set(test) & set(train):
            split = f"names with train and with {sides[0]}"
            return {
                "train": [paths.join(path, name) for name in train],
                "test": [paths.join(path, name) for name in test],
            }, split
    train = [name for name in names if _mentions(name, ("train", "training"))] or names
    return {"train": [paths.join(path, name) for name in train]}, "80/20, stratified by class"


def _mentions(name: str, words: Sequence[str]) -> bool:
    return bool(set(re.split(r"[^a-z]+", name.lower())) & set(words))
