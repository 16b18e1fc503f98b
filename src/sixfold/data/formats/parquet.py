"""Images in Parquet files, as Spark, Hugging Face and pandas write them.

Columns are found by their names, or given. An image is one of: bytes of a JPEG, PNG or the like
(Spark's ``binaryFile``); a struct with such bytes (``{bytes, path}``, as Hugging Face writes);
Spark's image struct, or its fields; Spark's dense or sparse vector; Arrow's fixed-shape tensor, one
of whose dimensions may be the channels; a nested list (rows x columns, or with channels first or
last); or one flat list, channel after channel. Numbers are 0 to 255, or 0 to 1 in floating point.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, raise_problems
from sixfold.data import paths
from sixfold.data.formats.columns import choose, describe, no_column
from sixfold.data.formats.folder import TEST_FRACTION, empty_classes
from sixfold.data.formats.labels import classify, read_labels, with_unlabelled
from sixfold.data.formats.table_files import (
    TableFile,
    by_part,
    list_files,
    opened,
    refuse_inflated,
)
from sixfold.data.formats.target_columns import (
    choose_targets,
    read_targets,
    read_weights,
    refuse_targets,
)
from sixfold.data.formats.tensors import ImageColumn, image_column
from sixfold.data.images import BadImageError
from sixfold.data.manifest import shortened
from sixfold.data.records import BadPicture, Listing, Picture, RowRecords
from sixfold.data.spec import TableOptions
from sixfold.data.splits import cut, strata
from sixfold.data.targets import CLASSES, MULTI_LABEL, REGRESSION

READ_ROWS = 64  # Rows decoded at a time: bounds memory where row groups are large
READ_BYTES = 2**27
"""At a time, at most, were each of the rows the largest: many may be one entry of a dictionary."""


@dataclass(frozen=True, kw_only=True)
class TableRecords(RowRecords):
    """Rows of Parquet files: the path or URL of each, and its name relative to the data."""

    column: ImageColumn  # where the images are
    groups: Sequence[str] = ()

    @property
    def names(self) -> Sequence[str]:
        """File, relative to the data, and row of each record."""
        return [
            f"{self.files[file][1]}[{row}]" for file, row in zip(self.file, self.row, strict=True)
        ]

    def pictures(self) -> Iterator[Picture]:
        column = self.column
        for number, (path, _) in enumerate(self.files):
            rows = self.row[self.file == number]
            for cells in _cells(path, (column.name, *column.beside), rows):
                try:
                    yield column.picture(cells[column.name], cells)
                except BadImageError as error:
                    yield BadPicture(error)


def _cells(path: str, columns: Sequence[str], rows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Arrow scalars of columns at ascending rows, reading only the row groups they are in.

    A column that the file does not have gives None.
    """
    with opened(path) as file:
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        for group in np.unique(np.searchsorted(starts, rows, side="right") - 1):
            start = int(starts[group])
            wanted = rows[(rows >= start) & (rows < starts[group + 1])]
            at_once = _rows_at_once(file.metadata.row_group(int(group)), columns)
            for batch in file.iter_batches(at_once, row_groups=[int(group)], columns=columns):
                stop = start + batch.num_rows
                places = {name: batch.schema.get_field_index(name) for name in columns}
                for row in wanted[(wanted >= start) & (wanted < stop)]:
                    yield {
                        name: batch.column(place)[int(row) - start] if place >= 0 else None
                        for name, place in places.items()
                    }
                start = stop
                if start > wanted[-1]:
                    break


def _rows_at_once(group: Any, columns: Sequence[str]) -> int:
    """How many rows to decode together: each may be the largest entry of its column's dictionary.

    An entry has at most what compression has saved in the chunk, and the dictionary itself.
    """
    largest = 1
    for place in range(group.num_columns):
        chunk = group.column(place)
        is_bytes = chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page
        if is_bytes and chunk.path_in_schema.partition(".")[0] in columns:
            dictionary = chunk.data_page_offset - chunk.dictionary_page_offset
            saved = chunk.total_uncompressed_size - chunk.total_compressed_size
            largest = max(largest, saved + dictionary)
    return max(1, min(READ_ROWS, READ_BYTES // largest))


def read(path: str, name: str, options: TableOptions) -> Listing:
    """List the rows of a file, or of all files below a folder or URL.

    Rows for training, validation and testing are told apart by the names of folders and files
    ("train", "validation", "test"); where there is no such name, 80 to 20, stratified. Rows without
    a label are left out (and counted), or are a class of their own in the test part.
    """
    files, others = list_files(path)
    image = choose(path, files, "image", options.image)
    if image is None:
        raise no_column(path, files, "image")
    several = options.target in (MULTI_LABEL, REGRESSION)
    columns = choose_targets(path, files, options) if several else []
    label = ", ".join(columns) if columns else None
    if not several:
        label = choose(path, files, "label", options.label)
    if label is None and options.labelled:
        raise no_column(path, files, "label")
    if image in (label, *columns):
        raise UserError(f"{path}: column {image!r} cannot be both image and label")
    _refuse_strangers(files, image, columns or [label])
    refuse_inflated(files, {image, label, *columns, options.weight})
    named, split = by_part(files)
    unused = [file for file in files if not any(file in part for part in named.values())]
    files = [file for part in named.values() for file in part]
    part_of = np.array([part for part, of_part in named.items() for _ in of_part])
    rows = sum(file.rows for file in files)
    targets = None
    if several and columns:
        classes, targets = read_targets(files, columns, options)
        numbers = [np.where(np.isnan(targets).any(1), -1, 0)]
    else:
        labels = (
            [[None] * file.rows for file in files]
            if label is None
            else read_labels(files, label, labelled=options.labelled)
        )
        classes, numbers = classify(labels, files, label or "", labelled=options.labelled)
    weights = None if options.weight is None else read_weights(path, files, options.weight)
    column, pixels = image_column(files, image, options.pixel_range)
    everything = TableRecords(
        files=tuple((file.path, file.name) for file in files),
        file=np.repeat(np.arange(len(files)), [file.rows for file in files]),
        row=np.concatenate([np.arange(file.rows) for file in files]),
        labels=np.concatenate(numbers),
        column=column,
        targets=targets,
        weights=weights,
    )
    assert len(everything.labels) == rows, "one label a row"
    known = everything.labels >= 0
    row_part = part_of[everything.file]
    tested = row_part == "test" if "test" in named else _cut_off(everything, options.target)
    validated = row_part == "validation"
    if options.labelled and several:
        refuse_targets(path, str(label), everything.targets)
    elif options.labelled:
        _refuse_labels(path, str(label), everything, ~tested & ~validated, classes)
    else:
        classes, classified = with_unlabelled(classes, everything.labels)
        everything = dataclasses.replace(everything, labels=classified)
        tested |= ~known & ~validated
    lost = int((~known).sum()) if options.labelled else 0
    left_out = [(file.name, f"rows of a part that is not used: {file.rows}") for file in unused]
    left_out += others
    if lost:
        left_out.append((paths.base_name(path), f"rows without a label (column {label!r}): {lost}"))
    kept = known if options.labelled else np.ones_like(known)
    chosen = {"train": ~tested & ~validated, "test": tested}
    if "validation" in named:
        chosen["validation"] = validated
    return Listing(
        name=name,
        classes=classes,
        parts={part: everything.take(np.flatnonzero(kept & of)) for part, of in chosen.items()},
        split=split if known.any() else "all rows",
        left_out=tuple(left_out),
        unlabelled=lost,
        skipped=lost + sum(file.rows for file in unused),
        pixels=pixels,
        pixel_range=column.pixel_range,
        kind=options.target if several and columns else CLASSES,
    )


def _cut_off(rows: TableRecords, kind: str) -> NDArray[np.bool_]:
    """Which rows are set aside for testing: of those with labels, whatever others there are."""
    tested = np.zeros(len(rows.labels), np.bool_)
    known = np.flatnonzero(rows.labels >= 0)
    targets = None if rows.targets is None else rows.targets[known]
    layers = strata(rows.labels[known], targets, kind)
    tested[known] = cut(layers, TEST_FRACTION, purpose="test")
    return tested


def _refuse_strangers(files: Sequence[TableFile], image: str, labels: Sequence[str | None]) -> None:
    """Refuse files that lack both columns: a table may gain columns, but these are of another."""
    first = next(file for file in files if image in file.columns)
    problems = [
        f"{file.path}: has no column {image!r}, which {first.path} has; it holds "
        f"{describe(file.columns)}: remove it, if it is of another table"
        for file in files
        if image not in file.columns
        and all(label not in file.columns or label in file.folders for label in labels)
    ]
    if problems:
        raise UserError(shortened(problems))


def _refuse_labels(
    path: str, label: str, rows: TableRecords, trained: NDArray[np.bool_], classes: Sequence[str]
) -> None:
    """Refuse a table from which nothing can be learned."""
    known = rows.labels >= 0
    if not known.any():
        raise UserError(
            f"{path}: column {label!r} is null in all {len(known)} rows: there is nothing to learn "
            "from; `sixfold predict` scores them"
        )
    if len(classes) < 2:
        raise UserError(f"{path}: column {label!r} names one class: expected at least two")
    learned = rows.labels[known & trained]
    raise_problems(empty_classes(path, "train", learned, classes, classes))
