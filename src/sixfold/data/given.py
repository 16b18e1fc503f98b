"""Data that are handed over in Python, as tensor shards that every rank opens.

Whatever it is (arrays, a map-style data set, a table, or a specification that is joined with one of
these) is read once, in the launcher, and written into the cache under a hash
of its classes, images and labels. So the same data give the same setting in any process.
"""

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sixfold.core.config import ANY_RANGE
from sixfold.core.environment import cache_directory
from sixfold.core.errors import UserError
from sixfold.core.files import make_folder, space_explained, write_atomically
from sixfold.data import shard_files
from sixfold.data.arrays import AS_THEY_ARE, InexactError, PixelReader
from sixfold.data.dataset import ALL_TRAIN, Shape
from sixfold.data.given_labels import Label, classified, kind_of, numbers_of
from sixfold.data.images import BadImageError, Pixels, quiet_decoder
from sixfold.data.manifest import NAME, PARTS, VALIDATION, Manifest, ShardEntry
from sixfold.data.shard_building import (
    CHUNK_BYTES,
    COLOR,
    GRAY,
    MOST_CHUNK_IMAGES,
    bad_images,
    refuse_unlabelled,
)
from sixfold.data.splits import cut, strata
from sixfold.data.targets import AUTO, MULTI_LABEL, REGRESSION

TEST_FRACTION = 0.2
OTHER_UNITS = 8.0
"""How much larger the pixels of one part may be than another's: 0 to 1 and 0 to 255, or images that
are normalised and others that are not, differ by a hundred."""

Record = tuple[Callable[[], Pixels], Label, str]
"""How to read an image (C, H, W); its class; its name."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One part of the data as it was given.

    Attributes:
        name: for people.
        records: of all images, in order.
        count: how many, if that is known.
        classes: names of the classes 0, 1, ...; None: the labels themselves are the names.
        live: the data set itself, where its items differ from reading to reading.
        reader: takes its arrays to pixels; absent of pictures.
        pixel_range: what its floating-point pixels are, one of `PIXEL_RANGES`; empty of others.
        weights: how much each record counts, (N,), known when all have been read; None: all the
            same.
        unlabelled: how many rows are no records, for want of a label.
        left_out: (name, reason) of what is no record.
    """

    name: str
    records: Callable[[], Iterator[Record]]
    count: int | None = None
    classes: tuple[str, ...] | None = None
    live: Any = None
    reader: PixelReader | None = None
    pixel_range: str = ""
    weights: Sequence[float] | NDArray[np.float64] | None = None
    unlabelled: int = 0
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass
class _Written:
    """One part's images in the spool, and what is known of them."""

    files: list[Path]
    labels: list[Label]
    names: list[str]
    shapes: set[Shape]
    kept: list[int]  # numbers of the records that could be read
    dtypes: set[np.dtype[Any]]


def write_given(
    parts: Mapping[str, Source],
    *,
    cut_test: bool,
    target: str = AUTO,
    on_error: str = "fail",
    reading: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Write parts ("train", and perhaps "test" and "validation"); the specification of them all.

    Args:
        parts: at least "train".
        cut_test: whether a test part is cut off the training part where there is none: 80 to 20.
        target: kind of the targets; "auto": as the labels are.
        on_error: "fail" or "skip": what becomes of images that cannot be read.
        reading: how items are read, where they will be read again.
        progress: told how many images are read.
    """
    root = cache_directory() / "data"
    make_folder(root, "SIXFOLD_CACHE")
    progress = progress or (lambda *_: None)
    for source in parts.values():
        refuse_unlabelled(source.name, source.unlabelled, on_error)
    with space_explained(root), tempfile.TemporaryDirectory(dir=root, prefix=".given-") as spool:
        folder = Path(spool)
        try:
            read, bad = _read(parts, folder / "pixels", progress)
        except InexactError:
            # Found at an image that may be the last one: all must be kept in the same way.
            _keep_as_they_are(parts)
            shutil.rmtree(folder / "pixels")
            read, bad = _read(parts, folder / "pixels", progress)
            _refuse_other_units(parts["train"].name, read)
        if bad and on_error == "fail":
            raise bad_images(bad)
        labels = {part: written.labels for part, written in read.items()}
        names = {part: source.classes for part, source in parts.items()}
        kind = kind_of(parts["train"].name, labels["train"], target)
        targets: dict[str, NDArray[np.float64]] = {}
        if kind in (MULTI_LABEL, REGRESSION):
            classes, targets = numbers_of(labels, names["train"], kind)
            numbers = {part: np.zeros(len(rows), np.int64) for part, rows in targets.items()}
        else:
            classes, numbers = classified(parts["train"].name, labels, names)
        shape = _one_shape(parts["train"].name, read)
        dtype = _one_dtype(parts["train"].name, read)
        split = _cut_off(numbers, targets.get("train"), kind, cut=cut_test)
        reader = parts["train"].reader
        settings = dict(reading or {}) | ({"scale": reader.scale} if reading and reader else {})
        weights = _weights(parts, read)
        made = _encode(folder, read, numbers, targets, weights, shape)
        manifest = Manifest(
            name=parts["train"].name,
            classes=classes,
            shape=shape,
            dtype=dtype,
            kind=kind,
            weighted=bool(weights),
            parts=made,
            bad=tuple(dict.fromkeys(bad)),
            left_out=tuple(line for source in parts.values() for line in source.left_out),
            source={
                "split": split,
                "skipped": len(bad) + sum(source.unlabelled for source in parts.values()),
                "pixel_range": (ANY_RANGE if dtype == "float32" else parts["train"].pixel_range),
            },
            settings={"on_bad": on_error, **settings},
            versions={n: metadata.version(n) for n in ("sixfold", "pillow", "numpy", "pyarrow")},
        )
        return f"shards:{_kept(root, folder / 'made', manifest, settings)}"


def _read(
    parts: Mapping[str, Source], folder: Path, progress: Callable[[int, int], None]
) -> tuple[dict[str, _Written], list[tuple[str, str]]]:
    """All images, into files in a new folder; and (name, reason) of each that cannot be read."""
    folder.mkdir()
    bad: list[tuple[str, str]] = []
    total = sum(source.count or 0 for source in parts.values())
    read: dict[str, _Written] = {}
    for part, source in parts.items():
        done = sum(len(each.labels) for each in read.values())
        told = functools.partial(_report, progress, done, total)
        read[part] = _spool(source, folder / part, bad, told)
    return read, bad


def _keep_as_they_are(parts: Mapping[str, Source]) -> None:
    for source in parts.values():
        if source.reader is not None:
            source.reader.scale = AS_THEY_ARE


def _refuse_other_units(name: str, read: Mapping[str, _Written]) -> None:
    """Refuse a part that is kept as it is, but in other units than the training images."""
    sizes = {part: _root_mean_square(written.files) for part, written in read.items()}
    train = sizes["train"]
    for part, size in sizes.items():
        if train and size and max(train / size, size / train) > OTHER_UNITS:
            raise UserError(
                f"{name}: pixels of the {part} part are about {size:.3g} (root mean square), those "
                f"of the training images {train:.3g}: give both in the same units, or "
                "pixel_range='any' if they are so indeed"
            )


def _root_mean_square(files: Sequence[Path]) -> float:
    total, count = 0.0, 0
    for file in files:
        pixels = np.load(file, mmap_mode="r")
        total += float(np.square(pixels, dtype=np.float64).sum())
        count += pixels.size
    return float(np.sqrt(total / count)) if count else 0.0


def _kept(root: Path, made: Path, manifest: Manifest, settings: Mapping[str, Any]) -> Path:
    """The place of some shards in the cache, under a hash of what they hold."""
    files = {part: [e.sha256 for e in entries] for part, entries in manifest.parts.items()}
    split = manifest.source["split"]
    content = json.dumps(
        [
            *(manifest.name, manifest.classes, files, split),
            *((*manifest.bad, *manifest.left_out), dict(settings)),
        ]
    )
    place = root / f"given-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    if not (place / NAME).exists():
        manifest.save(made)
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)
    return place


def _report(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _spool(
    source: Source, folder: Path, bad: list[tuple[str, str]], progress: Callable[[int], None]
) -> _Written:
    """Read a source once, into files of pixels that are of one shape each."""
    folder.mkdir()
    written = _Written([], [], [], set(), [], set())
    chunk: list[Pixels] = []

    def flush() -> None:
        if chunk:
            if {image.shape[0] for image in chunk} == {GRAY, COLOR}:
                chunk[:] = [_colored(image) for image in chunk]
            file = folder / f"{len(written.files):05d}.npy"
            np.save(file, np.stack(chunk))
            written.files.append(file)
            chunk.clear()
            progress(len(written.labels))

    with quiet_decoder():
        for number, (read, label, name) in enumerate(source.records()):
            try:
                image = read()
            except BadImageError as error:
                bad.append((error.name or name, error.reason))
                continue
            if chunk and (image.shape[1:], image.dtype) != (chunk[0].shape[1:], chunk[0].dtype):
                flush()
            chunk.append(image)
            channels, rows, columns = image.shape
            written.shapes.add((channels, rows, columns))
            written.dtypes.add(image.dtype)
            written.labels.append(label)
            written.kept.append(number)
            written.names.append(name)
            size = rows * columns * COLOR * image.itemsize
            if len(chunk) >= max(min(CHUNK_BYTES // size, MOST_CHUNK_IMAGES), 1):
                flush()
    flush()
    return written


def _weights(
    parts: Mapping[str, Source], read: Mapping[str, _Written]
) -> dict[str, NDArray[np.float64]]:
    """How much each image counts, of every part; empty if none says so."""
    if all(source.weights is None for source in parts.values()):
        return {}
    found = {}
    for part, written in read.items():
        own = parts[part].weights
        all_one = np.ones(len(written.kept))
        found[part] = all_one if own is None else np.asarray(own, np.float64)[written.kept]
    if not found["train"].any():
        raise UserError(f"{parts['train'].name}: weights are all 0")
    return found


def _colored(image: Pixels) -> Pixels:
    return np.repeat(image, COLOR, axis=image.ndim - 3) if image.shape[-3] == GRAY else image


def _one_shape(name: str, read: Mapping[str, _Written]) -> Shape:
    """The shape of all images: grey ones become colour where others are."""
    shapes = {shape for written in read.values() for shape in written.shapes}
    if not shapes:
        raise UserError(f"{name}: holds no image that can be read")
    sizes = sorted({shape[1:] for shape in shapes})
    if len(sizes) > 1:
        listed = ", ".join(f"{columns}x{rows}" for rows, columns in sizes[:10])
        raise UserError(
            f"{name}: images of {len(sizes)} sizes (width x height): {listed}: give resize=N to "
            "bring all to N x N pixels"
        )
    channels = {shape[0] for shape in shapes}
    if len(channels) > 1 and channels != {GRAY, COLOR}:
        raise UserError(f"{name}: images of {', '.join(map(str, sorted(channels)))} channels")
    return (max(channels), *sizes[0])


def _one_dtype(name: str, read: Mapping[str, _Written]) -> Literal["uint8", "float32"]:
    dtypes = {dtype for written in read.values() for dtype in written.dtypes}
    if len(dtypes) > 1:
        raise UserError(
            f"{name}: some images are 8-bit pictures and others floating-point numbers that are no "
            "8-bit pixels: give all in the same form"
        )
    return "uint8" if dtypes == {np.dtype(np.uint8)} else "float32"


def _cut_off(
    numbers: dict[str, NDArray[np.int64]],
    targets: NDArray[np.float64] | None,
    kind: str,
    *,
    cut: bool,
) -> str:
    """Mark the training images that are set aside for testing, by -1 - class."""
    if "test" in numbers:
        return "train and test as given"
    if not cut:
        return ALL_TRAIN
    aside = cut_labels(strata(numbers["train"], targets, kind))
    numbers["train"] = np.where(aside, -1 - numbers["train"], numbers["train"])
    return "80/20, stratified by class"


def cut_labels(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images are set aside for testing where a set has no test part."""
    return cut(labels, TEST_FRACTION, purpose="test")


def _encode(
    folder: Path,
    read: Mapping[str, _Written],
    numbers: Mapping[str, NDArray[np.int64]],
    targets: Mapping[str, NDArray[np.float64]],
    weights: Mapping[str, NDArray[np.float64]],
    shape: Shape,
) -> dict[str, tuple[ShardEntry, ...]]:
    """The files of each part, in `folder/made`."""
    made = folder / "made"
    made.mkdir()
    entries: dict[str, list[ShardEntry]] = {part: [] for part in PARTS}
    if VALIDATION in read:
        entries[VALIDATION] = []

    def add(
        part: str,
        images: NDArray[Any],
        labels: Sequence[int],
        names: list[str],
        rows: NDArray[np.float64] | None,
        weights: NDArray[np.float64] | None,
    ) -> None:
        if not len(images):
            return
        data = shard_files.encode(images, labels, names, [""] * len(names), rows, weights)
        file = f"{part}-{len(entries[part]):05d}.arrow"
        write_atomically(made / file, data)
        digest = hashlib.sha256(data).hexdigest()
        entry = ShardEntry(file=file, count=len(images), bytes=len(data), sha256=digest)
        entries[part].append(entry)

    for part, written in read.items():
        start = 0
        for file in written.files:
            images = np.load(file)
            if len(images[0]) != shape[0]:
                images = _colored(images)
            labels = numbers[part][start : start + len(images)]
            names = written.names[start : start + len(images)]
            rows = targets[part][start : start + len(images)] if targets else None
            counts = weights[part][start : start + len(images)] if weights else None
            start += len(images)
            file.unlink()
            for target, chosen in ((part, labels >= 0), ("test", labels < 0)):
                picked = np.flatnonzero(chosen)
                own = labels[picked] if target == part else -1 - labels[picked]
                given = None if rows is None else rows[picked]
                count = None if counts is None else counts[picked]
                chosen_names = [names[i] for i in picked]
                add(target, images[picked], own.tolist(), chosen_names, given, count)
    return {part: tuple(files) for part, files in entries.items()}
