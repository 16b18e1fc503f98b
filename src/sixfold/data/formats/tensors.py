"""Cells of a table that are pictures or numbers, and how their pixels are taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data.formats.columns import SPARK_IMAGE, image_form
from sixfold.data.formats.table_files import TableFile, opened
from sixfold.data.images import BadImageError, Pixels, decode, scaled
from sixfold.data.records import ArrayPicture, EncodedPicture, Picture

MOST_CHANNELS = 4  # A first or last dimension up to this is taken for the channels
MOST_VALUES = 2**30  # Numbers of a sparse vector: it says itself how many, whatever it holds
SAMPLE_ROWS = 256
"""Of each file, from which it is told what floating-point numbers mean."""

SAMPLE_FILES = 64

LARGEST_OVER_1 = 2.0
"""Fractions up to this are 0 to 1 with what interpolation adds: of 0 to 255 they would all be
black. Whole numbers up to it are few values of 0 to 255, such as marks of classes."""

OVERSHOOT = 0.25
"""Part of the range by which values may lie outside, and are cut off: where two corners of ones
meet, Pillow's bicubic interpolation reaches 1.13, and Lanczos 1.23 (`Image.resize`, mode F)."""


@dataclass(frozen=True)
class ImageColumn:
    """How an image lies in a row of a table."""

    name: str
    form: str  # as `image_form` tells it
    unit: bool = False  # whether numbers are 0 to 1 rather than 0 to 255
    # columns with the sizes of Spark's images, where their struct was taken apart
    beside: tuple[str, ...] = ()

    @property
    def pixel_range(self) -> str:
        """What floating-point numbers are, as `--pixel-range` has it; empty of other images."""
        return "" if self.form != "floats" else "0-1" if self.unit else "0-255"

    def picture(self, cell: Any, beside: Mapping[str, Any]) -> Picture:
        """One row's image.

        Args:
            cell: Arrow scalar of the column; None if the row's file has no such column.
            beside: scalars of the columns beside it.

        Raises:
            BadImageError: if it is none.
        """
        if cell is None or not cell.is_valid:
            raise BadImageError("no image (null)")
        if self.form == "Spark image":
            return ArrayPicture(_spark_image({**beside, "data": cell} if self.beside else cell))
        if self.form != "pictures":
            return ArrayPicture(self._numbers(cell))
        if hasattr(cell, "items"):  # a struct
            cell = cell["bytes"]
            if not cell.is_valid:
                raise BadImageError("no bytes (null): the file that `path` names is not looked for")
        return EncodedPicture(cell.as_py())

    def _numbers(self, cell: Any) -> Pixels:
        try:
            array = _array(cell)
        except (ValueError, TypeError, NotImplementedError):
            raise BadImageError("its lists are of unequal lengths, or hold nulls") from None
        return channels_first(to_bytes(array, unit=self.unit))


def image_column(
    files: Sequence[TableFile], name: str, pixel_range: str | None = None
) -> tuple[ImageColumn, str]:
    """How images lie in a column that `choose` has chosen.

    Args:
        files: of the table.
        name: of the column.
        pixel_range: what floating-point numbers are, if the user has said so.

    Returns:
        The column; and what its numbers were taken for, if that was told from them.
    """
    there = [file for file in files if name in file.columns]
    forms = [image_form(file.columns[name]) for file in there]
    form = next((form for form in forms if form not in (None, "null")), "pictures") or ""
    sizes = sorted(SPARK_IMAGE - {"data"})
    if (
        form == "pictures"
        and name == "data"
        and all(f.columns.keys() >= SPARK_IMAGE for f in there)
    ):
        more = [n for n in ("mode", "origin") if all(n in file.columns for file in there)]
        return ImageColumn(name, "Spark image", beside=(*sizes, *more)), ""
    if form != "floats":
        return ImageColumn(name, form), ""
    if pixel_range is not None:
        return ImageColumn(name, form, unit=pixel_range == "0-1"), ""
    largest, whole = _sampled(there, name)
    unit = largest <= 1.0 or (largest <= LARGEST_OVER_1 and not whole)
    taken, other = ("0 to 1", "0-255") if unit else ("0 to 255", "0-1")
    found = (
        f"floating-point pixels are taken as {taken} (the largest of the first rows is "
        f"{largest:.4g}); --pixel-range {other} says otherwise"
    )
    return ImageColumn(name, form, unit=unit), found


def _spark_image(fields: Any) -> Pixels:
    """An image as ``spark.read.format("image")`` has it: rows of blue, green, red (and alpha)."""
    height, width, channels = (fields[name].as_py() for name in ("height", "width", "nChannels"))
    mode = fields["mode"].as_py() if "mode" in fields else None
    data = fields["data"].as_py()
    if data is None or None in (height, width, channels) or min(height, width, channels) < 1:
        origin = fields["origin"].as_py() if "origin" in fields else None
        raise BadImageError(f"not an image (Spark could not decode {origin or 'it'})")
    # OpenCV's type: three bits for that of the numbers (0: uint8), above them channels - 1.
    if channels not in (1, 3, 4) or (mode is not None and mode != (channels - 1) << 3):
        raise BadImageError(
            f"{channels} channels of OpenCV's type {mode}: expected 1, 3 or 4 of 8 bits (0, 16, 24)"
        )
    if len(data) != height * width * channels:
        raise BadImageError(
            f"{len(data)} bytes: expected {height} x {width} x {channels} (height, width, channels)"
        )
    from PIL import Image

    array = np.frombuffer(data, np.uint8).reshape(height, width, channels)
    shown = array[..., 0] if channels == 1 else array[..., [2, 1, 0, 3][:channels]]
    return decode(Image.fromarray(np.ascontiguousarray(shown)))


def _array(cell: Any) -> NDArray[Any]:
    """The numbers of a tensor, a list, nested lists, or Spark's dense or sparse vector."""
    if hasattr(cell, "to_numpy"):  # a tensor
        return np.asarray(cell.to_numpy())
    if hasattr(cell, "items"):
        if cell["type"].as_py() == 1:
            return _array(cell["values"])
        values = np.array(cell["values"].as_py(), np.float64)  # none, if all are zero
        size, places = cell["size"].as_py(), np.array(cell["indices"].as_py(), np.int64)
        if not 0 < size <= MOST_VALUES or (places < 0).any() or (places >= size).any():
            raise BadImageError(f"a sparse vector of {size} values with places outside of it")
        array = np.zeros(size)
        array[places] = values
        return array
    array = np.array(cell.as_py())
    if array.dtype == object or array.size == 0:
        raise ValueError("ragged")
    return array


def to_bytes(array: NDArray[Any], *, unit: bool) -> NDArray[np.uint8]:
    """Numbers as 0 to 255; floating-point ones may lie outside by what interpolation adds.

    Raises:
        BadImageError: if any is outside.
    """
    if array.dtype == np.uint8:
        return array
    top = 1.0 if unit else 255.0
    if array.dtype.kind == "f" and np.isfinite(array).all():
        margin = OVERSHOOT * top
        inside = array.min() >= -margin and array.max() <= top + margin
        array = np.clip(array, 0.0, top) if inside else array
    return scaled(array, top)


def channels_first(array: NDArray[np.uint8]) -> Pixels:
    """Bring rows x columns, channels first or channels last, or a flat list, to C H W.

    Raises:
        BadImageError: if it cannot be told which dimension is which.

    >>> [channels_first(np.zeros(s, np.uint8)).shape for s in ((784,), (9, 8), (9, 8, 3), (3072,))]
    [(1, 28, 28), (1, 9, 8), (3, 9, 8), (3, 32, 32)]
    """
    if array.ndim == 1:
        for channels in (1, 3):
            side = isqrt(array.size // channels)
            if channels * side * side == array.size:
                return array.reshape(channels, side, side)
    elif array.ndim == 2:
        return array[None]
    elif array.ndim == 3:
        # A dimension of 1 or 3 is surely the channels; photographs are larger than 4 pixels.
        if array.shape[0] <= MOST_CHANNELS < array.shape[2] or array.shape[0] in (1, 3):
            return array
        if array.shape[2] <= MOST_CHANNELS:
            return np.ascontiguousarray(array.transpose(2, 0, 1))
    raise BadImageError(
        f"{'x'.join(map(str, array.shape))} values: expected rows x columns, with 1 to "
        f"{MOST_CHANNELS} channels first or last, or a flat list of a square image"
    )


def _sampled(files: Sequence[TableFile], column: str) -> tuple[float, bool]:
    """Largest finite number of the first rows of files, and whether all are whole numbers."""
    largest, whole = 0.0, True
    for path in (file.path for file in files[:SAMPLE_FILES]):
        with opened(path) as file:
            for batch in file.iter_batches(SAMPLE_ROWS, columns=[column]):
                values = batch.column(batch.schema.get_field_index(column))
                values = getattr(values, "storage", values)
                if hasattr(values, "field"):  # a vector
                    values = values.field("values")
                while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
                    values = values.flatten()
                numbers = values.drop_null().to_numpy(zero_copy_only=False)
                numbers = numbers[np.isfinite(numbers)]
                bright = float(np.max(numbers, initial=0.0))
                largest = max(largest, bright)
                whole = whole and bool((numbers == np.floor(numbers)).all())
                if bright > 0.0:
                    break  # a file that begins with black rows says nothing yet
    return largest, whole
