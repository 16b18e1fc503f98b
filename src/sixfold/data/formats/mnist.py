"""MNIST as it is distributed: four files in the idx format, plain or gzipped.

Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998: a big-endian
magic number (0x0803 for images, 0x0801 for labels), the sizes, then one byte a value. Any set in
the same four files is read (Fashion-MNIST, KMNIST), with up to ten classes.
"""

import gzip
import io
import re
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, raise_problems
from sixfold.data import paths
from sixfold.data.byte_ranges import Extent, copy_to
from sixfold.data.file_tree import Tree
from sixfold.data.formats.folder import describe, empty_classes
from sixfold.data.records import FileRecords, Listing

CLASSES = tuple("0123456789")
MAGIC = {"images": 0x0803, "labels": 0x0801}
NAME = re.compile(
    r"(train|t10k|test)[-_. ](images|labels)[-_. ]idx[13]([-_. ]ubyte)?(\.gz)?", re.IGNORECASE
)
MOST_BYTES, MOST_IMAGES, MOST_SIDE = 2**32, 10**7, 4096
"""Ninety times MNIST, and 166 times as many images: a header that says more is damaged."""

MOST_PACKED_BYTES = 2**29

FILES = tuple((part, what) for part in ("train", "test") for what in ("images", "labels"))


def read(tree: Tree, name: str) -> Listing:
    """List the images of the four files."""
    found = _find(tree)
    problems = [
        f"{tree.path}: no {'train' if part == 'train' else 't10k'}-{what}-idx"
        f"{3 if what == 'images' else 1}-ubyte[.gz] ({describe(tree)})"
        for part, what in FILES
        if (part, what) not in found
    ]
    parts = {}
    for part in ("train", "test"):
        if (part, "images") in found and (part, "labels") in found:
            try:
                parts[part] = _records(tree, found[part, "images"], found[part, "labels"])
            except UserError as error:
                problems += error.problems
    raise_problems(problems)
    used = 1 + max(int(records.labels.max()) for records in parts.values())
    classes = CLASSES[:used]
    raise_problems(empty_classes(tree.path, "train", parts["train"].labels, classes, classes))
    return Listing(
        name=name,
        classes=classes,
        parts=parts,
        split="files train-*, t10k-*",
        left_out=tree.left_out,
    )


def _find(tree: Tree) -> Mapping[tuple[str, str], str]:
    """Names of the files of the outermost folder that has any; plain before gzipped.

    A folder that is called like one of the files and holds it (some programs unpack each file into
    one) counts as the folder around it.
    """
    found: dict[tuple[str, str], str] = {}

    def home(name: str) -> str:
        folder = name.rpartition("/")[0]
        return folder.rpartition("/")[0] if NAME.fullmatch(paths.base_name(folder)) else folder

    files = [name for name in tree.files if NAME.fullmatch(paths.base_name(name))]
    files.sort(key=lambda name: (home(name).count("/"), home(name), _is_packed(name), name))
    for name in files:
        match = NAME.fullmatch(paths.base_name(name))
        if match is not None and home(name) == home(files[0]):
            part = "train" if match[1].lower() == "train" else "test"
            found.setdefault((part, match[2].lower()), name)
    return found


def _is_packed(name: str) -> bool:
    return name.lower().endswith(".gz")


def _records(tree: Tree, images: str, labels: str) -> FileRecords:
    pixels, (count, rows, columns) = _open(tree, images, "images")
    marks, (label_count,) = _open(tree, labels, "labels")
    if label_count != count:
        raise UserError(
            f"{paths.join(tree.path, labels)}: {label_count} labels for the {count} images of "
            f"{paths.base_name(images)}"
        )
    known = _read_extent(marks)
    if known.max() >= len(CLASSES):
        raise UserError(
            f"{paths.join(tree.path, labels)}: labels up to {known.max()}: expected 0 to "
            f"{len(CLASSES) - 1}"
        )
    size = rows * columns
    stem = re.split(r"[-_. ]idx", paths.base_name(images), flags=re.IGNORECASE)[0]
    return FileRecords(
        names=[f"{stem}[{index}]" for index in range(count)],
        labels=known.astype(np.int64),
        extents=[Extent(pixels.path, pixels.offset + index * size, size) for index in range(count)],
        raw=(1, rows, columns),
    )


def _read_extent(extent: Extent) -> NDArray[np.uint8]:
    with paths.open_file(extent.path) as file:
        file.seek(extent.offset)
        return np.frombuffer(file.read(extent.size or 0), np.uint8)


def _open(tree: Tree, name: str, what: str) -> tuple[Extent, tuple[int, ...]]:
    """Where the values of a file are, and the sizes that its header gives."""
    path = paths.join(tree.path, name)
    dims = 3 if what == "images" else 1
    header_bytes = 4 + 4 * dims
    extent = _unpack(tree, name, path, what) if _is_packed(name) else tree.plain(name)
    with paths.open_file(extent.path) as file:
        file.seek(extent.offset)
        header = file.read(header_bytes)
    size = extent.size or 0
    shape = _sizes(header, path, what)
    expected = header_bytes + int(np.prod(shape, dtype=object))
    if size != expected:
        raise UserError(
            f"{path}: {size} bytes, but its header says {'x'.join(map(str, shape))}, that is "
            f"{expected} bytes: the file is incomplete or damaged"
        )
    return extent._replace(offset=extent.offset + header_bytes, size=size - header_bytes), shape


def _sizes(header: bytes, path: str, what: str) -> tuple[int, ...]:
    dims = 3 if what == "images" else 1
    if len(header) < 4 + 4 * dims:
        raise UserError(f"{path}: only {len(header)} bytes: the file is incomplete")
    magic, *shape = (int(value) for value in np.frombuffer(header, ">u4"))
    if magic != MAGIC[what]:
        raise UserError(
            f"{path}: begins with 0x{magic:08x}: idx {what} begin with 0x{MAGIC[what]:08x}"
        )
    size = int(np.prod(shape, dtype=object))
    if (
        not 0 < size <= MOST_BYTES
        or shape[0] > MOST_IMAGES
        or max(shape[1:], default=1) > MOST_SIDE
    ):
        raise UserError(
            f"{path}: its header says {'x'.join(map(str, shape))}: expected 1 to {MOST_BYTES} "
            f"bytes, at most {MOST_IMAGES} images, at most {MOST_SIDE} pixels a side"
        )
    return tuple(shape)


def _unpack(tree: Tree, name: str, path: str, what: str) -> Extent:
    """Decompress no more than the header promises, and one byte to see that it is no more."""
    target = tree.spool / name.replace("/", "_")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(tree.read(name, MOST_PACKED_BYTES))) as file:
            header = file.read(4 + 4 * (3 if what == "images" else 1))
            promised = len(header) + int(np.prod(_sizes(header, path, what), dtype=object))
            file.seek(0)
            # Asking for one byte too many reads to the end, where the checksum is looked at.
            copy_to(target, file, path, promised + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged or incomplete ({error}): fetch it again") from None
    return Extent(str(target), 0, target.stat().st_size)
