"""Turning any data set into tensor shards, in parallel, resumably, with the same bytes every time.

The records are listed in a fixed order and cut into chunks whose size follows from the image's;
each chunk becomes one file, whoever makes it. Chunks that an earlier, interrupted attempt has
finished are recognised by their notes in ``DST/.prepare`` and checked, not made again. The
manifest is written last: a folder without one is not finished.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from sixfold.data import sources
from sixfold.data.images import BadImageError, quiet_decoder
from sixfold.data.locks import locked
from sixfold.data.manifest import (
    NAME,
    PARTS,
    Manifest,
    ShardEntry,
    checksum_problems,
    load_manifest,
)
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
from sixfold.data.spec import Spec, parse_spec
from sixfold.errors import UserError
from sixfold.files import write_json

NOTES = ".prepare"
LAYOUT = 1
"""Raised whenever the same source and settings would give other bytes."""

MOST_CHUNK_IMAGES = 1024
CHUNK_BYTES = 2**26
"""64 MiB a file: large enough to be read at full speed, small enough to be lost."""

PROBED = 64
"""Records of each part that are looked at first, for their size."""

ON_BAD = ("fail", "skip")
CELL_SIZE = 256
MOST_SIDE = 4096


class Pool(Protocol):
    """How chunks are given to workers: an engine's `pool`, or a plain loop."""

    def __call__(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        on_done: Callable[[int, Any], None],
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


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be prepared, and how.

    Attributes:
        spec: the source.
        path: where the source was found.
        fingerprint: of what is there.
        resize: rows and columns, if not the images' own.
        on_bad: "fail" or "skip".
    """

    spec: Spec
    path: str
    fingerprint: str
    resize: int | None
    on_bad: str

    @property
    def key(self) -> str:
        """Names the shards' bytes: another key means other shards."""
        parts = [LAYOUT, self.spec.kind, self.path, self.fingerprint, self.resize]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def setting_problems(*, resize: int | None, on_bad: str) -> list[str]:
    """What is wrong with the settings; empty if nothing."""
    problems = []
    if resize is not None and not 0 < resize <= MOST_SIDE:
        problems.append(f"--resize {resize}: expected 1 to {MOST_SIDE} pixels")
    if on_bad not in ON_BAD:
        problems.append(f"--on-bad {on_bad!r}: expected {' or '.join(ON_BAD)}")
    return problems


def plan(source: str, *, resize: int | None, on_bad: str) -> Job:
    """Find the source, and check the settings.

    Args:
        source: data specification.
        resize: rows and columns, if not the images' own (cells: 256).
        on_bad: "fail" or "skip".

    Raises:
        UserError: with every problem.
    """
    problems = setting_problems(resize=resize, on_bad=on_bad)
    try:
        spec = parse_spec(source)
        path = sources.locate(spec)
        fingerprint = sources.source_fingerprint(spec, path)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    if spec.kind == "cells" and resize is None:
        resize = CELL_SIZE
    return Job(spec=spec, path=path, fingerprint=fingerprint, resize=resize, on_bad=on_bad)


def prepare(
    source: str,
    destination: str | Path,
    *,
    resize: int | None = None,
    on_bad: str = "fail",
    pool: Pool | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Make tensor shards of a data set.

    A finished destination with the same source and settings is checked and left alone; an
    unfinished one is gone on with. The shards do not depend on the pool.

    Args:
        source: data specification, such as ``folder:/data/pets``.
        destination: folder for the shards; made if absent. The pool's workers must reach it.
        resize: rows and columns, if not the images' own.
        on_bad: whether images that cannot be read stop the preparation or are left out.
        pool: gives chunks to workers; they are made one after the other if absent.
        workers: threads for checking sums.
        progress: told how many images are done.

    Returns:
        The manifest of the finished shards.

    Raises:
        UserError: with everything that is wrong with the source, the settings or the destination.
    """
    folder = _destination(destination)
    job = plan(source, resize=resize, on_bad=on_bad)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / NOTES, wait=False):
        return carry_out(
            job, folder, pool=pool or in_turn, workers=workers, progress=progress or _silent
        )


def _silent(_done: int, _total: int) -> None:
    """Progress nobody asked for."""


def _destination(destination: str | Path) -> Path:
    text = str(destination)
    if "://" in text and not text.startswith("file://"):
        raise UserError(
            f"{text}: shards are mapped into memory, so they must lie on a disk that the workers "
            "mount: give a folder, and copy it to other storage afterwards"
        )
    folder = Path(text.removeprefix("file://")).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder for the shards")
    return folder


def carry_out(job: Job, folder: Path, *, pool: Pool, workers: int, progress: Progress) -> Manifest:
    """Prepare a job in a folder that this process has to itself. See `prepare`."""
    if (folder / NAME).exists():
        return _existing(job, folder, workers)
    notes = folder / NOTES
    others = [item for item in folder.iterdir() if item != notes and item.suffix != ".arrow"]
    if others or (not notes.exists() and any(folder.iterdir())):
        raise UserError(
            f"{folder}: holds other files ({', '.join(sorted(i.name for i in others)[:3])}): give "
            "a new or empty folder for the shards"
        )
    if _begun_with(notes) != job.key:
        _clear(folder)
    spool = notes / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    write_json(notes / "job.json", {"key": job.key})
    try:
        listing = sources.list_records(job.spec, job.path, spool)
        made = _make_shards(job, listing, folder, pool, progress)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    manifest = _finish(job, listing, made)
    manifest.save(folder)
    shutil.rmtree(notes, ignore_errors=True)
    return manifest


def _existing(job: Job, folder: Path, workers: int) -> Manifest:
    """A finished destination, if it is what would be made."""
    manifest = load_manifest(folder)
    if manifest.source.get("key") != job.key:
        raise UserError(
            f"{folder}: holds shards of another source, or made with other settings "
            f"({manifest.source.get('spec')}, resize {manifest.settings.get('resize')}): give "
            "another folder, or delete this one"
        )
    problems = checksum_problems(folder, manifest, workers)
    if problems:
        raise UserError(problems)
    if job.on_bad == "fail" and manifest.bad:
        raise bad_images(manifest.bad)
    shutil.rmtree(folder / NOTES, ignore_errors=True)
    return manifest


def _begun_with(notes: Path) -> str | None:
    """Key of the job that left these notes."""
    try:
        key: str | None = json.loads((notes / "job.json").read_bytes())["key"]
        return key
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _clear(folder: Path) -> None:
    """Remove what an unfinished preparation of something else has left."""
    for file in folder.glob("*.arrow"):
        file.unlink()
    for note in (folder / NOTES).glob("*.json"):
        note.unlink()


@dataclass(frozen=True)
class _Made:
    """Notes of all chunks of each part."""

    notes: dict[str, list[ShardNote]]

    @property
    def all(self) -> list[ShardNote]:
        return [note for part in PARTS for note in self.notes[part]]


def _make_shards(job: Job, listing: Listing, folder: Path, pool: Pool, progress: Progress) -> _Made:
    """Write the files, and make all of them agree in shape."""
    sizes = _probe(listing) if job.resize is None else [(job.resize, job.resize)]
    tasks = _tasks(job, listing, folder, sizes[0] if sizes else (256, 256))
    everything = [task for part in PARTS for task in tasks[part]]
    if len(sizes) > 1:
        # Do not decode a whole set only to find that it cannot be used.
        raise _mixed(_run(pool, survey_shard, everything, progress).values(), job)
    done = _run(pool, write_shard, everything, progress)
    shapes = {shape[:3] for note in done.values() for shape in note.shapes}
    if len({(rows, columns) for _, rows, columns in shapes}) > 1:
        raise _mixed(done.values(), job)
    channels = {shape[0] for shape in shapes}
    if channels == {GRAY, COLOR}:
        gray = [t for t in everything if any(s[0] == GRAY for s in done[t.file].shapes)]
        done.update(_run(pool, widen_shard, gray, _silent))
    elif len(channels) > 1:
        raise UserError(
            f"{job.path}: images of {', '.join(map(str, sorted(channels)))} channels: expected "
            "the same for all"
        )
    return _Made({part: [done[task.file] for task in tasks[part]] for part in PARTS})


def _probe(listing: Listing) -> list[tuple[int, int]]:
    """Sizes (rows, columns) of the first pictures, the first picture's first."""
    sizes: dict[tuple[int, int], None] = {}
    with quiet_decoder():
        for part in PARTS:
            records = listing.parts[part]
            for picture in records.chunk(0, min(PROBED, len(records.labels))).pictures():
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

    def cut(part: str, records: Records) -> list[ShardTask]:
        return [
            ShardTask(
                chunk=records.chunk(start, min(start + step, len(records.labels))),
                file=f"{part}-{start // step:05d}.arrow",
                folder=str(folder),
                notes=str(folder / NOTES),
                resize=job.resize,
                key=job.key,
            )
            for start in range(0, len(records.labels), step)
        ]

    return {part: cut(part, listing.parts[part]) for part in PARTS}


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


def _mixed(notes: Iterable[ShardNote], job: Job) -> UserError:
    counts: Counter[tuple[int, int]] = Counter()
    for note in notes:
        for _, rows, columns, count in note.shapes:
            counts[rows, columns] += count
    listed = [f"{count} of {columns}x{rows}" for (rows, columns), count in counts.most_common(10)]
    more = f" and {len(counts) - 10} other sizes" if len(counts) > 10 else ""
    return UserError(
        f"{job.path}: images of {len(counts)} sizes (width x height): {', '.join(listed)}{more}: "
        "give --resize N to bring all to N x N pixels"
    )


def bad_images(bad: Sequence[tuple[str, str]]) -> UserError:
    """The error for images that cannot be used: the first ten, and how many there are."""
    lines = [f"{name}: {reason}" for name, reason in bad[:10]]
    first = "the first 10 are listed" if len(bad) > 10 else "all are listed"
    count = f"{len(bad)} image{'s' if len(bad) > 1 else ''} cannot be read"
    return UserError(
        [*lines, f"{count} ({first}): repair or remove them, or leave them out by --on-bad skip"]
    )


def _finish(job: Job, listing: Listing, made: _Made) -> Manifest:
    """The manifest, if what was made is a usable set."""
    bad = tuple(dict.fromkeys(item for note in made.all for item in note.bad))
    if bad and job.on_bad == "fail":
        raise bad_images(bad)
    shapes = [shape for note in made.all for shape in note.shapes]
    problems = _classes_lost(job, listing, made.notes["train"])
    if problems or not shapes:
        raise UserError(problems or [f"{job.path}: holds no images"])
    channels, rows, columns, _ = shapes[0]
    parts: dict[str, tuple[ShardEntry, ...]] = {
        part: tuple(note.entry for note in made.notes[part] if note.entry) for part in PARTS
    }
    names = ("sixfold", "pillow", "numpy", "pyarrow")
    return Manifest(
        name=listing.name,
        classes=tuple(_printable(name) for name in listing.classes),
        shape=(channels, rows, columns),
        parts=parts,
        bad=tuple((_printable(name), reason) for name, reason in bad),
        left_out=tuple((_printable(name), reason) for name, reason in listing.left_out),
        source={
            "spec": str(job.spec),
            "path": job.path,
            "split": listing.split,
            "fingerprint": job.fingerprint,
            "key": job.key,
        },
        settings={"resize": job.resize, "on_bad": job.on_bad},
        versions={name: metadata.version(name) for name in names},
    )


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _classes_lost(job: Job, listing: Listing, notes: Sequence[ShardNote]) -> list[str]:
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
