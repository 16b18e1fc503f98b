"""Data that are handed over in Python, as tensor shards that every rank opens.

Whatever it is (arrays, a map-style data set, a table, a Spark DataFrame, or a specification that
is joined with one of these) is read once, in the launcher, and written into the cache under a hash
of its classes, images and labels. So the same data give the same setting in any process.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.environment import cache_directory
from sixfold.core.errors import UserError
from sixfold.core.files import make_folder, space_explained, write_atomically
from sixfold.data import shard_files
from sixfold.data.arrays import PixelReader
from sixfold.data.dataset import ALL_TRAIN, Shape
from sixfold.data.images import BadImageError, Pixels, quiet_decoder
from sixfold.data.manifest import NAME, PARTS, VALIDATION, Manifest, ShardEntry
from sixfold.data.shard_building import CHUNK_BYTES, COLOR, GRAY, MOST_CHUNK_IMAGES, bad_images
from sixfold.data.splits import cut, strata
from sixfold.data.targets import AUTO, CLASSES, MULTI_LABEL, REGRESSION

TEST_FRACTION = 0.2

Label = int | str | tuple[float, ...]
"""A class, or numbers: those of a regression, or 0 and 1 of several labels."""
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
        reader: takes its arrays to pixels.
        weights: how much each record counts, (N,); None: all the same.
    """

    name: str
    records: Callable[[], Iterator[Record]]
    count: int | None = None
    classes: tuple[str, ...] | None = None
    live: Any = None
    reader: PixelReader | None = None
    weights: NDArray[np.float64] | None = None


@dataclass
class _Written:
    """One part's images in the spool, and what is known of them."""

    files: list[Path]
    labels: list[Label]
    names: list[str]
    shapes: set[Shape]
    kept: list[int]  # numbers of the records that could be read


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
    with space_explained(root), tempfile.TemporaryDirectory(dir=root, prefix=".given-") as spool:
        folder = Path(spool)
        bad: list[tuple[str, str]] = []
        total = sum(source.count or 0 for source in parts.values())
        read: dict[str, _Written] = {}
        for part, source in parts.items():
            done = sum(len(each.labels) for each in read.values())
            told = functools.partial(_report, progress, done, total)
            read[part] = _spool(source, folder / part, bad, told)
        if bad and on_error == "fail":
            raise bad_images(bad)
        kind = _kind(parts["train"].name, read["train"].labels, target)
        targets: dict[str, NDArray[np.float64]] = {}
        if kind in (MULTI_LABEL, REGRESSION):
            classes, targets = _numbers(parts["train"], read, kind)
            numbers = {part: np.zeros(len(rows), np.int64) for part, rows in targets.items()}
        else:
            classes, numbers = _classified(parts, read)
        shape = _one_shape(parts["train"].name, read)
        split = _cut_off(numbers, targets.get("train"), kind, cut=cut_test)
        reader = parts["train"].reader
        settings = dict(reading or {}) | ({"scale": reader.scale} if reading and reader else {})
        weights = _weights(parts, read)
        made = _encode(folder, read, numbers, targets, weights, shape)
        manifest = Manifest(
            name=parts["train"].name,
            classes=classes,
            shape=shape,
            kind=kind,
            weighted=bool(weights),
            parts=made,
            bad=tuple(dict.fromkeys(bad)),
            source={"split": split, "skipped": len(bad)},
            settings={"on_bad": on_error, **settings},
            versions={n: metadata.version(n) for n in ("sixfold", "pillow", "numpy", "pyarrow")},
        )
        files = {part: [e.sha256 for e in entries] for part, entries in made.items()}
        content = json.dumps([manifest.name, classes, files, split, manifest.bad, settings])
        place = root / f"given-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        if not (place / NAME).exists():
            manifest.save(folder / "made")
            shutil.rmtree(place, ignore_errors=True)
            (folder / "made").rename(place)
        return f"shards:{place}"


def _report(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _spool(
    source: Source, folder: Path, bad: list[tuple[str, str]], progress: Callable[[int], None]
) -> _Written:
    """Read a source once, into files of pixels that are of one shape each."""
    folder.mkdir()
    written = _Written([], [], [], set(), [])
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
            if chunk and image.shape[1:] != chunk[0].shape[1:]:
                flush()
            chunk.append(image)
            channels, rows, columns = image.shape
            written.shapes.add((channels, rows, columns))
            written.labels.append(label)
            written.kept.append(number)
            written.names.append(name)
            if len(chunk) >= max(
                min(CHUNK_BYTES // (rows * columns * COLOR), MOST_CHUNK_IMAGES), 1
            ):
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
        found[part] = np.ones(len(written.kept)) if own is None else own[written.kept]
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


def _kind(name: str, labels: Sequence[Label], asked: str) -> str:
    """Of the targets: as was asked for, or as the labels are."""
    first = labels[0] if labels else 0
    if asked in (MULTI_LABEL, REGRESSION):
        return asked
    if not isinstance(first, tuple):
        return CLASSES
    if asked != AUTO:
        raise UserError(
            f"{name}: labels are numbers such as {', '.join(f'{n:g}' for n in first[:5])}: give "
            "loss='mse', 'l1' or 'huber' for a regression, 'multi_label' for any number of labels "
            "an image; classes are whole numbers or names"
        )
    is_set = len(first) > 1 and {n for label in labels for n in np.atleast_1d(label)} <= {0.0, 1.0}
    return MULTI_LABEL if is_set else REGRESSION


def _numbers(
    train: Source, read: Mapping[str, _Written], kind: str
) -> tuple[tuple[str, ...], dict[str, NDArray[np.float64]]]:
    """Names of the numbers, or of the labels, and those of every image, (N, K)."""
    found, problems = {}, []
    width = len(np.atleast_1d(read["train"].labels[0])) if read["train"].labels else 1
    for part, written in read.items():
        try:
            rows = np.array(written.labels, np.float64).reshape(len(written.labels), width)
        except (TypeError, ValueError):
            problems.append(f"{part}: labels are not {width} number{'s' * (width > 1)} an image")
            continue
        if not np.isfinite(rows).all():
            problems.append(f"{part}: labels hold NaN or infinite numbers")
        elif kind == MULTI_LABEL and not np.isin(rows, (0, 1)).all():
            problems.append(f"{part}: labels hold other numbers than 0 and 1")
        found[part] = rows
    if problems:
        raise UserError(problems)
    if train.classes is not None and len(train.classes) == width:
        return train.classes, found
    return ("target",) if width == 1 else tuple(f"target_{k}" for k in range(width)), found


def _classified(
    parts: Mapping[str, Source], read: Mapping[str, _Written]
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Names of the classes, and every image's number of its class."""
    train = parts["train"]
    seen = {part: set(written.labels) for part, written in read.items()}
    known = train.classes
    if known is None:
        # Numbers in their order, then names in theirs.
        order = sorted(seen["train"], key=lambda label: (isinstance(label, str), label))
        place: dict[Label, int] = {label: number for number, label in enumerate(order)}
        known = tuple(str(label) for label in order)
    else:
        place = {number: number for number in range(len(known))}
        place |= {name: number for number, name in enumerate(known)}
    by_name: dict[Label, int] = {name: number for number, name in enumerate(known)}
    # Names such as 7, 8, 9: whole numbers of another part are these, not places among them.
    are_numbers = all(name.isdigit() for name in known) and train.classes is not None
    problems, numbers = [], {}
    if len(known) < 2:
        problems.append(
            f"{train.name}: its labels have {len(known)} class{'' if len(known) == 1 else 'es'}: "
            "expected at least two"
        )
    for part, written in read.items():
        own = parts[part].classes
        table = place
        if part != "train" and own is not None:
            table = dict(by_name)
            table |= {n: by_name[name] for n, name in enumerate(own) if name in by_name}
        elif part != "train" and are_numbers:
            table = by_name
        lost = [label for label in seen[part] if label not in table and str(label) not in by_name]
        if lost:
            shown = ", ".join(map(str, sorted(lost, key=str)[:5]))
            problems.append(f"{part}: labels that the training images have not: {shown}")
            continue
        numbers[part] = np.array(
            [table.get(label, by_name.get(str(label), -1)) for label in written.labels], np.int64
        )
    if problems:
        raise UserError(problems)
    return known, numbers


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
        images: NDArray[np.uint8],
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
