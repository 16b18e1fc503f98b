"""A DataFrame of images as a data set that ranks can open: tensor shards in a shared folder."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import UserError
from sixfold.core.version import versions
from sixfold.data.dataset import ALL_TRAIN
from sixfold.data.formats.columns import (
    IMAGE_NAMES,
    SPARK_IMAGE,
    choose,
    describe,
    image_form,
    no_column,
)
from sixfold.data.formats.folder import sort_classes
from sixfold.data.formats.tensors import ImageColumn
from sixfold.data.manifest import Manifest, ShardEntry
from sixfold.data.shard_building import GRAY
from sixfold.data.targets import CLASSES, REGRESSION
from sixfold.spark.writing import REPORT, Columns, PartitionWriter, Widener, label_text

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MOST_CLASSES = 100_000
"""More different labels are no classes: a column of identifiers, or of measurements."""

PATH_NAMES = ("path", "file", "filename", "image_path", "file_name", "uri", "url")
"""Text columns that are taken for paths of images, where no column holds the images themselves."""

UNIT_SAMPLE = 256
"""Rows that are looked at to tell whether floats reach from 0 to 1 or to 255."""


@dataclass(frozen=True)
class SchemaAsTable:
    """A DataFrame's columns in the form in which tables in files are looked at."""

    path: str
    columns: dict[str, Any]  # Arrow type of each column
    folders: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written."""

    folder: Path
    rows: int
    unlabelled: int
    bad: int
    label_values: tuple[float, ...] | None  # number of each class in the table, if it has one


def schema_of(df: DataFrame) -> SchemaAsTable:
    """The columns of a DataFrame that Arrow knows."""
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import to_arrow_type

    found = {}
    for each in df.schema.fields:
        try:
            found[each.name] = to_arrow_type(each.dataType)
        except (PySparkException, NotImplementedError, TypeError):
            continue
    return SchemaAsTable("the DataFrame", found)


def image_columns(df: DataFrame, image: str | None) -> tuple[ImageColumn, bool]:
    """Where a DataFrame's images are, and whether they are paths of files.

    Raises:
        UserError: if there is no such column, or it cannot hold images.
    """
    import pyarrow.types as types

    table = schema_of(df)
    if image in table.columns and types.is_string(table.columns[image]):
        return ImageColumn(str(image), "pictures"), True
    try:
        name = choose(table.path, [table], "image", image)  # type: ignore[list-item]
    except UserError as error:
        raise UserError(p.replace("--image-column ", "imageCol ") for p in error.problems) from None
    texts = [name for name, kind in table.columns.items() if types.is_string(kind)]
    if name is None and (named := [n for n in texts if n.lower() in (*PATH_NAMES, *IMAGE_NAMES)]):
        return ImageColumn(named[0], "pictures"), True
    if name is None:
        (line,) = no_column(table.path, [], "image").problems
        raise UserError(
            f"{line.partition('; there are')[0]}; there are {describe(table.columns)}: set imageCol"
        )
    form = image_form(table.columns[name]) or "pictures"
    if form == "pictures" and name == "data" and table.columns.keys() >= SPARK_IMAGE:
        sizes = sorted((SPARK_IMAGE | {"mode", "origin"}) & table.columns.keys() - {"data"})
        return ImageColumn(name, "Spark image", beside=tuple(sizes)), False
    return ImageColumn(name, form, unit=form == "floats" and _reaches_one(df, name)), False


def _reaches_one(df: DataFrame, name: str) -> bool:
    """Whether numbers of the first rows that are not all dark go to 1 rather than to 255."""
    import numpy as np

    largest = 0.0
    rows = df.select(name).where(df[name].isNotNull()).limit(UNIT_SAMPLE)
    for (value,) in rows.toLocalIterator():
        array = np.asarray(value.toArray() if hasattr(value, "toArray") else value, object)
        numbers = np.array(list(_numbers(array)), np.float64)
        largest = float(np.max(numbers, initial=0.0, where=np.isfinite(numbers)))
        if largest > 0.0:
            break
    return largest <= 1.0


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
        raise UserError(
            f"labelCol {label!r}: the DataFrame has no such column; it has {', '.join(df.columns)}"
        )
    values = [
        row[0] for row in df.select(label).where(df[label].isNotNull()).distinct()
        .limit(MOST_CLASSES + 1).collect()
    ]  # fmt: skip
    odd = [v for v in values if isinstance(v, float) and v == v and not v.is_integer()]
    if odd:
        raise UserError(
            f"labelCol {label!r} holds {odd[0]}, which is no class: expected whole numbers, text "
            "or booleans"
        )
    negative = [v for v in values if isinstance(v, int | float) and v < 0]
    if negative:
        raise UserError(f"labelCol {label!r} holds {negative[0]}: classes are numbered from 0")
    texts = sort_classes({text for v in values if (text := label_text(v)) is not None})
    if len(texts) > MOST_CLASSES:
        raise UserError(f"labelCol {label!r} holds more than {MOST_CLASSES} different labels")
    if len(texts) < 2:
        raise UserError(f"labelCol {label!r} holds {len(texts)} classes: expected at least two")
    given = df.schema[label].metadata.get("ml_attr", {}).get("vals", ())
    if given and all(text.isdigit() and int(text) < len(given) for text in texts):
        return tuple(given[int(text)] for text in texts), {t: i for i, t in enumerate(texts)}
    return tuple(texts), {text: index for index, text in enumerate(texts)}


def numbers_in(df: DataFrame, label: str) -> int:
    """How many numbers there are to learn of each image.

    Raises:
        UserError: if the column holds none.
    """
    if label not in df.columns:
        raise UserError(
            f"labelCol {label!r}: the DataFrame has no such column; it has {', '.join(df.columns)}"
        )
    kind = df.schema[label].dataType.typeName()
    if kind in ("byte", "short", "integer", "long", "float", "double", "decimal"):
        return 1
    if kind not in ("array", "vectorudt", "vector"):
        raise UserError(f"labelCol {label!r} is {kind}: expected numbers, or arrays of numbers")
    first = df.select(label).where(df[label].isNotNull()).first()
    if first is None:
        raise UserError(f"labelCol {label!r} is null in all rows")
    value = first[0]
    return len(value.toArray() if hasattr(value, "toArray") else value)


def write_shards(
    df: DataFrame,
    folder: Path,
    *,
    image: str | None,
    label: str,
    validation: str | None,
    weight: str | None = None,
    regression: bool = False,
    resize: int | None,
    skip: bool,
) -> Written:
    """Have the executors write a DataFrame's images as tensor shards.

    Args:
        df: the table.
        folder: that driver and executors share; made if absent, emptied if not finished.
        image: column of images; found by its name if None.
        label: column of labels.
        validation: boolean column of the rows that are for validation.
        weight: column of how much each row counts.
        regression: labels are numbers to be learned, not classes.
        resize: rows and columns of an image, if not its own.
        skip: leave out rows whose image cannot be read, or that have no label.

    Raises:
        UserError: with everything that keeps the rows from being a usable set.
    """
    column, is_path = image_columns(df, image)
    found = [
        f"{param} {name!r}: the DataFrame has no such column; it has {', '.join(df.columns)}"
        for param, name in (("validationIndicatorCol", validation), ("weightCol", weight))
        if name is not None and name not in df.columns
    ]
    if found:
        raise UserError(found)
    width, numbers = 0, dict[str, int]()
    if regression:
        width = numbers_in(df, label)
        names = (label,) if width == 1 else tuple(f"{label}_{n}" for n in range(width))
    else:
        names, numbers = classes_of(df, label)
    columns = Columns(
        image=column,
        is_path=is_path,
        label=label,
        numbers=width,
        weight=weight,
        validation=validation,
    )
    folder.mkdir(parents=True, exist_ok=True)
    writer = PartitionWriter(folder=str(folder), columns=columns, classes=numbers, resize=resize)
    wanted = [column.name, *column.beside, label, *filter(None, (validation, weight))]
    reports = [
        json.loads(row[0])
        for row in df.select(*dict.fromkeys(wanted)).mapInArrow(writer, REPORT).collect()
    ]
    files = _one_colour(df, folder, [report for report in reports if "file" in report])
    counts = Counter[str]()
    bad = []
    for report in reports:
        counts.update(report.get("counts", {}))
        bad += [(name, reason) for name, reason in report.get("bad", [])]
    learned = () if regression else names
    problems = _problems(files, counts, bad, names=learned, label=label, skip=skip)
    if problems:
        shutil.rmtree(folder)
        raise UserError(problems)
    accepted = {report["file"] for report in files}
    for path in folder.glob("*.arrow"):  # of tasks that were tried again, or twice at a time
        if path.name not in accepted:
            path.unlink()
    manifest = Manifest(
        name=folder.name,
        classes=names,
        kind=REGRESSION if regression else CLASSES,
        weighted=weight is not None,
        shape=tuple(files[0]["shape"]),
        parts={
            part: entries
            for part in ("train", "validation", "test")
            if (entries := _entries(files, part)) or part != "validation"
        },
        bad=tuple(bad),
        left_out=_left_out(counts, bad, label),
        source={
            "spec": "DataFrame",
            "split": ALL_TRAIN,
            "unlabelled": counts["unlabelled"],
            "skipped": counts["unlabelled"] + counts["bad"],
        },
        settings={"resize": resize, "order": "content"},
        versions=versions(),
    )
    manifest.save(folder)
    return Written(
        folder=folder,
        rows=counts["rows"],
        unlabelled=counts["unlabelled"],
        bad=counts["bad"],
        label_values=None if regression else _label_values(numbers),
    )


def _one_colour(df: DataFrame, folder: Path, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files, all in colour where some are and some are grey."""
    shapes = {tuple(report["shape"]) for report in files}
    gray = [report for report in files if report["shape"][0] == GRAY]
    if len(shapes) != 2 or len(gray) in (0, len(files)) or len({s[1:] for s in shapes}) != 1:
        return files
    spark = df.sparkSession
    rows = spark.createDataFrame([(json.dumps(report),) for report in gray], REPORT)
    widened = rows.repartition(len(gray)).mapInArrow(Widener(folder=str(folder)), REPORT).collect()
    colour = [report for report in files if report["shape"][0] != GRAY]
    return colour + [json.loads(row[0]) for row in widened]


def _entries(files: Sequence[dict[str, Any]], part: str) -> tuple[ShardEntry, ...]:
    return tuple(
        ShardEntry(**{key: report[key] for key in ("file", "count", "bytes", "sha256")})
        for report in sorted(files, key=lambda report: report["file"])
        if report["part"] == part
    )


def _left_out(
    counts: Counter[str], bad: Sequence[Any], label: str
) -> tuple[tuple[str, str], ...]:  # fmt: skip
    found = []
    if counts["unlabelled"]:
        found.append(
            ("DataFrame", f"rows without a label (column {label!r}): {counts['unlabelled']}")
        )
    if counts["bad"] > len(bad):
        found.append(
            ("DataFrame", f"further images that cannot be read: {counts['bad'] - len(bad)}")
        )
    return tuple(found)


def _label_values(numbers: dict[str, int]) -> tuple[float, ...] | None:
    """The table's own numbers of the classes, in their order; None if they are words."""
    texts = sorted(numbers, key=numbers.__getitem__)
    if all(text.isdigit() for text in texts):
        return tuple(float(text) for text in texts)
    return None


def _problems(
    files: Sequence[dict[str, Any]],
    counts: Counter[str],
    bad: Sequence[tuple[str, str]],
    *,
    names: Sequence[str],
    label: str,
    skip: bool,
) -> list[str]:
    """What keeps the rows from being a data set."""
    found = []
    if counts["unlabelled"] and not skip:
        found.append(
            f"{counts['unlabelled']} of {counts['rows']} rows have no label (null in {label!r}): "
            "give them one, or leave them out by handleInvalid skip"
        )
    if counts["bad"] and not skip:
        found += [f"row {name}: {reason}" for name, reason in bad[:10]]
        found.append(
            f"{counts['bad']} of {counts['rows']} images cannot be read: repair them, or leave "
            "them out by handleInvalid skip"
        )
    shapes = Counter[tuple[int, ...]]()
    for report in files:
        shapes[tuple(report["shape"])] += report["count"]
    if not shapes:
        found.append("the DataFrame has no image that can be read")
    elif len(shapes) > 1:
        listed = [f"{n} of {w}x{h} with {c} channels" for (c, h, w), n in shapes.most_common(10)]
        found.append(
            f"images of {len(shapes)} shapes (width x height): {', '.join(listed)}: set resize"
        )
    if not any(report["part"] == "train" for report in files) and files:
        found.append("all rows are for validation: there is nothing to learn from")
    learned = Counter[int]()
    for report in files:
        if report["part"] == "train":
            learned.update({int(key): count for key, count in report["labels"].items()})
    lost = [name for number, name in enumerate(names) if not learned[number]]
    if lost and files:
        found.append(f"no image to learn from is left of the classes {', '.join(lost[:20])}")
    return found
