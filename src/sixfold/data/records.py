"""What a format finds: records in a fixed order, any of which a worker can read alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sixfold.data.byte_ranges import Extent, ExtentReader
from sixfold.data.dataset import Shape, Store
from sixfold.data.images import (
    BadImageError,
    Box,
    Pixels,
    decode,
    displayed_size,
    finish,
    open_picture,
    resize_array,
    upright,
)
from sixfold.data.manifest import PARTS
from sixfold.data.targets import CLASSES

if TYPE_CHECKING:
    from PIL.Image import Image


class Picture(Protocol):
    """One image, of which so far only the header may have been read."""

    def size(self) -> tuple[int, int]:
        """Rows and columns; BadImageError if they cannot be told."""
        _, rows, columns = self.pixels(None).shape
        return rows, columns

    def pixels(self, resize: int | None) -> Pixels:
        """Decode it, (C, H, W); BadImageError if it cannot be decoded."""
        ...


class Records(Protocol):
    """Records in their final order; picklable, and reads its own files."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each record, (N,)."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """What each record was cut from; empty if every record stands for itself."""
        ...

    @property
    def targets(self) -> NDArray[np.float64] | None:
        """Numbers, or 0 and 1 of labels, (N, K); None where records have a class."""
        ...

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """How much each record counts, (N,); None: all the same."""
        ...

    def take(self, indices: NDArray[np.int64]) -> Records:
        """Some of the records."""
        ...

    def pictures(self) -> Iterator[Picture]:
        """The records' images, one at a time."""
        ...


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A data set as found."""

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Records]  # "train" and "test"
    split: str  # how the parts were told apart, for people
    # (name, reason) of what is no record, though it looks like one
    left_out: tuple[tuple[str, str], ...] = ()
    unlabelled: int = 0  # how many records were left out because they have no label
    skipped: int = 0  # how many records `left_out` speaks of
    pixel_range: str = ""  # of floating-point pixels, as `--pixel-range` has it
    pixels: str = ""  # what floating-point numbers were taken for, if that was told from them
    kind: str = CLASSES  # of targets; `classes` then names classes, labels or numbers


@dataclass(frozen=True)
class ArrayPicture(Picture):
    """An image that is there already, (C, H, W)."""

    array: Pixels

    def pixels(self, resize: int | None) -> Pixels:
        """The array, resized."""
        return self.array if resize is None else resize_array(self.array, resize)


@dataclass(frozen=True)
class EncodedPicture(Picture):
    """An image as the bytes of a JPEG, PNG or the like."""

    data: bytes

    def size(self) -> tuple[int, int]:
        """Rows and columns, from the header."""
        return displayed_size(open_picture(self.data))

    def pixels(self, resize: int | None) -> Pixels:
        """Decode all of it."""
        return decode(open_picture(self.data), resize=resize)


@dataclass(frozen=True)
class BadPicture(Picture):
    """An image of which it is known already that it cannot be had."""

    error: BadImageError

    def pixels(self, resize: int | None) -> Pixels:  # noqa: ARG002 (the protocol's)
        """Raises the error."""
        raise self.error


@dataclass(frozen=True)
class CropPicture(Picture):
    """A grey crop of a larger picture."""

    whole: Image
    box: Box

    def pixels(self, resize: int | None) -> Pixels:
        """Cut it out."""
        return finish(self.whole, box=self.box, gray=True, resize=resize)


@dataclass(frozen=True, kw_only=True)
class FileRecords:
    """Records that are files, stretches of files, or parts of the pictures in them."""

    names: Sequence[str]  # of each record
    labels: NDArray[np.int64]  # class of each record, (N,)
    extents: Sequence[Extent]  # where each record's bytes are
    groups: Sequence[str] = ()  # what each record was cut from
    boxes: Sequence[Box] = ()  # part of the picture that is the record; absent: all of it
    # shape (C, H, W) of records that are plain pixels; absent: they are encoded pictures
    raw: Shape | None = None

    targets = weights = None

    def take(self, indices: NDArray[np.int64]) -> FileRecords:
        return FileRecords(
            names=[self.names[index] for index in indices],
            labels=self.labels[indices],
            extents=[self.extents[index] for index in indices],
            groups=[self.groups[index] for index in indices] if self.groups else (),
            boxes=[self.boxes[index] for index in indices] if self.boxes else (),
            raw=self.raw,
        )

    def pictures(self) -> Iterator[Picture]:
        with ExtentReader() as reader:
            if self.boxes:
                yield from self._crops(reader)
                return
            for extent in self.extents:
                try:
                    data = reader.read(extent, picture=self.raw is None)
                except BadImageError as error:
                    yield BadPicture(error)
                    continue
                raw = self.raw
                if raw is None:
                    yield EncodedPicture(data)
                else:
                    yield ArrayPicture(np.frombuffer(data, np.uint8).reshape(raw))

    def _crops(self, reader: ExtentReader) -> Iterator[Picture]:
        """Crops of pictures, each of which is decoded once for all crops that follow each other."""
        last: Extent | None = None
        whole: Image | BadImageError = BadImageError("nothing was read")
        groups = self.groups or [""] * len(self.names)
        for extent, group, box in zip(self.extents, groups, self.boxes, strict=True):
            if extent != last:
                whole, last = _whole_picture(reader, extent, group), extent
            if isinstance(whole, BadImageError):
                yield BadPicture(whole)
            else:
                yield CropPicture(whole, box)


def _whole_picture(reader: ExtentReader, extent: Extent, name: str) -> Image | BadImageError:
    """The picture, or why it cannot be had (said once, of the picture, not of every crop)."""
    try:
        return upright(open_picture(reader.read(extent, picture=True))).convert("L")
    except BadImageError as error:
        return BadImageError(error.reason, name)


def list_stores(name: str, classes: tuple[str, ...], stores: Sequence[Store]) -> Listing:
    """List the records of two picklable stores, one for each part, to be written as shards."""
    parts = {
        part: StoreRecords(store, np.arange(len(store.labels)))
        for part, store in zip(PARTS, stores, strict=True)
    }
    return Listing(name=name, classes=classes, parts=parts, split="80/20")


@dataclass(frozen=True)
class StoreRecords:
    """Records of a picklable store."""

    store: Store
    indices: NDArray[np.int64]
    groups: Sequence[str] = ()

    targets = weights = None

    @property
    def names(self) -> Sequence[str]:
        return self.store.names(self.indices)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each record, (N,)."""
        return self.store.labels[self.indices]

    def take(self, indices: NDArray[np.int64]) -> StoreRecords:
        return StoreRecords(self.store, self.indices[indices])

    def pictures(self) -> Iterator[Picture]:
        return map(ArrayPicture, self.store.images(self.indices))


@dataclass(frozen=True, kw_only=True)
class RowRecords:
    """Records that are rows of some files."""

    files: tuple[Any, ...]
    file: NDArray[np.int64]  # which file each record is in, (N,)
    row: NDArray[np.int64]  # which row of it, (N,), ascending within each file
    labels: NDArray[np.int64]  # class of each record, (N,); 0 where records have targets
    targets: NDArray[np.float64] | None = None  # (N, K)
    weights: NDArray[np.float64] | None = None  # (N,)

    def take(self, indices: NDArray[np.int64]) -> Self:
        used, places = np.unique(self.file[indices], return_inverse=True)
        return replace(
            self,
            files=tuple(self.files[number] for number in used.tolist()),
            file=places,
            row=self.row[indices],
            labels=self.labels[indices],
            targets=None if self.targets is None else self.targets[indices],
            weights=None if self.weights is None else self.weights[indices],
        )
