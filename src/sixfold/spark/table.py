"""What the columns of a DataFrame of images hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import UserError
from sixfold.data.formats.columns import (
    IMAGE_NAMES,
    LABEL_NAMES,
    SPARK_IMAGE,
    choose,
    describe,
    image_form,
    no_column,
    no_such_column,
)
from sixfold.data.formats.folder import sort_classes
from sixfold.data.formats.tensors import ImageColumn, column_range
from sixfold.data.targets import MULTI_LABEL, REGRESSION
from sixfold.spark.writing import label_text

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import DataType

MOST_CLASSES = 100_000
"""More different labels are no classes: a column of identifiers, or of measurements."""

PATH_NAMES = ("path", "file", "filename", "image_path", "file_name", "uri", "url")
"""Text columns that are taken for paths of images, where no column holds the images themselves."""

UNIT_SAMPLE = 64
"""Rows that are looked at to tell what floating-point numbers mean."""


@dataclass(frozen=True)
class SchemaAsTable:
    """A DataFrame's columns in the form in which tables in files are looked at."""

    path: str
    columns: dict[str, Any]  # Arrow type of each column
    folders: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Targets:
    """What there is to learn: names of classes, labels or numbers."""

    names: tuple[str, ...]
    numbers: dict[str, int] = field(default_factory=dict)  # of each label, by its text
    width: int = 0  # how many numbers a row has; 0: a class


def refuse_other_tables(df: object) -> None:
    """Refuse what is no DataFrame of Spark, or has no end.

    Raises:
        UserError: if it is one of these.
    """
    if not hasattr(df, "sparkSession"):
        kind = f"{type(df).__module__}.{type(df).__qualname__}"
        raise UserError(
            f"expected a DataFrame of Spark, as spark.createDataFrame makes, not {kind}"
        )
    if getattr(df, "isStreaming", False):
        raise UserError(
            "a network is trained on a table with an end, and this DataFrame is a stream: read it "
            "by spark.read (transform scores streams)"
        )


def arrow_type(kind: DataType) -> Any:
    """Spark's type as Arrow's; None if Arrow has none like it."""
    import pyarrow as pa
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import to_arrow_type

    if kind.typeName() == "timestamp":  # for which pyspark 4.3 wants to be told a time zone
        return pa.timestamp("us", "UTC")
    try:
        return to_arrow_type(kind)
    except (PySparkException, NotImplementedError, TypeError, AssertionError):
        return None


def schema_of(df: DataFrame) -> SchemaAsTable:
    """The columns of a DataFrame that Arrow knows."""
    kinds = {each.name: arrow_type(each.dataType) for each in df.schema.fields}
    found = {name: kind for name, kind in kinds.items() if kind is not None}
    return SchemaAsTable("the DataFrame", found)


def image_columns(
    df: DataFrame, image: str | None, pixel_range: str | None = None
) -> tuple[ImageColumn, bool]:
    """Where a DataFrame's images are, and whether they are paths of files.

    Raises:
        UserError: if there is no such column, or it cannot hold images.
    """
    import pyarrow.types as types

    table = schema_of(df)
    check_name(df, image or "")
    if image in table.columns and types.is_string(table.columns[image]):
        return ImageColumn(str(image), "pictures"), True
    try:
        name = choose(table.path, [table], "image", image)  # type: ignore[list-item]
    except UserError as error:
        raise UserError(error.problems) from None
    texts = [name for name, kind in table.columns.items() if types.is_string(kind)]
    if name is None and (named := [n for n in texts if n.lower() in (*PATH_NAMES, *IMAGE_NAMES)]):
        return ImageColumn(named[0], "pictures"), True
    if name is None:
        (line,) = no_column(table.path, [], "image").problems
        raise UserError(
            f"{line.partition('; there are')[0]}; there are {describe(table.columns)}: give "
            "--image-column NAME"
        )
    check_name(df, name)
    form = image_form(table.columns[name]) or "pictures"
    if form == "pictures" and name == "data" and table.columns.keys() >= SPARK_IMAGE:
        sizes = sorted((SPARK_IMAGE | {"mode", "origin"}) & table.columns.keys() - {"data"})
        return ImageColumn(name, "Spark image", beside=tuple(sizes)), False
    if form == "floats" and pixel_range is None:
        if df.isStreaming:
            raise UserError(
                f"column {name!r} of a stream holds fractions, and whether they are from 0 to 1 or "
                "to 255 cannot be told from it: give whole numbers, or a model that was trained on "
                "fractions"
            )
        pixel_range = column_range(_sampled(df, name))
    return ImageColumn(name, form, pixel_range or "0-255"), False


def _sampled(df: DataFrame, name: str) -> Any:
    """Finite numbers of the first rows."""
    import numpy as np

    found = []
    rows = df.select(name).where(df[name].isNotNull()).limit(UNIT_SAMPLE)
    for (value,) in rows.toLocalIterator():
        array = np.asarray(value.toArray() if hasattr(value, "toArray") else value, object)
        found.append(np.array(list(_numbers(array)), np.float64))
    numbers = np.concatenate([np.empty(0), *found])
    return numbers[np.isfinite(numbers)]


def _numbers(value: Any) -> Any:
    for item in value:
        if hasattr(item, "__len__"):
            yield from _numbers(item)
        elif item is not None:
            yield float(item)


def classes_of(df: DataFrame, label: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the classes, and the number of each label's text.

    A label that Spark's StringIndexer made has the names that it left in the column's metadata.

    Raises:
        UserError: if the column is not there, or holds no classes.
    """
    if label not in df.columns:
        raise UserError(no_column_named(df, "label", label))
    check_name(df, label)
    shape = df.schema[label].dataType.typeName()
    if not _is_number(df, label) and shape not in ("string", "varchar", "char", "binary", "void"):
        several = "; for several labels an image give --loss multi_label"
        raise UserError(
            f"--label-column {label!r} is {shape}: expected whole numbers, text or booleans"
            f"{several if shape == 'array' else ''}"
        )
    values = [
        row[0] for row in df.select(label).where(df[label].isNotNull()).distinct()
        .limit(MOST_CLASSES + 1).collect()
    ]  # fmt: skip
    odd = [v for v in values if isinstance(v, float | Decimal) and v == v and v % 1 != 0]
    if odd:
        raise UserError(
            f"--label-column {label!r} holds {odd[0]}, which is no class: expected whole numbers, "
            "text or booleans"
        )
    negative = [v for v in values if isinstance(v, int | float | Decimal) and v < 0]
    if negative:
        raise UserError(
            f"--label-column {label!r} holds {negative[0]}: classes are numbered from 0"
        )
    texts = sort_classes({text for v in values if (text := label_text(v)) is not None})
    if len(texts) > MOST_CLASSES:
        raise UserError(f"--label-column {label!r} holds more than {MOST_CLASSES} different labels")
    if len(texts) < 2:
        raise UserError(
            f"--label-column {label!r} holds {len(texts)} classes: expected at least two"
        )
    given = df.schema[label].metadata.get("ml_attr", {}).get("vals", ())
    if given and all(text.isdecimal() and int(text) < len(given) for text in texts):
        return tuple(given[int(text)] for text in texts), {t: i for i, t in enumerate(texts)}
    return tuple(texts), {text: index for index, text in enumerate(texts)}


def targets_of(df: DataFrame, names: Sequence[str], kind: str) -> Targets:
    """What there is to learn of each row.

    Raises:
        UserError: if the columns are not there, or hold nothing of the kind.
    """
    if kind not in (MULTI_LABEL, REGRESSION):
        classes, numbers = classes_of(df, names[0])
        return Targets(classes, numbers)
    found = [name for name in names if name not in df.columns]
    if found:
        raise UserError(no_column_named(df, "label", name) for name in found)
    if len(names) > 1 or _is_number(df, names[0]):
        odd = [name for name in names if not _is_number(df, name)]
        if odd:
            raise UserError(f"--label-column {odd[0]!r}: expected numbers")
        return Targets(tuple(names), width=len(names))
    (name,), shape = names, df.schema[names[0]].dataType.typeName()
    if shape not in ("array", "vectorudt", "vector"):
        raise UserError(f"--label-column {name!r} is {shape}: expected numbers, or arrays of them")
    first = df.select(name).where(df[name].isNotNull()).first()
    if first is None:
        raise UserError(f"--label-column {name!r} is null in all rows")
    if kind == MULTI_LABEL and shape == "array":
        from pyspark.sql import functions

        each = df.select(functions.explode(name)).distinct().limit(MOST_CLASSES + 1).collect()
        labels = sort_classes({str(row[0]) for row in each})
        return Targets(tuple(labels), {label: n for n, label in enumerate(labels)}, len(labels))
    width = len(first[0].toArray() if hasattr(first[0], "toArray") else first[0])
    return Targets((name,) if width == 1 else tuple(f"{name}_{n}" for n in range(width)), {}, width)


def _is_number(df: DataFrame, name: str) -> bool:
    kind = df.schema[name].dataType.typeName()
    return kind in ("byte", "short", "integer", "long", "float", "double", "decimal", "boolean")


def check_weights(df: DataFrame, name: str) -> list[str]:
    """What keeps a column from holding how much each row counts."""
    if name not in df.columns:
        return [no_column_named(df, "weight", name)]
    check_name(df, name)
    kind = df.schema[name].dataType.typeName()
    if not _is_number(df, name) or kind == "boolean":
        return [f"--weight-column {name!r} is {kind}: expected numbers"]
    return []


def check_validation(df: DataFrame, name: str) -> list[str]:
    """What keeps a column from telling which rows are for validation."""
    if name not in df.columns:
        return [no_column_named(df, "validation", name)]
    check_name(df, name)
    kind = df.schema[name].dataType.typeName()
    if kind != "boolean":
        return [f"--validation-column {name!r} is {kind}: expected a boolean"]
    return []


def label_columns(df: DataFrame, asked: str | None, kind: str) -> tuple[str, ...]:
    """Names of the columns of labels, found by name where none is asked for.

    Raises:
        UserError: if there is none.
    """
    if asked is not None:
        several = kind in (MULTI_LABEL, REGRESSION) and asked not in df.columns
        return tuple(n.strip() for n in asked.split(",") if n.strip()) if several else (asked,)
    table = schema_of(df)
    if kind in (MULTI_LABEL, REGRESSION):
        lower = {name.lower(): name for name in reversed(df.columns)}
        found = next((lower[name] for name in LABEL_NAMES if name in lower), None)
    else:
        found = choose(table.path, [table], "label", None)  # type: ignore[list-item]
    if found is None:
        (line,) = no_column(table.path, [], "label").problems
        raise UserError(
            f"{line.partition('; there are')[0]}; there are {describe(table.columns)}: give "
            "--label-column NAME"
        )
    return (found,)


def check_name(df: DataFrame, name: str) -> None:
    """Refuse a column that Spark cannot tell from others by its name.

    Raises:
        UserError: if it is such a one.
    """
    if "." in name or "`" in name:
        odd = "the dot for a field of a struct" if "." in name else "backticks for quotes"
        raise UserError(f"column {name!r}: Spark takes {odd}: select it under another name first")
    if (count := df.columns.count(name)) > 1:
        raise UserError(f"the DataFrame has {count} columns {name!r}: keep one of them")


def no_column_named(df: DataFrame, what: str, name: str) -> str:
    """The line for a column that is not there."""
    return no_such_column(f"--{what}-column {name!r}: the DataFrame", name, schema_of(df).columns)
