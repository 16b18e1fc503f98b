"""CIFAR-10 in each form it is found in: Python batches, binary batches, or a folder of images.

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The Python batches
are pickles: they are read by an unpickler that can build arrays and plain containers and nothing
else, so a hostile file cannot run code.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, raise_problems
from sixfold.data import paths
from sixfold.data.byte_ranges import Extent
from sixfold.data.file_tree import Tree
from sixfold.data.formats import folder
from sixfold.data.formats.layout import enter
from sixfold.data.records import FileRecords, Listing

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SHAPE = (3, 32, 32)
IMAGE_BYTES = 3 * 32 * 32
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
BATCHES = {"train": TRAIN, "test": ("test_batch",)}


def read(tree: Tree, name: str) -> Listing:
    """List the images."""
    for suffix in ("", ".bin"):
        home = _home(tree, suffix)
        if home is not None:
            return _read_batches(home, name, suffix)
    inner = enter(tree)
    if not inner.top():
        raise UserError(
            f"{tree.path}: expected data_batch_1 to 5 and test_batch, the same with .bin, or "
            f"train/<class>/* and test/<class>/* ({folder.describe(tree)})"
        )
    return folder.read(inner, name, classes=CLASSES)


def _home(tree: Tree, suffix: str) -> Tree | None:
    """The folder in which any of the batches lies."""
    wanted = {batch + suffix for batches in BATCHES.values() for batch in batches}
    return tree.outermost(n.rpartition("/")[0] for n in tree.files if paths.base_name(n) in wanted)


def _read_batches(tree: Tree, name: str, suffix: str) -> Listing:
    problems: list[str] = []
    parts = {}
    for part, batches in BATCHES.items():
        found = []
        for batch in batches:
            try:
                if batch + suffix not in tree.files:
                    raise UserError(f"{paths.join(tree.path, batch + suffix)}: no such file")
                found.append((_python_batch if not suffix else _binary_batch)(tree, batch))
            except UserError as error:
                problems += error.problems
        parts[part] = _join(found)
    raise_problems(problems)
    train = parts["train"].labels
    raise_problems(folder.empty_classes(tree.path, "train", train, CLASSES, CLASSES))
    return Listing(
        name=name,
        classes=CLASSES,
        parts=parts,
        split="files data_batch_1 to 5, test_batch",
        left_out=tree.left_out,
    )


def _join(batches: Sequence[FileRecords]) -> FileRecords:
    labels = [batch.labels for batch in batches] or [np.empty(0, np.int64)]
    return FileRecords(
        names=[name for batch in batches for name in batch.names],
        labels=np.concatenate(labels),
        extents=[extent for batch in batches for extent in batch.extents],
        raw=SHAPE,
    )


def _check_labels(labels: NDArray[np.int64], path: str) -> None:
    if len(labels) == 0:
        raise UserError(f"{path}: holds no images")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(CLASSES):
        raise UserError(f"{path}: labels from {low} to {high}: expected 0 to {len(CLASSES) - 1}")


def _binary_batch(tree: Tree, batch: str) -> FileRecords:
    """Records of a label byte and 3072 pixels, channel by channel."""
    path = paths.join(tree.path, f"{batch}.bin")
    extent = tree.plain(f"{batch}.bin")
    size, stride = extent.size or 0, 1 + IMAGE_BYTES
    if size % stride:
        raise UserError(
            f"{path}: {size} bytes are no multiple of {stride} (a label and 3x32x32 pixels): the "
            "file is incomplete or damaged"
        )
    with paths.open_file(extent.path) as file:
        file.seek(extent.offset)
        labels = np.frombuffer(file.read(size), np.uint8)[::stride].astype(np.int64)
    _check_labels(labels, path)
    return FileRecords(
        names=[f"{batch}[{index}]" for index in range(len(labels))],
        labels=labels,
        extents=[
            Extent(extent.path, extent.offset + index * stride + 1, IMAGE_BYTES)
            for index in range(len(labels))
        ],
        raw=SHAPE,
    )


def _python_batch(tree: Tree, batch: str) -> FileRecords:
    path = paths.join(tree.path, batch)
    content = _unpickle(tree.read(batch), path)
    try:
        pixels = np.ascontiguousarray(content[b"data"])
        labels = np.asarray(content[b"labels"], np.int64)
        names = [name.decode("utf-8", "replace") for name in content.get(b"filenames", [])]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(
            f"{path}: expected a dictionary with data, labels and filenames ({error!r})"
        ) from None
    expected = (len(labels), IMAGE_BYTES)
    if labels.ndim != 1 or pixels.shape != expected or pixels.dtype != np.uint8:
        raise UserError(
            f"{path}: data is {pixels.dtype} of shape {pixels.shape}: expected uint8 of {expected}"
        )
    _check_labels(labels, path)
    if len(names) != len(labels):
        names = [str(index) for index in range(len(labels))]
    extent = tree.keep(batch, pixels.tobytes())
    return FileRecords(
        names=[f"{batch}/{name}" for name in names],
        labels=labels,
        extents=[
            Extent(extent.path, index * IMAGE_BYTES, IMAGE_BYTES) for index in range(len(labels))
        ],
        raw=SHAPE,
    )


def _unpickle(data: bytes, path: str) -> dict[Any, Any]:
    try:
        content = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    except (Exception, MemoryError, RecursionError) as error:
        raise UserError(f"{path}: damaged, or no CIFAR-10 batch ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}: expected a dictionary")
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers; refuses everything else that a pickle can name."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _array_of_bytes
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module == "_codecs" and name == "encode":
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")


def _empty_array(*_: object) -> NDArray[Any]:
    """An array yet to be filled; its first shape is always (0,), whatever a forged file asks."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _array_of_bytes(data: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    """How pickles of protocol 5 write arrays."""
    values: NDArray[Any] = np.frombuffer(data, kind)
    return values.reshape(shape, order=order)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocol 2 write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode(encoding)


__all__ = ["BATCHES", "CLASSES", "read"]
