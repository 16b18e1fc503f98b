"""Cells of a table that are pictures or numbers, and how their pixels are taken out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sixfold.core.config import ANY_RANGE, PIXEL_RANGES
from sixfold.core.errors import UserError
from sixfold.data.arrays import PixelReader
from sixfold.data.byte_ranges import MOST_PICTURE_BYTES, too_large
from sixfold.data.formats.columns import SPARK_IMAGE, image_form
from sixfold.data.formats.table_files import TableFile, opened
from sixfold.data.images import BadImageError, Pixels, decode, scaled
from sixfold.data.records import ArrayPicture, EncodedPicture, Picture

MOST_CHANNELS = 4  # A first or last dimension up to this is taken for the channels
MOST_VALUES = 2**26  # Numbers of an image: a sparse vector says itself how many, whatever it holds
SAMPLE_ROWS = 256
"""Of each file, from which it is told what floating-point numbers mean."""

SAMPLE_FILES = 64

LARGEST_OVER_1 = 2.0
"""Fractions up to this are 0 to 1 with what interpolation adds: of 0 to 255 they would all be
black. Whole numbers up to it are few values of 0 to 255, such as marks of classes."""

LEAST_BRIGHT = 32.0
"""Fractions that all lie below it, some above 2, would be nearly black images of 0 to 255."""

ODD_VALUES = 0.01  # part of the values that may be odd

OVERSHOOT = 0.25
"""Part of the range by which values may lie outside, and are cut off: where two corners of ones
meet, Pillow's bicubic interpolation reaches 1.13, and Lanczos 1.23 (`Image.resize`, mode F)."""


@dataclass(frozen=True)
class ImageColumn:
    """How an image lies in a row of a table."""

    name: str
    form: str  # as `image_form` tells it
    numbers: str = "0-255"  # what floating-point ones are, one of `PIXEL_RANGES`
    # columns with the sizes of Spark's images, where their struct was taken apart
    beside: tuple[str, ...] = ()

    @property
    def pixel_range(self) -> str:
        """What floating-point numbers are, as `--pixel-range` has it; empty of other images."""
        return self.numbers if self.form == "floats" else ""

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """Of the pixels that its images have."""
        return "float32" if self.pixel_range == ANY_RANGE else "uint8"

    def picture(self, cell: Any, beside: Mapping[str, Any]) -> Picture:
        """One row's image.

        Args:
            cell: Arrow scalar of the column; None if the row's file has no such column.
            beside: scalars of the columns beside it.

        Raises:
            BadImageError: if it is none.
        """
        if cell is None:
            raise BadImageError(f"its file has no column {self.name!r}")
        if not cell.is_valid:
            raise BadImageError("no image (null)")
        if self.form == "Spark image":
            return ArrayPicture(_spark_image({**beside, "data": cell} if self.beside else cell))
        if self.form != "pictures":
            return ArrayPicture(self._numbers(cell))
        if hasattr(cell, "items"):  # a struct
            cell = cell["bytes"]
            if not cell.is_valid:
                raise BadImageError("no bytes (null): the file that `path` names is not looked for")
        return EncodedPicture(_bytes(cell))

    def _numbers(self, cell: Any) -> Pixels:
        try:
            array = _array(cell)
        except (ValueError, TypeError, NotImplementedError):
            raise BadImageError("its lists are of unequal lengths, or hold nulls") from None
        if self.dtype == "float32":
            return channels_first(_as_they_are(array))
        return channels_first(to_bytes(array, unit=self.numbers == "0-1"))


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
        return ImageColumn(name, form, pixel_range), ""
    samples = [_sampled(file.path, name) for file in there[:SAMPLE_FILES]]
    _refuse_two_ranges(there, name, samples)
    values = np.concatenate(samples)
    taken = column_range(values)
    words = "as they are" if taken == ANY_RANGE else f"as {taken.replace('-', ' to ')}"
    others = " or ".join(each for each in PIXEL_RANGES if each != taken)
    found = (
        f"floating-point pixels are taken {words} (the largest of the first rows is "
        f"{values.max(initial=0):.4g}); --pixel-range {others} says otherwise"
    )
    return ImageColumn(name, form, taken), found


def column_range(values: NDArray[np.floating[Any]]) -> str:
    """What finite floating-point pixels of the first images are, one of `PIXEL_RANGES`.

    >>> column_range(np.array([0.0, 0.5, 1.1])), column_range(np.array([0.0, 2.0, 255.0]))
    ('0-1', '0-255')
    >>> column_range(np.array([-2.1, 0.0, 2.6])), column_range(np.array([0.5] * 999 + [1e39]))
    ('any', '0-1')
    """
    possible = values[values <= (1 + OVERSHOOT) * 255]
    if values.size - possible.size <= ODD_VALUES * values.size:
        values = possible  # an image with such numbers is bad, whatever the others are
    if not values.size:
        return "0-1"
    largest = float(values.max())
    # A few odd values make a bad image, and no set of another kind.
    low = float(np.quantile(values, ODD_VALUES))
    whole = bool((values == np.floor(values)).all())
    if largest <= 1.0 or (largest <= LARGEST_OVER_1 and not whole):
        return "0-1" if low >= -OVERSHOOT else ANY_RANGE
    if whole:
        return "0-255" if low >= 0 else ANY_RANGE
    return "0-255" if largest >= LEAST_BRIGHT and low >= -OVERSHOOT * 255 else ANY_RANGE


def _spark_image(fields: Any) -> Pixels:
    """An image as ``spark.read.format("image")`` has it: rows of blue, green, red (and alpha)."""
    height, width, channels = (fields[name].as_py() for name in ("height", "width", "nChannels"))
    mode = fields["mode"].as_py() if "mode" in fields else None
    data = _bytes(fields["data"])
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


def _bytes(cell: Any) -> Any:
    """A picture's bytes, unless they are too many; None for null."""
    plain = cell.value if hasattr(cell, "dictionary") else cell
    if plain.is_valid and (size := plain.as_buffer().size) > MOST_PICTURE_BYTES:
        raise BadImageError(too_large(size))
    return plain.as_py()


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
    array = _list(cell.values)
    if array.dtype == object or array.size == 0:
        raise ValueError("ragged")
    return array


def _list(values: Any) -> NDArray[Any]:
    """Numbers of an Arrow array, lists of equal lengths as dimensions."""
    import pyarrow.compute as pc

    shape = [len(values)]
    while hasattr(values.type, "value_type"):
        lengths = pc.list_value_length(values).unique()
        if len(lengths) != 1 or not lengths[0].is_valid:
            raise ValueError("ragged")
        shape.append(lengths[0].as_py())
        values = values.flatten()
    if values.null_count:
        raise ValueError("nulls")
    if len(values) > MOST_VALUES:
        raise BadImageError(f"{len(values)} values: an image has at most {MOST_VALUES}")
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return numbers.reshape(shape)


def _as_they_are(array: NDArray[Any]) -> NDArray[np.float32]:
    try:
        kept: NDArray[np.float32] = PixelReader(ANY_RANGE).read(array)
        return kept
    except UserError as error:
        raise BadImageError(error.problems[0]) from None


def to_bytes(array: NDArray[Any], *, unit: bool) -> NDArray[np.uint8]:
    """Numbers as 0 to 255; floating-point ones may lie outside by what interpolation adds.

    Raises:
        BadImageError: if any is outside.
    """
    if array.dtype == np.uint8:
        return array
    top = 1.0 if unit else 255.0
    if array.dtype.kind != "f":
        return scaled(array, top)
    hint = f"; --pixel-range {ANY_RANGE} keeps numbers as they are"
    return scaled(array, top, over=OVERSHOOT * top, hint=hint)


def channels_first(array: NDArray[Any]) -> Pixels:
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


def _refuse_two_ranges(
    files: Sequence[TableFile], name: str, samples: Sequence[NDArray[np.floating[Any]]]
) -> None:
    """Refuse files of 0 to 1 beside others of 0 to 255: the former would be taken for black."""
    kinds: dict[str, tuple[str, float]] = {}
    for file, values in zip(files, samples, strict=False):
        largest = float(values.max(initial=0))
        fractions = bool((values != np.floor(values)).any())
        kind = column_range(values)
        if (kind == "0-1" and fractions) or (kind == "0-255" and largest >= LEAST_BRIGHT):
            kinds.setdefault(kind, (file.path, largest))
    if len(kinds) > 1:
        (one, small), (other, large) = kinds["0-1"], kinds["0-255"]
        raise UserError(
            f"column {name!r}: pixels go from 0 to 1 in {one} (the largest is {small:.4g}), and "
            f"from 0 to 255 in {other} ({large:.4g}): write all files in one range, or give "
            "--pixel-range if these are so indeed"
        )


def _sampled(path: str, column: str) -> NDArray[np.floating[Any]]:
    """Finite numbers of a file's first rows that are not all 0."""
    found: list[NDArray[Any]] = [np.empty(0)]
    with opened(path) as file:
        for batch in file.iter_batches(SAMPLE_ROWS, columns=[column]):
            values = batch.column(batch.schema.get_field_index(column))
            values = getattr(values, "storage", values)
            if hasattr(values, "field"):  # a vector
                values = values.field("values")
            while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
                values = values.flatten()
            numbers = values.drop_null().to_numpy(zero_copy_only=False)
            found.append(numbers[np.isfinite(numbers)])
            if found[-1].any():
                break  # a file that begins with black rows says nothing yet
    return np.concatenate(found)
