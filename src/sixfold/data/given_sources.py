"""What data handed over in Python may be, each as parts whose records can be read one by one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.data.arrays import PixelReader, as_array, batch_channels_first, range_of
from sixfold.data.config import DataConfig
from sixfold.data.dataset import Part
from sixfold.data.formats.columns import IMAGE_NAMES
from sixfold.data.given import Record, Source
from sixfold.data.given_labels import Label
from sixfold.data.images import Pixels, resize_array
from sixfold.data.items import (
    class_names,
    generators,
    is_random,
    pixels_of,
    split_item,
    weight_of,
)
from sixfold.data.manifest import VALIDATION
from sixfold.data.records import Records
from sixfold.data.reread import item_key
from sixfold.data.spec import TableOptions

PATH_NAMES = ("path", "file", "filename", "image_path", "filepath", "file_name")

TAKES = (
    "a specification such as 'folder:PATH', (images, labels) or (images, labels, weights) as "
    "arrays or tensors, a map-style data set, a pandas or Arrow table, a Spark DataFrame, or a "
    "data set of Hugging Face"
)


def parts_of(data: Any, what: str, config: DataConfig, scratch: Path) -> dict[str, Source]:
    """The parts that some data have: "train" alone, or as the data themselves say.

    Args:
        data: see `TAKES`.
        what: "data", "validation" or "test": the argument that it is.
        config: for `resize` and the names of columns.
        scratch: a folder for what has to be written on the way; it must last while records are
            read.

    Raises:
        UserError: if it is nothing of the kind.
    """
    if isinstance(data, (str, Path)):
        return _parts_of_spec(str(data), what, config)
    if isinstance(data, (tuple, list)) and len(data) in (2, 3) and _is_arrays(data):
        if config.weight_column is not None and what == "data":
            raise UserError(
                f"{what}: weight_column={config.weight_column!r}: arrays have no columns; give "
                "(images, labels, weights)"
            )
        return {"train": _arrays(*data, what=what, config=config)}
    home = type(data).__module__.partition(".")[0]
    if home in ("pandas", "pyarrow") and hasattr(data, "columns"):
        return {"train": _table(data, what, config, scratch)}
    if isinstance(data, Mapping):
        return _splits(data, what, config)
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        raise UserError(
            f"{what} is a {type(data).__name__} of shape {tuple(data.shape)}: expected images and "
            "labels, (images, labels)"
        )
    return {"train": items_of(data, what, config)}


def _is_arrays(data: Any) -> bool:
    return all(hasattr(each, "shape") or isinstance(each, (list, tuple)) for each in data)


def label_of(value: Any, what: str) -> Label:
    """A label as a whole number or a name, or as numbers.

    Raises:
        UserError: if it is none of these.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (bool, int, str)):
        return value
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if numbers and all(isinstance(number, (bool, int, float)) for number in numbers):
        return tuple(float(number) for number in numbers)
    raise UserError(
        f"{what}: a label is a {type(value).__name__}: expected a whole number, a name, or numbers"
    )


def _arrays(
    images: Any, labels: Any, weights: Any = None, *, what: str, config: DataConfig
) -> Source:
    array, is_tensor = as_array(images)
    try:
        array = batch_channels_first(array, is_tensor=is_tensor)
    except UserError as error:
        raise UserError(f"{what}: {line}" for line in error.problems) from error
    marks = as_array(labels)[0]
    if marks.ndim not in (1, 2):
        raise UserError(f"{what}: labels of shape {marks.shape}: expected (N,) or (N, K)")
    if len(marks) != len(array):
        raise UserError(f"{what}: {len(array)} images and {len(marks)} labels: expected as many")
    names = [label_of(mark, what) for mark in marks.tolist()]
    pixel_range = config.pixel_range or range_of(array)
    reader, resize = PixelReader(pixel_range), config.resize

    def read(index: int) -> Pixels:
        try:
            pixels = reader.read(array[index])
        except UserError as error:
            raise type(error)(f"{what}: {line}" for line in error.problems) from error
        return pixels if resize is None else resize_array(pixels, resize)

    def records() -> Iterator[Record]:
        for index, label in enumerate(names):
            yield (lambda at=index: read(at)), label, f"{what}[{index}]"  # type: ignore[misc]

    counts = None if weights is None else _counts(weights, len(array), what)
    return Source(
        name="arrays",
        records=records,
        count=len(array),
        reader=reader,
        pixel_range=pixel_range,
        weights=counts,
    )


def _counts(weights: Any, images: int, what: str) -> NDArray[np.float64]:
    """How much every image counts, (N,)."""
    found = np.asarray(as_array(weights)[0], np.float64)
    if found.shape != (images,):
        raise UserError(f"{what}: weights of shape {found.shape}: expected ({images},)")
    if not ((found >= 0) & np.isfinite(found)).all() or not (found > 0).any():
        raise UserError(f"{what}: weights must be finite, at least 0, and not all 0")
    return found


def items_of(data: Any, what: str, config: DataConfig) -> Source:
    """A map-style data set, read item by item."""
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        loader = hasattr(data, "dataset") and hasattr(data, "batch_size")
        hint = "give its `.dataset`: batches are made by Sixfold" if loader else f"expected {TAKES}"
        raise UserError(f"{what} is a {type(data).__name__}: {hint}")
    varies = is_random(data)
    if varies and what != "data":
        raise UserError(
            f"{what}: {type(data).__name__} gives other images when it is read again: leave its "
            "random transforms out, since what is judged must not vary"
        )
    reader = PixelReader(config.pixel_range or "")
    counts: list[float] = []  # of the items that are read

    def read_item(index: int) -> Any:
        if not varies:
            return data[index]
        with generators(item_key(0, -1, index)):
            return data[index]

    def records() -> Iterator[Record]:
        counts.clear()
        for index in range(len(data)):
            item = read_item(index)
            image, label = split_item(item, index, config.image_column, config.label_column)
            mark = label_of(label, what)
            if config.weight_column is not None:
                counts.append(weight_of(item, index, config.weight_column))
            yield _reading(image, reader, config.resize, what), mark, f"{what}[{index}]"

    name = type(data).__name__
    return Source(
        name=name,
        records=records,
        count=len(data),
        classes=class_names(data),
        live=data if varies else None,
        reader=reader,
        weights=None if config.weight_column is None else counts,
    )


def _reading(image: Any, reader: PixelReader, resize: int | None, what: str) -> Any:
    def read() -> Pixels:
        try:
            return pixels_of(image, reader, resize)
        except UserError as error:
            raise type(error)(f"{what}: {line}" for line in error.problems) from error

    return read


def _splits(data: Mapping[Any, Any], what: str, config: DataConfig) -> dict[str, Source]:
    """The parts of a mapping, as Hugging Face's `DatasetDict` is one."""
    roles = {"train": "train", "test": "test", "validation": VALIDATION, "val": VALIDATION}
    found = {roles[str(key)]: value for key, value in data.items() if str(key) in roles}
    if "train" not in found:
        raise UserError(
            f"{what} is a mapping of {', '.join(map(str, data))}: expected 'train', and perhaps "
            "'validation' and 'test'"
        )
    return {
        part: items_of(value, what if part == "train" else part, config)
        for part, value in found.items()
    }


def _parts_of_spec(text: str, what: str, config: DataConfig) -> dict[str, Source]:
    if text.startswith("hf:"):
        return _hugging_face(text, what, config)

    if config.weight_column is not None and what == "data":
        raise UserError(
            f"{what} {text}: weight_column={config.weight_column!r}: its images cannot be joined "
            "with other data where they have weights"
        )
    from sixfold.data.registry import open_data, resolve

    asked = replace(config, data=text, validation=0.0, test_split=None, augment="none")
    if not text.startswith("parquet:"):
        asked = replace(asked, pixel_range=None)
    opened = open_data(resolve(asked))
    found = {"train": opened.train, "test": opened.test, VALIDATION: opened.validation}
    if not opened.own_test and what == "data":
        # What is cut off is cut again from all of it, as from any other data.
        found = {"train": opened.train, "rest": opened.test}
    kept = {part: each for part, each in found.items() if len(each)}
    sources = {part: _opened(each, opened.classes, opened.name) for part, each in kept.items()}
    if "rest" in sources:
        sources["train"] = joined([sources["train"], sources.pop("rest")])
    return sources


def _opened(part: Part, classes: tuple[str, ...], name: str) -> Source:
    rows = part.targets
    if part.weights is not None:
        raise UserError(f"{name}: its images have weights, which other data cannot be joined with")

    def records() -> Iterator[Record]:
        for start in range(0, len(part), 256):
            indices = np.arange(start, min(start + 256, len(part)), dtype=np.int64)
            images, names = part.images(indices), part.names(indices)
            for image, index, told in zip(images, indices.tolist(), names, strict=True):
                label = int(part.labels[index]) if rows is None else tuple(rows[index].tolist())
                yield (lambda it=image: it), label, told  # type: ignore[misc]

    return Source(name=name, records=records, count=len(part), classes=classes)


def joined(sources: list[Source]) -> Source:
    """Several sources of the same classes as one."""

    def records() -> Iterator[Record]:
        for source in sources:
            yield from source.records()

    count = sum(source.count or 0 for source in sources)
    weights = [source.weights for source in sources if source.weights is not None]
    return Source(
        name=sources[0].name,
        records=records,
        count=count,
        classes=sources[0].classes,
        pixel_range=sources[0].pixel_range,
        weights=np.concatenate(weights) if len(weights) == len(sources) else None,
        unlabelled=sum(source.unlabelled for source in sources),
        left_out=tuple(line for source in sources for line in source.left_out),
    )


def _hugging_face(text: str, what: str, config: DataConfig) -> dict[str, Source]:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{what} {text}: needs the package `datasets`: pip install 'sixfold[hf]'"
        ) from None
    name = text.partition(":")[2]
    try:
        return parts_of(datasets.load_dataset(name), what, config, Path())
    except UserError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{what} {text}: cannot be loaded ({reason})") from error


def _table(data: Any, what: str, config: DataConfig, scratch: Path) -> Source:
    """A pandas or Arrow table, by way of a Parquet file, which is read as any other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if hasattr(data, "to_pandas"):
        table = data
    else:
        frame = data.copy(deep=False)
        frame.attrs = {}  # Spark Connect's toPandas() keeps there what Arrow warns of
        for column in frame.columns:
            frame[column] = [_plain(value) for value in frame[column]]
        try:
            table = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowException, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{what}: the table cannot be read ({reason})") from error
    table = _with_bytes(table, config.image_column, what)
    folder = scratch / f"{what}-table"
    folder.mkdir()
    pq.write_table(table, folder / "rows.parquet")
    return _listed(folder, what, config)


def _plain(value: Any) -> Any:
    """A pandas cell as Arrow takes it: arrays of several dims become nested lists."""
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return value.tolist()
    if hasattr(value, "getbands"):  # of PIL
        import io

        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return buffer.getvalue()
    return str(value) if isinstance(value, Path) else value


def _with_bytes(table: Any, given: str | None, what: str) -> Any:
    """The table with the pictures that a column of paths names, if that is what its images are."""
    import pyarrow as pa
    import pyarrow.types as types

    columns = {str(name).lower(): str(name) for name in table.column_names}
    usual = [columns[name] for name in (*IMAGE_NAMES, *PATH_NAMES) if name in columns]
    name = given if given in table.column_names else next(iter(usual), None)
    if name is None:
        return table
    kind = table.schema.field(name).type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        return table
    cells, problems = [], []
    for value in table.column(name).to_pylist():
        try:
            cells.append(None if value is None else Path(value).expanduser().read_bytes())
        except OSError as error:
            problems.append(f"{what}: {value}: cannot be read ({error.strerror})")
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise UserError([*problems[:10], *more])
    place = table.column_names.index(name)
    return table.set_column(place, given or "image", pa.array(cells, pa.binary()))


def _listed(folder: Path, what: str, config: DataConfig) -> Source:
    """All rows of the Parquet files of a folder."""
    from sixfold.data.formats import parquet

    try:
        listing = parquet.read(
            str(folder),
            what,
            TableOptions(
                config.image_column,
                config.label_column,
                pixel_range=config.pixel_range,
                target=config.target,
                weight=config.weight_column,
            ),
        )
    except UserError as error:
        lines = [
            line.replace(f"{folder}: ", "").replace(str(folder), what) for line in error.problems
        ]
        raise UserError(f"{what}: {line}" for line in lines) from error

    def source(records: Records) -> Source:
        def read() -> Iterator[Record]:
            rows = records.targets
            labels = records.labels.tolist() if rows is None else map(tuple, rows.tolist())
            for picture, label, name in zip(records.pictures(), labels, records.names, strict=True):
                pixels = picture.pixels
                yield (lambda at=pixels: at(config.resize)), label, name  # type: ignore[misc]

        return Source(
            name=what,
            records=read,
            count=len(records.labels),
            classes=listing.classes,
            pixel_range=listing.pixel_range,
            weights=records.weights,
        )

    return replace(
        joined([source(records) for records in listing.parts.values()]),
        unlabelled=listing.unlabelled,
        left_out=tuple((what, reason) for _, reason in listing.left_out),
    )
