"""Tensor shards: Arrow files of images that are mapped into memory, never read as a whole.

A file is one record batch with the columns

    image               fixed-shape tensor, uint8 or float32, (C, H, W)
    label               int32
    name                string: the file or record it came from
    group               string: what it was cut from, if anything
    pixel_sum           fixed-size list, int64 or float64, (C,): sum of the pixels
    pixel_square_sum    fixed-size list, int64 or float64, (C,): sum of their squares
    target              fixed-size list, float64, (K,): numbers, or 0 and 1 of labels; if any
    weight              float64: how much the image counts; if any
    key                 string: follows from the record's content, and decides its place; if any

so the mean and standard deviation of any choice of images are exact and read no pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, printable
from sixfold.data.dataset import UNLABELLED, Shape
from sixfold.data.manifest import Manifest, load_manifest, shortened
from sixfold.data.pixel_sums import Sums, image_sums, weighted_sums
from sixfold.data.records import ArrayPicture, Listing, Picture, RowRecords
from sixfold.data.targets import BINARY, CLASSES

if TYPE_CHECKING:
    from sixfold.data.shard_streaming import ShardCache


def schema(
    shape: Shape,
    dtype: np.dtype[Any],
    targets: int = 0,
    weighted: bool = False,
    keyed: bool = False,
) -> Any:
    """Arrow schema of a file of images of this shape, with so many targets each."""
    import pyarrow as pa

    sums = pa.list_(pa.int64() if dtype == np.uint8 else pa.float64(), shape[0])
    more = [("target", pa.list_(pa.float64(), targets))] if targets else []
    more += [("weight", pa.float64())] if weighted else []
    more += [("key", pa.string())] if keyed else []
    return pa.schema(
        [
            ("image", pa.fixed_shape_tensor(pa.from_numpy_dtype(dtype), shape)),
            ("label", pa.int32()),
            ("name", pa.string()),
            ("group", pa.string()),
            ("pixel_sum", sums),
            ("pixel_square_sum", sums),
            *more,
        ]
    )


def encode(
    images: NDArray[Any],
    labels: Sequence[int],
    names: Sequence[str],
    groups: Sequence[str],
    targets: NDArray[np.float64] | None = None,
    weights: NDArray[np.float64] | None = None,
    keys: Sequence[str] | None = None,
) -> bytes:
    """A file's bytes, which depend on the records alone; images are (n, C, H, W), C-contiguous."""
    import pyarrow as pa

    channels, rows, columns = images.shape[1:]
    shape = (channels, rows, columns)
    total, squares = image_sums(images)

    def lists(values: NDArray[Any], width: int) -> Any:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)

    tensors = lists(images, channels * rows * columns)
    width = 0 if targets is None else targets.shape[1]
    kind = schema(shape, images.dtype, width, weights is not None, keys is not None)
    more = [] if targets is None else [lists(np.ascontiguousarray(targets), width)]
    more += [] if weights is None else [pa.array(weights)]
    more += [] if keys is None else [pa.array(keys, pa.string())]
    batch = pa.record_batch(
        [
            pa.ExtensionArray.from_storage(kind.field("image").type, tensors),
            pa.array(labels, pa.int32()),
            pa.array([printable(name) for name in names], pa.string()),
            pa.array([printable(group) for group in groups], pa.string()),
            lists(total, channels),
            lists(squares, channels),
            *more,
        ],
        schema=kind,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, kind) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@dataclass(frozen=True)
class ShardFile:
    """One mapped file; names and groups are Arrow columns."""

    pixels: NDArray[Any]  # (n, C, H, W), a view of the file
    labels: NDArray[np.int32]  # (n,), a view of the file
    totals: NDArray[Any]  # sums of pixels, (n, C), a view of the file
    squares: NDArray[Any]  # sums of squared pixels, (n, C), a view of the file
    names: Any
    groups: Any
    targets: NDArray[np.float64] | None = None  # (n, K), a view of the file
    weights: NDArray[np.float64] | None = None  # (n,), a view of the file
    keys: Any = None


def open_shard(path: Path, shape: Shape, dtype: str | None = None) -> ShardFile:
    """Map a file of images of a shape; and of these pixels, if that is known."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            # The map lives as long as the arrays; the file is closed at once, since a large set
            # has more files than a process may have open.
            reader = pa.ipc.open_file(source)
            if not reader.schema.equals(_fitting(reader.schema, shape, dtype)):
                raise UserError(
                    f"{path}: columns other than those of images of {_times(shape)}: prepare the "
                    "shards again"
                )
            if reader.num_record_batches != 1:
                raise UserError(f"{path}: {reader.num_record_batches} batches: expected one")
            batch = reader.get_batch(0)
            # Looks at every offset, so that a damaged file cannot lead outside of the map.
            batch.validate(full=True)
            known = batch.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: damaged ({reason}): prepare the shards again") from None
    if any(column.null_count for column in batch.columns):
        raise UserError(f"{path}: damaged (it has nulls): prepare the shards again")
    count = batch.num_rows

    def numbers(name: str) -> NDArray[Any]:
        array = batch.column(name)
        array = getattr(array, "storage", array)
        values: NDArray[Any] = array.flatten().to_numpy(zero_copy_only=True)
        return values

    return ShardFile(
        pixels=numbers("image").reshape(count, *shape),
        labels=batch.column("label").to_numpy(zero_copy_only=True),
        totals=numbers("pixel_sum").reshape(count, -1),
        squares=numbers("pixel_square_sum").reshape(count, -1),
        names=batch.column("name"),
        groups=batch.column("group"),
        targets=numbers("target").reshape(count, -1) if "target" in known else None,
        weights=(
            batch.column("weight").to_numpy(zero_copy_only=True) if "weight" in known else None
        ),
        keys=batch.column("key") if "key" in known else None,
    )


def _fitting(found: Any, shape: Shape, dtype: str | None) -> Any:
    """The schema that a file should have, which may hold targets, weights and keys."""
    width = 0
    if "target" in found.names:
        width = getattr(found.field("target").type, "list_size", 0)
    if dtype is None:
        is_float = "float" in str(found.field("image").type) if "image" in found.names else False
        dtype = "float32" if is_float else "uint8"
    return schema(shape, np.dtype(dtype), width, "weight" in found.names, "key" in found.names)


def _times(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)


def _target_problems(path: Path, file: ShardFile, manifest: Manifest) -> list[str]:
    """What is wrong with a file's targets and weights, one line each."""
    names = sum(name != UNLABELLED for name in manifest.classes)
    wanted = 0 if manifest.kind in (CLASSES, BINARY) else names
    given = 0 if file.targets is None else file.targets.shape[1]
    found = []
    if given != wanted:
        found.append(f"{path}: {given} targets an image, but the manifest names {wanted}")
    if file.weights is not None and not ((file.weights >= 0) & np.isfinite(file.weights)).all():
        found.append(f"{path}: weights below 0, or not finite")
    return found


def _together(arrays: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    """Arrays of all files as one; None if some file has none."""
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there and len(there) == len(arrays) else None


def encode_places(places: NDArray[np.int64]) -> bytes:
    """A file's bytes that say which records of a part are meant."""
    import pyarrow as pa

    batch = pa.record_batch({"place": pa.array(places, pa.int64())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def chosen_places(folder: Path, manifest: Manifest, part: str, count: int) -> NDArray[np.int64]:
    """Places of the records that are meant, among the `count` in the files of a part."""
    import pyarrow as pa

    if not manifest.rows:
        return np.arange(count, dtype=np.int64)
    if part not in manifest.rows:
        return np.empty(0, np.int64)
    path = folder / manifest.rows[part].file
    try:
        with pa.ipc.open_file(path.read_bytes()) as reader:
            places: NDArray[np.int64] = reader.read_all().column("place").to_numpy()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path}: damaged ({error}): prepare the shards again") from None
    if places.dtype != np.int64 or not 0 <= places.min(initial=0) <= places.max(initial=0) < count:
        raise UserError(f"{path}: damaged (places outside of {count}): prepare the shards again")
    return places


class ShardStore:
    """A store over mapped files: holds labels and sums, and reads pixels as they are asked for."""

    def __init__(
        self, folder: Path, manifest: Manifest, part: str, cache: ShardCache | None = None
    ) -> None:
        self._cache = cache  # of pixels, where those are not in the files
        entries, folder = manifest.parts[part], manifest.home(folder)
        problems: list[str] = []
        self._files: list[ShardFile] = []
        for entry in entries:
            try:
                file = open_shard(folder / entry.file, manifest.shape, manifest.dtype)
            except UserError as error:
                problems += error.problems
                continue
            if len(file.labels) != entry.count:
                problems.append(
                    f"{folder / entry.file}: {len(file.labels)} images, but the manifest says "
                    f"{entry.count}"
                )
            elif not 0 <= file.labels.min() <= file.labels.max() < len(manifest.classes):
                problems.append(
                    f"{folder / entry.file}: labels from {file.labels.min()} to "
                    f"{file.labels.max()}: expected 0 to {len(manifest.classes) - 1}"
                )
            problems += _target_problems(folder / entry.file, file, manifest)
            self._files.append(file)
        if problems:
            raise UserError(shortened(problems))
        self.shape: Shape = manifest.shape
        self.dtype: np.dtype[Any] = np.dtype(manifest.dtype)
        self.targets = _together([file.targets for file in self._files])
        self.weights = _together([file.weights for file in self._files])
        self._starts = np.cumsum([0, *(len(file.labels) for file in self._files)])
        labels = [file.labels for file in self._files]
        self.labels = np.concatenate([np.empty(0, np.int64), *labels]).astype(np.int64)

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        import pyarrow as pa

        whole = pa.chunked_array([file.groups for file in self._files], pa.string())
        codes = whole.combine_chunks().dictionary_encode()
        if len(codes.dictionary) == 0 or codes.dictionary.to_pylist() == [""]:
            return None
        numbers: NDArray[np.int64] = codes.indices.to_numpy().astype(np.int64)
        return numbers

    def keys(self) -> NDArray[np.str_] | None:
        """The records' keys, (N,); None if some have none."""
        if any(file.keys is None for file in self._files):
            return None
        empty = np.empty(0, np.str_)
        return np.concatenate([empty, *(np.array(f.keys.to_pylist()) for f in self._files)])

    def images(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        out = np.empty((len(indices), *self.shape), self.dtype)
        numbers, rows = self.locate(indices)
        pixels = {one: self._pixels(one) for one in dict.fromkeys(numbers.tolist())}
        for target, number, row in zip(out, numbers.tolist(), rows.tolist(), strict=True):
            target[...] = pixels[number][row]
        return out

    def _pixels(self, number: int) -> NDArray[np.uint8]:
        return self._files[number].pixels if self._cache is None else self._cache.pixels(number)

    @cached_property
    def files(self) -> NDArray[np.int64]:
        """Number of the file of each record, (N,)."""
        return np.repeat(np.arange(len(self._files)), np.diff(self._starts))

    def expect(self, windows: Sequence[Sequence[int]]) -> None:
        if self._cache is not None:
            self._cache.expect(windows)

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        numbers, rows = self.locate(indices)
        return [
            self._files[number].names[row].as_py()
            for number, row in zip(numbers.tolist(), rows.tolist(), strict=True)
        ]

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        """See `Store.sums`; reads no pixels."""
        chosen = np.bincount(indices, minlength=len(self.labels))
        area = self.shape[1] * self.shape[2]
        own = [
            weighted_sums(chosen[start : start + len(f.labels)], f.totals, f.squares, area)
            for f, start in zip(self._files, self._starts, strict=False)
        ]
        return sum(own, Sums.none(self.shape[0], self.dtype))

    def locate(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """File of each record, and its row there."""
        numbers = np.searchsorted(self._starts, indices, side="right") - 1
        return numbers, indices - self._starts[numbers]


@dataclass(frozen=True, kw_only=True)
class ShardRecords(RowRecords):
    """Records of tensor shards, to be resized."""

    shape: Shape
    dtype: str

    @property
    def names(self) -> Sequence[str]:
        return [file.names[row].as_py() for file, row in self._rows()]

    @property
    def groups(self) -> Sequence[str]:
        return [file.groups[row].as_py() for file, row in self._rows()]

    def pictures(self) -> Iterator[Picture]:
        return (ArrayPicture(file.pixels[row]) for file, row in self._rows())

    def _rows(self) -> Iterator[tuple[ShardFile, int]]:
        opened = [open_shard(Path(file), self.shape, self.dtype) for file in self.files]
        for file, row in zip(self.file.tolist(), self.row.tolist(), strict=True):
            yield opened[file], row


def list_shards(path: Path) -> Listing:
    """List the records of a folder of shards, to be written again at another size."""
    manifest = load_manifest(path)
    parts = {}
    for part, entries in manifest.parts.items():
        files = tuple(str(manifest.home(path) / entry.file) for entry in entries)
        store = ShardStore(path, manifest, part)
        chosen = chosen_places(path, manifest, part, len(store.labels))
        file, row = store.locate(chosen)
        parts[part] = ShardRecords(
            files=files,
            shape=manifest.shape,
            dtype=manifest.dtype,
            labels=store.labels[chosen],
            targets=None if store.targets is None else store.targets[chosen],
            weights=None if store.weights is None else store.weights[chosen],
            file=file,
            row=row,
        )
    return Listing(
        name=manifest.name,
        classes=manifest.classes,
        parts=parts,
        split="as before",
        kind=manifest.kind,
    )
