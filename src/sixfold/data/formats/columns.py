"""Which columns of a Parquet file are the images and the labels, and which classes there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data import paths
from sixfold.data.formats.folder import sort_classes
from sixfold.errors import UserError

IMAGE_NAMES = (
    *("image", "img", "images", "pixels", "pixel_values", "picture", "photo"),
    *("image_bytes", "jpeg", "jpg", "png", "bytes", "data", "features", "x"),
)
LABEL_NAMES = (
    *("label", "class", "target", "labels", "category", "class_id", "class_name", "classname"),
    *("label_name", "fine_label", "y"),
)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: not a readable Parquet file, or damaged ({reason}): fetch it again"
        ) from None


def common_schema(files: Sequence[str]) -> Any:
    """The schema that all files must have."""
    import pyarrow.parquet as pq

    schemas: list[Any] = []
    problems: list[str] = []
    for file in files:
        try:
            with readable(file), paths.open_file(file) as source:
                schemas.append(pq.read_schema(source))
        except UserError as error:
            problems += error.problems
    problems += [
        f"{file}: columns {_describe(schema)} differ from those of {files[0]}: "
        f"{_describe(schemas[0])}"
        for file, schema in zip(files, schemas, strict=False)
        if not schema.equals(schemas[0]) and not problems
    ]
    if problems:
        raise UserError(problems)
    return schemas[0]


def _describe(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"


def choose(path: str, schema: Any, what: str) -> str:
    """Name of the column that best fits.

    Args:
        path: for messages.
        schema: of the files.
        what: "image" or "label".

    Raises:
        UserError: if none does; names the columns that there are.
    """
    names, fits = (IMAGE_NAMES, _is_image) if what == "image" else (LABEL_NAMES, _is_label)
    by_name = {field.name.lower(): field for field in reversed(list(schema))}
    for name in names:
        if name in by_name and fits(by_name[name].type):
            return str(by_name[name].name)
    raise UserError(
        f"{path}: no {what} column: expected one called {', '.join(names[:6])} or so, of a fitting "
        f"type; there are {_describe(schema)}"
    )


def _is_image(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    binary = types.is_binary(kind) or types.is_large_binary(kind)
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(binary or lists) or hasattr(kind, "extension_name")


def _is_label(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _is_label(kind.value_type)
    kinds = (types.is_integer, types.is_string, types.is_large_string, types.is_boolean)
    return any(is_kind(kind) for is_kind in kinds)


def read_labels(path: str, column: str) -> Any:
    """One column of a file, as Arrow's chunked array."""
    import pyarrow.parquet as pq

    with readable(path), paths.open_file(path) as source:
        return pq.read_table(source, columns=[column]).column(0)


def classify(
    columns: Sequence[Sequence[Any]], schema: Any, label: str
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Names of the classes, and the number of each row's."""
    values = {value for column in columns for value in column}
    if not values:
        raise UserError("the Parquet files have no rows")
    negative = sorted(v for v in values if isinstance(v, int) and not isinstance(v, bool) and v < 0)
    if negative:
        raise UserError(
            f"column {label!r}: labels out of range: {', '.join(map(str, negative[:10]))}: "
            "expected 0 or more (some sets hide their test labels as -1)"
        )
    given = _huggingface_names(schema, label)
    if given and all(isinstance(value, int) for value in values):
        if max(values) >= len(given):
            raise UserError(
                f"column {label!r}: labels out of range: {max(values)}: the file names "
                f"{len(given)} classes, 0 to {len(given) - 1}"
            )
        return given, [np.array(column, np.int64) for column in columns]
    names = tuple(sort_classes({str(value) for value in values}))
    number = {name: index for index, name in enumerate(names)}
    return names, [np.array([number[str(v)] for v in column], np.int64) for column in columns]


def _huggingface_names(schema: Any, label: str) -> tuple[str, ...]:
    """Names of the classes as Hugging Face's `datasets` leaves them in the schema, if it did."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
        return tuple(str(name) for name in names)
    except (KeyError, TypeError, ValueError):
        return ()
