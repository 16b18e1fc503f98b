"""From a listing to files of one shape: cut into chunks, each written by whoever gets it.

Chunks are made in the workers of an engine's pool. These are told everything, read their own
inputs, and write one file each, all at once, with a note of what they wrote beside it: a chunk
whose file and note are there and agree is not made again.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from sixfold.core.errors import UserError, printable, raise_problems
from sixfold.core.files import file_sha256, parse_json, write_atomically, write_json
from sixfold.data import shard_files
from sixfold.data.images import BadImageError, quiet_decoder
from sixfold.data.manifest import ShardEntry
from sixfold.data.records import Listing, Picture, Records
from sixfold.data.sources import Job

NOTES = ".prepare"  # Folder in the destination for the notes of finished chunks, until all are
MOST_CHUNK_IMAGES = 1024
CHUNK_BYTES = 2**26  # 64 MiB a file: large enough to be read at full speed, small enough to be lost
PROBED = 64  # Records of each part that are looked at first, for their size
MOST_EXAMPLES = 10  # Bad images that an error names
GRAY, COLOR = 1, 3  # Channels: pictures of both kinds may be mixed, and are then all made colour
Progress = Callable[[int, int], None]  # Called with images done, and images in all
T = TypeVar("T")


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
class ShardTask:
    """What a worker is told."""

    chunk: Records
    file: str
    folder: str  # where it belongs
    resize: int | None  # rows and columns wanted
    key: str  # names what the chunk is made from and how; a note with another key is out of date
    keyed: bool = False  # whether records have keys of their content, by which trainings order them

    @property
    def note(self) -> Path:
        """Where the chunk's note is."""
        return Path(self.folder) / NOTES / f"{self.file}.json"


@dataclass(frozen=True, kw_only=True)
class ShardNote:
    """What became of a chunk; as plain data it goes into a file and from worker to launcher."""

    key: str
    records: int  # how many records the chunk had, bad ones too
    entry: ShardEntry | None = None  # the file, if one was written
    # (C, H, W, images) of every shape met; a file is written only if there is one
    shapes: tuple[tuple[int, int, int, int], ...]
    labels: tuple[tuple[int, int], ...] = ()  # (label, images) of every label
    dtype: Literal["uint8", "float32"] = "uint8"  # of the pixels
    bad: tuple[tuple[str, str], ...]  # (name, reason) of images that cannot be used


@cache
def _notes() -> TypeAdapter[ShardNote]:
    return TypeAdapter(ShardNote)


Notes = Mapping[str, Sequence[ShardNote]]  # Notes of all chunks of each part


def make_shards(
    job: Job, listing: Listing, folder: Path, *, pool: Pool, progress: Progress
) -> Notes:
    """Write the files, all of one shape; what became of each chunk."""
    sizes = _probe(listing) if job.resize is None else [(job.resize, job.resize)]
    tasks = _tasks(job, listing, folder, sizes[0] if sizes else (256, 256))
    everything = [task for own in tasks.values() for task in own]
    # Of sizes that differ only the headers are read: no need to decode a set that cannot be used.
    function = survey_shard if len(sizes) > 1 else write_shard
    done = _run(pool, function, everything, progress)
    channels = {shape[0] for note in done.values() for shape in note.shapes}
    problems = _shape_problems(job, done.values(), channels)
    bad = all_bad(done.values())
    if bad and not channels:
        problems += [f"{printable(name)}: {reason}" for name, reason in bad[:MOST_EXAMPLES]]
    elif bad and job.on_bad == "fail":
        problems += bad_images(bad).problems
    if not problems and job.table.labelled:
        problems = _lost_problems(job, listing, [done[task.file] for task in tasks["train"]])
    raise_problems(problems)
    if channels == {GRAY, COLOR}:
        gray = [t for t in everything if any(s[0] == GRAY for s in done[t.file].shapes)]
        done.update(_run(pool, widen_shard, gray, lambda *_: None))
    return {part: [done[task.file] for task in own] for part, own in tasks.items()}


def _probe(listing: Listing) -> list[tuple[int, int]]:
    """Sizes (rows, columns) of the first pictures, the first picture's first."""
    sizes: dict[tuple[int, int], None] = {}
    with quiet_decoder():
        for records in listing.parts.values():
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
    by_content, image_bytes = job.by_content, size[0] * size[1] * COLOR
    step = max(min(CHUNK_BYTES // image_bytes, MOST_CHUNK_IMAGES), 1)

    def task(part: str, records: Records, start: int) -> ShardTask:
        chunk = records.take(np.arange(start, min(start + step, len(records.labels))))
        # Should the listing ever differ under the same key, no older note is believed.
        listed = "\0".join([job.key, *chunk.names, *map(str, chunk.labels.tolist())])
        for more in (chunk.targets, chunk.weights):
            listed += "" if more is None else "\0" + hashlib.sha256(more.tobytes()).hexdigest()
        return ShardTask(
            chunk=chunk,
            file=f"{part}-{start // step:05d}.arrow",
            folder=str(folder),
            resize=job.resize,
            key=hashlib.sha256(listed.encode("utf-8", "backslashreplace")).hexdigest(),
            keyed=by_content,
        )

    return {
        part: [task(part, records, start) for start in range(0, len(records.labels), step)]
        for part, records in listing.parts.items()
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
    return {t.file: _notes().validate_python(note) for t, note in zip(tasks, notes, strict=True)}


def _shape_problems(job: Job, notes: Iterable[ShardNote], channels: set[int]) -> list[str]:
    counts: Counter[tuple[int, int]] = Counter()
    for note in notes:
        for _, rows, columns, count in note.shapes:
            counts[rows, columns] += count
    problems = []
    if not counts:
        problems.append(f"{job.path}: holds no image that can be read, for reasons such as these")
    if len(counts) > 1:
        common = counts.most_common(10)
        listed = [f"{count} of {columns}x{rows}" for (rows, columns), count in common]
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


def bad_images(bad: Sequence[tuple[str, str]]) -> UserError:
    """The error for images that cannot be used: the first ten, and how many there are."""
    lines = [f"{printable(name)}: {reason}" for name, reason in bad[:MOST_EXAMPLES]]
    first = (
        f"the first {MOST_EXAMPLES} are listed" if len(bad) > MOST_EXAMPLES else "all are listed"
    )
    count = f"{len(bad)} image{'s' if len(bad) > 1 else ''} cannot be read"
    return UserError(
        [*lines, f"{count} ({first}): repair or remove them, or leave them out by --on-error skip"]
    )


def refuse_unlabelled(name: str, count: int, on_bad: str) -> None:
    """Refuse rows without a label, unless they may be left out."""
    if count and on_bad == "fail":
        raise UserError(
            f"{name}: {count} row{'s have' if count > 1 else ' has'} no label (null): give "
            "them one, or leave them out by --on-error skip; `sixfold predict` scores them"
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


def _look(
    task: ShardTask, read: Callable[[Picture], T]
) -> tuple[dict[int, T], tuple[tuple[str, str], ...]]:
    """What is read of each record's picture, by number; (name, reason) of those that are bad."""
    found: dict[int, T] = {}
    bad: dict[tuple[str, str], None] = {}  # one line for a picture that many records are cut from
    names = task.chunk.names
    with quiet_decoder():
        for index, picture in enumerate(task.chunk.pictures()):
            try:
                found[index] = read(picture)
            except BadImageError as error:
                bad[error.name or names[index], error.reason] = None
    return found, tuple(bad)


def survey_shard(task: ShardTask) -> dict[str, Any]:
    """Look only at the headers of a chunk's pictures; a note of their sizes, channels not told."""
    found, bad = _look(task, lambda picture: picture.size())
    sizes = sorted(Counter(found.values()).items())
    shapes = tuple((GRAY, *size, count) for size, count in sizes)
    return asdict(ShardNote(key=task.key, records=len(task.chunk.labels), shapes=shapes, bad=bad))


def write_shard(task: ShardTask) -> dict[str, Any]:
    """Make a chunk's file, unless it is there already; its note, as plain data."""
    return asdict(_finished(task) or _make(task))


def widen_shard(task: ShardTask) -> dict[str, Any]:
    """Make a grey shard file colour, since others of its set are."""
    note = _finished(task)
    assert note is not None, "the file was there when the set's channels were counted"
    assert note.entry is not None, "an empty chunk has no channels"
    path = Path(task.folder) / note.entry.file
    _, rows, columns, _ = note.shapes[0]
    old = shard_files.open_shard(path, (GRAY, rows, columns))
    images = np.repeat(old.pixels, COLOR, axis=1)
    names, groups = old.names.to_pylist(), old.groups.to_pylist()
    own = old.targets, old.weights
    keys = None if old.keys is None else old.keys.to_pylist()
    return asdict(_save(task, note, images, old.labels.tolist(), names, groups, *own, keys))


def _finished(task: ShardTask) -> ShardNote | None:
    """The note of an earlier attempt, if it and the file it tells of can still be trusted."""
    try:
        note = _notes().validate_python(parse_json(task.note.read_bytes()))
        sound = note.key == task.key and (
            not note.entry or file_sha256(Path(task.folder) / note.entry.file) == note.entry.sha256
        )
        return note if sound else None
    except (OSError, ValueError):
        return None


def _make(task: ShardTask) -> ShardNote:
    names, labels = task.chunk.names, task.chunk.labels.tolist()
    groups = task.chunk.groups or [""] * len(names)
    found, bad = _look(task, lambda picture: picture.pixels(task.resize))
    images = list(found.values())
    if any(image.shape[0] == COLOR for image in images):
        images = [np.repeat(i, COLOR, axis=0) if len(i) == GRAY else i for i in images]
    shapes = Counter(image.shape for image in images)
    note = ShardNote(
        key=task.key,
        records=len(labels),
        shapes=tuple((*shape, count) for shape, count in sorted(shapes.items())),
        labels=tuple(sorted(Counter(labels[index] for index in found).items())),
        dtype="uint8" if all(image.dtype == np.uint8 for image in images) else "float32",
        bad=bad,
    )
    if len(shapes) != 1:
        write_json(task.note, asdict(note))
        return note
    kept_names, kept_groups = ([column[index] for index in found] for column in (names, groups))
    kept = [labels[index] for index in found]
    places = list(found)
    targets, weights = (
        None if a is None else a[places] for a in (task.chunk.targets, task.chunk.weights)
    )
    keys = content_keys(images, kept, targets, weights) if task.keyed else None
    return _save(
        task, note, np.stack(images), kept, kept_names, kept_groups, targets, weights, keys
    )


def content_keys(
    images: Sequence[NDArray[Any]],
    labels: Sequence[int],
    targets: NDArray[np.float64] | None,
    weights: NDArray[np.float64] | None,
) -> list[str]:
    """What decides the places of records whose own order means nothing: their content.

    A grey image has the key of the same image in colour, which it may become.
    """
    keys = []
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        pixels = np.repeat(image, COLOR, axis=0) if len(image) == GRAY else image
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((pixels.shape, int(label))).encode())
        digest.update(np.ascontiguousarray(pixels).data)
        for more in (targets, weights):
            if more is not None:
                digest.update(np.ascontiguousarray(more[place], np.float64).tobytes())
        keys.append(digest.hexdigest())
    return keys


def _save(
    task: ShardTask,
    note: ShardNote,
    images: NDArray[Any],
    labels: Sequence[int],
    names: Sequence[str],
    groups: Sequence[str],
    targets: NDArray[np.float64] | None,
    weights: NDArray[np.float64] | None,
    keys: Sequence[str] | None,
) -> ShardNote:
    """Write the file, and then the note that vouches for it."""
    data = shard_files.encode(images, labels, names, groups, targets, weights, keys)
    digest = hashlib.sha256(data).hexdigest()
    entry = ShardEntry(file=task.file, count=len(images), bytes=len(data), sha256=digest)
    channels, rows, columns = images.shape[1:]
    saved = replace(note, entry=entry, shapes=((channels, rows, columns, len(images)),))
    write_atomically(Path(task.folder) / task.file, data)
    write_json(task.note, asdict(saved))
    return saved
