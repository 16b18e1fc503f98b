"""Labels of a table's rows, and the classes that they make."""

import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json
from sixfold.data.dataset import UNLABELLED
from sixfold.data.formats.folder import sort_classes
from sixfold.data.formats.table_files import TableFile, opened

Label = int | str | None
MOST_NAME = 1000  # Characters of a class's name


def read_labels(files: Sequence[TableFile], column: str, *, labelled: bool) -> list[list[Label]]:
    """Label of every row of every file; None where there is none.

    Numbers that are no classes are refused if `labelled`, else None.
    """
    whole = _whole_numbers([file.folders.get(column) for file in files])
    found: list[list[Label]] = []
    for file in files:
        if column in file.folders:
            value = class_name(file.folders[column] or "")
            found.append([whole.get(value or "", value)] * file.rows)
        elif column in file.columns:
            found.append(_from_file(file, column, labelled))
        else:
            found.append([None] * file.rows)
    return found


def _whole_numbers(values: Sequence[str | None]) -> dict[str, Label]:
    """Folders' names that all are numbers, such as StringIndexer's 3.0, as these; else nothing."""
    given = {value for value in values if value is not None}
    if all(re.fullmatch(r"(0|-?[1-9]\d{0,17})(\.0)?", value) for value in given):
        return {value: int(value.partition(".")[0]) for value in given}
    return {}


def _from_file(file: TableFile, column: str, labelled: bool) -> list[Label]:
    with opened(file.path) as table:
        values = table.read(columns=[column]).column(column).to_pylist()
    return [_label(file, column, value, labelled) for value in values]


def _label(file: TableFile, column: str, value: object, labelled: bool) -> Label:
    if value is None or value != value:  # NaN is how pandas writes that there is none
        return None
    if isinstance(value, float | Decimal):
        if value in (float("inf"), float("-inf")) or value != int(value):
            if not labelled:
                return None
            raise UserError(
                f"{file.path}: column {column!r} holds {value}, which is no class: expected whole "
                "numbers or text"
            )
        return int(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes | str) and len(value) > MOST_NAME:
        raise UserError(
            f"{file.path}: column {column!r} holds a text of {len(value)} characters, which is no "
            "class's name: give the column of labels (--label-column)"
        )
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, int) else class_name(str(value))


def class_name(text: str) -> str | None:
    """A class's name; None for empty text, which is how text files write that there is none."""
    return text if text.strip() else None


def classify(
    labels: Sequence[Sequence[Label]], files: Sequence[TableFile], column: str, *, labelled: bool
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Names of the classes, and the number of each row's; -1 where it has none.

    If `labelled`, every row should have a label; else negative numbers mean none.
    """
    values = {value for file in labels for value in file if value is not None}
    negative = sorted(v for v in values if isinstance(v, int) and v < 0)
    if negative and labelled:
        raise UserError(
            f"column {column!r}: labels out of range: {', '.join(map(str, negative[:10]))}: "
            "expected 0 or more (some sets hide their test labels as -1)"
        )
    values -= set(negative)
    given = _given_names(files, column)
    number: dict[Label, int] = {}
    if given and values and all(isinstance(value, int) for value in values):
        numbers = [value for value in values if isinstance(value, int)]
        if max(numbers) >= len(given):
            raise UserError(
                f"column {column!r}: labels out of range: {max(numbers)}: the file names "
                f"{len(given)} classes, 0 to {len(given) - 1}"
            )
        # As where no names are given: a class that no row has is none.
        used = sorted(set(numbers))
        names, number = tuple(given[v] for v in used), {v: place for place, v in enumerate(used)}
    else:
        names = tuple(sort_classes({str(value) for value in values}))
        place = {name: index for index, name in enumerate(names)}
        number = {value: place[str(value)] for value in values}
    return names, [np.array([number.get(v, -1) for v in file], np.int64) for file in labels]


def with_unlabelled(
    classes: tuple[str, ...], numbers: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Classes and labels with a class of its own for rows that have none."""
    if (numbers >= 0).all():
        return classes, numbers
    return (*classes, UNLABELLED), np.where(numbers < 0, len(classes), numbers)


def _given_names(files: Sequence[TableFile], column: str) -> tuple[str, ...]:
    """Names of the classes as Hugging Face's `datasets` or Spark's StringIndexer leave them."""
    found: dict[tuple[str, ...], TableFile] = {}
    for each in files:
        if names := _names_in(each, column):
            found.setdefault(names, each)
    if len(found) > 1:
        (names, file), (others, other) = list(found.items())[:2]
        place = next(
            (i for i, pair in enumerate(zip(names, others, strict=False)) if pair[0] != pair[1]),
            min(len(names), len(others)),
        )
        shown = [repr(n[place]) if place < len(n) else "nothing" for n in (names, others)]
        raise UserError(
            f"column {column!r}: {place} means {shown[0]} in {file.path}, but {shown[1]} in "
            f"{other.path}: index them together, or give the column of names (--label-column)"
        )
    return next(iter(found), ())


def _names_in(file: TableFile, column: str) -> tuple[str, ...]:
    names: tuple[str, ...] = ()
    try:
        features = parse_json(file.metadata[b"huggingface"])["info"]["features"]
        names = tuple(str(name) for name in features[column]["names"])
    except (KeyError, TypeError, ValueError):
        pass
    try:
        row = parse_json(file.metadata[b"org.apache.spark.sql.parquet.row.metadata"])
        (field,) = (field for field in row["fields"] if field["name"] == column)
        names = names or tuple(str(name) for name in field["metadata"]["ml_attr"]["vals"])
    except (KeyError, TypeError, ValueError):
        pass
    return names if len(set(names)) == len(names) else ()
