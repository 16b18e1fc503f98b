"""Turning any data set into tensor shards, in parallel, resumably, with the same bytes every time.

The records are listed in a fixed order and cut into chunks whose size follows from the image's;
each chunk becomes one file, whoever makes it. Chunks that an earlier, interrupted attempt has
finished are recognised by their notes in ``DST/.prepare`` and checked, not made again. The
manifest is written last: a folder without one is not finished.
"""

import re
import shutil
from importlib import metadata
from pathlib import Path

from sixfold.core.errors import UserError, printable, raise_problems
from sixfold.core.files import make_folder, parse_json, space_explained, write_json
from sixfold.core.locks import locked
from sixfold.data.manifest import NAME, Manifest, checksum_problems, load_manifest
from sixfold.data.records import Listing
from sixfold.data.shard_building import (
    NOTES,
    Notes,
    Pool,
    Progress,
    all_bad,
    bad_images,
    in_turn,
    make_shards,
    refuse_unlabelled,
)
from sixfold.data.sources import Job, plan
from sixfold.data.spec import TableOptions

_OWN_FILES = re.compile(
    r"\.?(train|test|validation)-\d{5,}\.arrow(\.\d+\.tmp)?|\.manifest\.json\.\d+\.tmp"
)


def prepare(
    source: str,
    destination: str | Path,
    *,
    resize: int | None = None,
    on_bad: str = "fail",
    table: TableOptions | None = None,
    pool: Pool | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Make tensor shards of a data set, in a folder that the pool's workers must reach.

    A finished destination with the same source and settings is checked and left alone; an
    unfinished one is resumed. The shards do not depend on the pool.
    """
    folder = _destination(destination)
    if source.startswith("hf:"):
        raise UserError(
            f"{source}: is prepared by whatever reads it, in the cache; `sixfold prepare` takes "
            "data in files"
        )
    job = plan(source, resize=resize, on_bad=on_bad, table=table)
    _check_free(folder)
    make_folder(folder, "DST")
    with space_explained(folder), locked(folder / NOTES, wait=False):
        progress = progress or (lambda *_: None)
        return carry_out(job, folder, pool=pool or in_turn, workers=workers, progress=progress)


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
    _check_free(folder)
    notes = folder / NOTES
    if _begun_with(notes) != job.key:
        _clear(folder)
    spool = notes / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    write_json(notes / "job.json", {"key": job.key})
    try:
        listing = job.list_records(spool)
        refuse_unlabelled(job.path, listing.unlabelled, job.on_bad)
        made = make_shards(job, listing, folder, pool=pool, progress=progress)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    for leftover in folder.glob(".*.tmp"):  # of workers that were killed
        leftover.unlink()
    manifest = _describe(job, listing, made)
    manifest.save(folder)
    shutil.rmtree(notes, ignore_errors=True)
    return manifest


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but shards, or files that this program did not write."""
    if not folder.exists() or (folder / NAME).exists():
        return
    begun = _begun_with(folder / NOTES) is not None
    others = [
        item.name
        for item in folder.iterdir()
        if item.name != NOTES and not (begun and _OWN_FILES.fullmatch(item.name))
    ]
    if others:
        raise UserError(
            f"{folder}: holds other files ({', '.join(sorted(others)[:3])}): give a new or empty "
            "folder for the shards"
        )


def _existing(job: Job, folder: Path, workers: int) -> Manifest:
    """A finished destination, if it is what would be made."""
    shutil.rmtree(folder / NOTES, ignore_errors=True)
    manifest = load_manifest(folder)
    if manifest.source.get("key") != job.key:
        raise UserError(
            f"{folder}: holds shards of another source, or made with other settings "
            f"({manifest.source.get('spec')}, resize {manifest.settings.get('resize')}): give "
            "another folder, or delete this one"
        )
    raise_problems(checksum_problems(folder, manifest, workers))
    refuse_bad(job, manifest)
    return manifest


def refuse_bad(job: Job, manifest: Manifest) -> None:
    """Refuse shards from which images were left out, where that was not asked for."""
    if job.on_bad == "fail" and manifest.bad:
        raise bad_images(manifest.bad)
    refuse_unlabelled(job.path, int(manifest.source.get("unlabelled", 0)), job.on_bad)


def _begun_with(notes: Path) -> str | None:
    try:
        key: str | None = parse_json((notes / "job.json").read_bytes())["key"]
        return key
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _clear(folder: Path) -> None:
    """Remove what an unfinished preparation of something else has left."""
    for file in folder.iterdir():
        if _OWN_FILES.fullmatch(file.name):
            file.unlink()
    for note in (folder / NOTES).glob("*.json"):
        note.unlink()


def _describe(job: Job, listing: Listing, made: Notes) -> Manifest:
    everything = [note for notes in made.values() for note in notes]
    channels, rows, columns = next(s[:3] for note in everything for s in note.shapes)
    bad = all_bad(everything)
    listed = sum(len(records.labels) for records in listing.parts.values())
    read = sum(note.entry.count for note in everything if note.entry)
    names = ("sixfold", "pillow", "numpy", "pyarrow")
    return Manifest(
        name=listing.name,
        classes=tuple(printable(name) for name in listing.classes),
        kind=listing.kind,
        weighted=any(records.weights is not None for records in listing.parts.values()),
        shape=(channels, rows, columns),
        dtype=next(note.dtype for note in everything if note.shapes),
        parts={part: tuple(n.entry for n in notes if n.entry) for part, notes in made.items()},
        bad=tuple((printable(name), why) for name, why in bad),
        left_out=tuple((printable(name), why) for name, why in listing.left_out),
        source={
            "spec": str(job.spec),
            "path": job.path,
            "split": listing.split,
            "fingerprint": job.fingerprint,
            "key": job.key,
            "unlabelled": listing.unlabelled,
            **({"pixels": listing.pixels} if listing.pixels else {}),
            "pixel_range": listing.pixel_range,
            "skipped": listed - read + listing.skipped,
        },
        settings={"resize": job.resize, "on_bad": job.on_bad, **_order(job)},
        versions={name: metadata.version(name) for name in names},
    )


def _order(job: Job) -> dict[str, str]:
    """How records are ordered for training, where the source's own order means nothing."""
    return {"order": "content"} if job.by_content else {}
