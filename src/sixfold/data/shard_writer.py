"""One unit of preparation: a chunk of records becomes one shard file.

These functions run in the workers of an engine's pool. They are told everything, read their own
inputs, and write one file each, all at once, with a note of what they wrote beside it: a chunk
whose file and note are there and agree is not made again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.files import parse_json, write_atomically, write_json
from sixfold.data import shard_files
from sixfold.data.images import BadImageError, Pixels, quiet_decoder
from sixfold.data.manifest import ShardEntry, file_sha256
from sixfold.data.records import Records

GRAY, COLOR = 1, 3
"""Channels: pictures of both kinds may be mixed, and are then all made colour."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What a worker is told."""

    chunk: Records
    file: str
    folder: str  # where it belongs
    notes: str  # folder of the notes
    resize: int | None  # rows and columns wanted
    key: str  # names what the chunk is made from and how; a note with another key is out of date


@dataclass(frozen=True, kw_only=True)
class ShardNote:
    """What became of a chunk."""

    key: str
    records: int  # how many records the chunk had, bad ones too
    entry: ShardEntry | None  # the file, if one was written
    # (C, H, W, images) of every shape met; a file is written only if there is one
    shapes: tuple[tuple[int, int, int, int], ...]
    labels: tuple[tuple[int, int], ...]  # (label, images) of every label
    bad: tuple[tuple[str, str], ...]  # (name, reason) of images that cannot be used

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "entry": vars(self.entry) if self.entry else None}

    @staticmethod
    def from_plain(value: Any) -> ShardNote:
        """From plain data."""
        entry = value["entry"]
        return ShardNote(
            key=value["key"],
            records=value["records"],
            entry=ShardEntry(**entry) if entry else None,
            shapes=tuple((c, h, w, n) for c, h, w, n in value["shapes"]),
            labels=tuple((label, n) for label, n in value["labels"]),
            bad=tuple((name, reason) for name, reason in value["bad"]),
        )


def write_shard(task: ShardTask) -> dict[str, Any]:
    """Make a chunk's file, unless it is there already; its note, as plain data."""
    note = _finished(task) or _make(task)
    return note.plain()


def survey_shard(task: ShardTask) -> dict[str, Any]:
    """Look only at the headers of a chunk's pictures; a note of their sizes, channels not told."""
    sizes: Counter[tuple[int, int]] = Counter()
    bad = []
    with quiet_decoder():
        for name, picture in zip(task.chunk.names, task.chunk.pictures(), strict=True):
            try:
                sizes[picture.size()] += 1
            except BadImageError as error:
                bad.append((error.name or name, error.reason))
    return ShardNote(
        key=task.key,
        records=len(task.chunk.labels),
        entry=None,
        shapes=tuple((GRAY, *size, count) for size, count in sorted(sizes.items())),
        labels=(),
        bad=tuple(dict.fromkeys(bad)),
    ).plain()


def widen_shard(task: ShardTask) -> dict[str, Any]:
    """Make a grey shard file colour, since others of its set are."""
    note = _finished(task)
    assert note is not None, "the file was there when the set's channels were counted"
    assert note.entry is not None, "an empty chunk has no channels"
    path = Path(task.folder) / note.entry.file
    _, rows, columns, _ = note.shapes[0]
    old = shard_files.open_shard(path, (GRAY, rows, columns))
    images = np.repeat(old.pixels, COLOR, axis=1)
    data = shard_files.encode(
        images, old.labels.tolist(), old.names.to_pylist(), old.groups.to_pylist()
    )
    return _save(task, note, data, images).plain()


def note_path(task: ShardTask) -> Path:
    """Where a chunk's note is."""
    return Path(task.notes) / f"{task.file}.json"


def _finished(task: ShardTask) -> ShardNote | None:
    """The note of an earlier attempt, if it and the file it tells of can still be trusted."""
    try:
        note = ShardNote.from_plain(parse_json(note_path(task).read_bytes()))
        if note.key != task.key:
            return None
        if note.entry and file_sha256(Path(task.folder) / note.entry.file) != note.entry.sha256:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note


def _make(task: ShardTask) -> ShardNote:
    images: list[Pixels] = []
    kept: list[int] = []
    bad: list[tuple[str, str]] = []
    names, labels = task.chunk.names, task.chunk.labels.tolist()
    groups = task.chunk.groups or [""] * len(names)
    with quiet_decoder():
        for index, picture in enumerate(task.chunk.pictures()):
            try:
                images.append(picture.pixels(task.resize))
                kept.append(index)
            except BadImageError as error:
                bad.append((error.name or names[index], error.reason))
    if any(image.shape[0] == COLOR for image in images):
        images = [np.repeat(i, COLOR, axis=0) if len(i) == GRAY else i for i in images]
    shapes = Counter(image.shape for image in images)
    note = ShardNote(
        key=task.key,
        records=len(labels),
        entry=None,
        shapes=tuple((*shape, count) for shape, count in sorted(shapes.items())),
        labels=tuple(sorted(Counter(labels[index] for index in kept).items())),
        # One line for a picture that many records were to be cut from.
        bad=tuple(dict.fromkeys(bad)),
    )
    if len(shapes) != 1:
        write_json(note_path(task), note.plain())
        return note
    stack = np.stack(images)
    data = shard_files.encode(
        stack,
        [labels[index] for index in kept],
        [names[index] for index in kept],
        [groups[index] for index in kept],
    )
    return _save(task, note, data, stack)


def _save(task: ShardTask, note: ShardNote, data: bytes, images: NDArray[np.uint8]) -> ShardNote:
    """Write the file, and then the note that vouches for it."""
    entry = ShardEntry(
        file=task.file,
        count=len(images),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    channels, rows, columns = images.shape[1:]
    saved = ShardNote(
        **{**vars(note), "entry": entry, "shapes": ((channels, rows, columns, len(images)),)}
    )
    write_atomically(Path(task.folder) / task.file, data)
    write_json(note_path(task), saved.plain())
    return saved
