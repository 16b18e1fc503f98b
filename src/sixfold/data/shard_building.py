"""Cutting a listing into chunks, having them written, and making them agree with each other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sixfold.core.errors import UserError
from sixfold.data.images import BadImageError, quiet_decoder
from sixfold.data.job import Job
from sixfold.data.manifest import PARTS
from sixfold.data.records import Listing, Records
from sixfold.data.shard_writer import (
    COLOR,
    GRAY,
    ShardNote,
    ShardTask,
    survey_shard,
    widen_shard,
    write_shard,
)

NOTES = ".prepare"
"""Folder in the destination for the notes of finished chunks, until all are."""

MOST_CHUNK_IMAGES = 1024
CHUNK_BYTES = 2**26
"""64 MiB a file: large enough to be read at full speed, small enough to be lost."""

PROBED = 64
"""Records of each part that are looked at first, for their size."""


class Pool(Protocol):
    """How chunks are given to workers: an engine's `pool`, or a plain loop."""

    def __call__(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        on_done: Callable[[int, Any], None],
        /,
    ) -> Sequence[Any]:
        """Map `function` over `items`; call `on_done` with (index, result) as results arrive."""
        ...


Progress = Callable[[int, int], None]
"""Called with images done, and images in all."""


def in_turn(
    function: Callable[[Any], Any], items: Sequence[Any], on_done: Callable[[int, Any], None]
) -> list[Any]:
    """A pool of one worker: this thread."""
    results = []
    for index, item in enumerate(items):
        results.append(function(item))
        on_done(index, results[-1])
    return results


Notes = Mapping[str, Sequence[ShardNote]]
"""Notes of all chunks of each part."""


def make_shards(
    job: Job, listing: Listing, folder: Path, *, pool: Pool, progress: Progress
) -> Notes:
    """Write the files, all of one shape; what became of each chunk."""
    sizes = _probe(listing) if job.resize is None else [(job.resize, job.resize)]
    tasks = _tasks(job, listing, folder, sizes[0] if sizes else (256, 256))
    everything = [task for part in PARTS for task in tasks[part]]
    # Of sizes that differ only the headers are read: no need to decode a set that cannot be used.
    function = survey_shard if len(sizes) > 1 else write_shard
    done = _run(pool, function, everything, progress)
    channels = {shape[0] for note in done.values() for shape in note.shapes}
    problems = _shape_problems(job, done.values(), channels) + _bad_problems(job, done.values())
    if not problems and job.table.labelled:
        problems = _lost_problems(job, listing, [done[task.file] for task in tasks["train"]])
    if problems:
        raise UserError(problems)
    if channels == {GRAY, COLOR}:
        gray = [t for t in everything if any(s[0] == GRAY for s in done[t.file].shapes)]
        done.update(_run(pool, widen_shard, gray, lambda *_: None))
    return {part: [done[task.file] for task in tasks[part]] for part in PARTS}


def _probe(listing: Listing) -> list[tuple[int, int]]:
    """Sizes (rows, columns) of the first pictures, the first picture's first."""
    sizes: dict[tuple[int, int], None] = {}
    with quiet_decoder():
        for part in PARTS:
            records = listing.parts[part]
            first = np.arange(min(PROBED, len(records.labels)))
            for picture in records.take(first).pictures():
                try:
                    sizes[picture.size()] = None
                except BadImageError:
                    continue
    return list(sizes)


def _tasks(
    job: Job, listing: Listing, folder: Path, size: tuple[int, int]
) -> dict[str, list[ShardTask]]:
    image_bytes = size[0] * size[1] * COLOR
    step = max(min(CHUNK_BYTES // image_bytes, MOST_CHUNK_IMAGES), 1)

    def task(part: str, records: Records, start: int) -> ShardTask:
        chunk = records.take(np.arange(start, min(start + step, len(records.labels))))
        # Should the listing ever differ under the same key, no older note is believed.
        listed = "\0".join([job.key, *chunk.names, *map(str, chunk.labels.tolist())])
        return ShardTask(
            chunk=chunk,
            file=f"{part}-{start // step:05d}.arrow",
            folder=str(folder),
            notes=str(folder / NOTES),
            resize=job.resize,
            key=hashlib.sha256(listed.encode("utf-8", "backslashreplace")).hexdigest(),
        )

    return {
        part: [task(part, records, start) for start in range(0, len(records.labels), step)]
        for part, records in ((part, listing.parts[part]) for part in PARTS)
    }


def _run(
    pool: Pool,
    function: Callable[[ShardTask], dict[str, Any]],
    tasks: Sequence[ShardTask],
    progress: Progress,
) -> dict[str, ShardNote]:
    """Run a function over tasks; the notes by the names of the files."""
    total = sum(len(task.chunk.labels) for task in tasks)
    done = 0

    def on_done(_index: int, note: dict[str, Any]) -> None:
        nonlocal done
        done += note["records"]
        progress(done, total)

    progress(0, total)
    notes = pool(function, tasks, on_done)
    return {t.file: ShardNote.from_plain(note) for t, note in zip(tasks, notes, strict=True)}


def _shape_problems(job: Job, notes: Iterable[ShardNote], channels: set[int]) -> list[str]:
    """What keeps the images from having one shape."""
    counts: Counter[tuple[int, int]] = Counter()
    for note in notes:
        for _, rows, columns, count in note.shapes:
            counts[rows, columns] += count
    problems = []
    if not counts:
        problems.append(f"{job.path}: holds no image that can be read")
    if len(counts) > 1:
        listed = [
            f"{count} of {columns}x{rows}" for (rows, columns), count in counts.most_common(10)
        ]
        more = f" and {len(counts) - 10} other sizes" if len(counts) > 10 else ""
        problems.append(
            f"{job.path}: images of {len(counts)} sizes (width x height): {', '.join(listed)}"
            f"{more}: give --resize N to bring all to N x N pixels"
        )
    if len(channels) > 1 and channels != {GRAY, COLOR}:
        problems.append(
            f"{job.path}: images of {', '.join(map(str, sorted(channels)))} channels: expected "
            "the same for all"
        )
    return problems


def all_bad(notes: Iterable[ShardNote]) -> tuple[tuple[str, str], ...]:
    """(name, reason) of every image that could not be read."""
    return tuple(dict.fromkeys(item for note in notes for item in note.bad))


def _bad_problems(job: Job, notes: Iterable[ShardNote]) -> list[str]:
    bad = all_bad(notes)
    return list(bad_images(bad).problems) if bad and job.on_bad == "fail" else []


def bad_images(bad: Sequence[tuple[str, str]]) -> UserError:
    """The error for images that cannot be used: the first ten, and how many there are."""
    lines = [f"{name}: {reason}" for name, reason in bad[:10]]
    first = "the first 10 are listed" if len(bad) > 10 else "all are listed"
    count = f"{len(bad)} image{'s' if len(bad) > 1 else ''} cannot be read"
    return UserError(
        [*lines, f"{count} ({first}): repair or remove them, or leave them out by --on-error skip"]
    )


def _lost_problems(job: Job, listing: Listing, notes: Iterable[ShardNote]) -> list[str]:
    """Classes all of whose training images turned out to be bad."""
    counts: Counter[int] = Counter()
    for note in notes:
        counts.update(dict(note.labels))
    lost = [
        name
        for label, name in enumerate(listing.classes)
        if not counts[label] and (listing.parts["train"].labels == label).any()
    ]
    if not lost:
        return []
    return [
        f"{job.path}: classes with no images left in the train part once the unreadable ones are "
        f"left out: {', '.join(lost[:20])}: repair some of them"
    ]
