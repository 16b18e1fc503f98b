"""How pixels lie in a column of numbers, and how to take them out."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data import paths
from sixfold.data.formats.columns import readable
from sixfold.data.images import BadImageError, Pixels, scaled
from sixfold.errors import UserError

MOST_CHANNELS = 4
"""A first or last dimension up to this is taken for the channels."""

SAMPLE_ROWS = 256


@dataclass(frozen=True)
class PixelLayout:
    """How an image lies in a cell of a table.

    Attributes:
        shape: of the numbers; empty: as each cell's own lists say.
        unit: whether they are 0 to 1 rather than 0 to 255.
    """

    shape: tuple[int, ...]
    unit: bool

    def pixels(self, value: Any) -> Pixels:
        """One cell as an image.

        Args:
            value: an Arrow scalar: of a list, a nested list, or a tensor.

        Raises:
            BadImageError: if it has no image's shape or values.
        """
        try:
            array = _numbers(value, self.shape)
        except (ValueError, TypeError, NotImplementedError):
            raise BadImageError("its lists are of unequal lengths, or hold nulls") from None
        return channels_first(to_bytes(array, unit=self.unit))


def _numbers(value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if hasattr(value, "to_numpy"):  # a tensor
        return np.asarray(value.to_numpy())
    array = np.array(value.as_py())
    if array.dtype == object or array.size == 0:
        raise ValueError("ragged")
    return array.reshape(shape) if shape else array


def to_bytes(array: NDArray[Any], *, unit: bool) -> NDArray[np.uint8]:
    """Numbers as 0 to 255.

    Raises:
        BadImageError: if any is outside.
    """
    if array.dtype == np.uint8:
        return array
    return scaled(array, 1.0 if unit else 255.0)


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


def layout_of(path: str, field: Any) -> PixelLayout | None:
    """How pixels lie in a column; None if it holds encoded pictures.

    Args:
        path: a file with the column; the range of floating-point numbers is seen from its rows.
        field: the column's Arrow field.

    Raises:
        UserError: if the column holds no numbers.
    """
    import pyarrow.types as types

    kind = field.type
    if types.is_struct(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return None
    shape = tuple(getattr(kind, "shape", ()))
    inner = kind.value_type
    while hasattr(inner, "value_type"):
        inner = inner.value_type
    if types.is_integer(inner):
        return PixelLayout(shape, unit=False)
    if not types.is_floating(inner):
        raise UserError(f"{path}: column {field.name!r} is {kind}: expected numbers or pictures")
    return PixelLayout(shape, unit=_largest(path, field.name) <= 1.0)


def _largest(path: str, column: str) -> float:
    """Largest number of the first rows; one that is infinite says nothing of the others."""
    import pyarrow.parquet as pq

    with readable(path), paths.open_file(path) as source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(SAMPLE_ROWS, columns=[column]):
            values = batch.column(0)
            values = getattr(values, "storage", values)
            while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
                values = values.flatten()
            numbers = values.drop_null().to_numpy(zero_copy_only=False)
            return float(np.max(numbers, initial=0.0, where=np.isfinite(numbers)))
    return 0.0
