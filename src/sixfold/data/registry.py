"""From a data specification to a data set: `resolve` in the launcher, `open_data` in a rank."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from sixfold.core.environment import cache_directory
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.files import (
    file_sha256,
    make_folder,
    parse_json,
    space_explained,
    write_atomically,
)
from sixfold.core.locks import locked
from sixfold.data import digits, paths, synthetic
from sixfold.data.augmentation.grammar import parse_augment
from sixfold.data.config import HANDED_OVER, DataConfig
from sixfold.data.dataset import UNLABELLED, DataSet, OrderedStore, Store, assemble
from sixfold.data.manifest import (
    MOST_MANIFEST_BYTES,
    NAME,
    PARTS,
    VALIDATION,
    Manifest,
    checksum_problems,
    load_manifest,
    parse_manifest,
    shortened,
)
from sixfold.data.preparation import carry_out, refuse_bad
from sixfold.data.reread import Reread
from sixfold.data.shard_building import Pool, Progress, in_turn
from sixfold.data.shard_files import ShardStore, chosen_places
from sixfold.data.shard_streaming import ShardCache, outline_folder, room_problems
from sixfold.data.sources import Job, column_problems, locate, plan
from sixfold.data.spec import Spec, TableOptions, parse_spec
from sixfold.data.targets import BINARY, CLASSES

HASHED_BYTES = 2**31
"""Shards up to this size are read once in full, to compare checksums: 1 s a gigabyte and core."""


def resolve(
    config: DataConfig,
    *,
    pool: Pool | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    cache: Path | None = None,
    labelled: bool = True,
) -> DataConfig:
    """Check the settings and the data; prepare what ranks cannot open as it is.

    Runs in the launcher, once. Data in files becomes tensor shards in the cache, under a name that
    follows from what and where it is, how it is resized, and the files' sizes and times. Without
    `labelled`, rows of tables that have no label are kept, too. What is returned names data that
    any rank can open: digits, synthetic or shards of the right size.
    """
    raise_problems(config.problems())
    if parse_spec(config.data).kind == "hf":
        return _from_hugging_face(config, progress)
    table = _table_options(config, labelled=labelled)
    job = plan(config.data, resize=config.resize, on_bad=config.on_error, table=table)
    spec = job.spec
    if spec.kind in ("digits", "synthetic"):
        return dataclasses.replace(config, data=str(spec))
    root = (cache or cache_directory()).expanduser().absolute() / "data"
    if spec.kind == "shards":
        if paths.is_url(spec.where) and config.cache_bytes is not None:
            return _streamed(config, spec.where)
        if paths.is_url(spec.where):
            spec = Spec("shards", str(fetch_shards(spec.where, root, progress)))
            job = plan(str(spec), resize=config.resize, on_bad=config.on_error)
        manifest = _verified(Path(spec.where), workers)
        if config.resize is None or manifest.shape[1:] == (config.resize, config.resize):
            return dataclasses.replace(config, data=str(spec), resize=None)
    if not labelled and spec.kind == "parquet":
        job = _already_made(job, root, workers) or job
    folder = _folder(root, job)
    if job.resize is not None:
        # Images that have this size already are the same shards, made when no size was named.
        plain = dataclasses.replace(job, resize=None)
        if not labelled and spec.kind == "parquet":
            plain = _already_made(plain, root, workers) or plain
        unsized = _folder(root, plain)
        if _has_side(unsized, job.resize) and _is_sound(unsized, plain, workers):
            job, folder = plain, unsized
    _prepare_cached(job, folder, pool or in_turn, workers, progress or (lambda *_: None))
    return dataclasses.replace(
        config,
        data=f"shards:{folder}",
        resize=None,
        image_column=None,
        label_column=None,
        pixel_range=None,
        weight_column=None,
    )


def _streamed(config: DataConfig, url: str) -> DataConfig:
    """The settings of shards that stay in a store; a `UserError` if the cache is too small."""
    manifest = load_manifest(outline_folder(url))
    most = config.cache_bytes or 0
    found = room_problems(manifest, config.data, most, config.shuffle_files)
    if config.resize is not None and manifest.shape[1:] != (config.resize, config.resize):
        found.append(
            f"--resize {config.resize}: shards that are streamed are taken as they are "
            f"({manifest.shape[1]}x{manifest.shape[2]}): prepare them at this size"
        )
    raise_problems(found)
    return dataclasses.replace(config, data=f"shards:{url}", resize=None)


def _shard_folder(where: str) -> Path:
    """A folder of shards, or of the outlines of those that stay in a store."""
    return outline_folder(where) if paths.is_url(where) else Path(where)


def _from_hugging_face(config: DataConfig, progress: Progress | None) -> DataConfig:
    """Shards of a data set that the package `datasets` loads."""
    from sixfold.data.given import write_given
    from sixfold.data.given_sources import parts_of

    parts = parts_of(config.data, "--data", config, Path())
    spec = write_given(
        parts,
        cut_test=True,
        target=config.target,
        on_error=config.on_error,
        progress=progress,
    )
    return dataclasses.replace(
        config, data=spec, resize=None, image_column=None, label_column=None, pixel_range=None
    )


def _table_options(config: DataConfig, *, labelled: bool = True) -> TableOptions:
    return TableOptions(
        config.image_column,
        config.label_column,
        labelled,
        config.pixel_range,
        config.target,
        config.weight_column,
    )


def _folder(root: Path, job: Job) -> Path:
    return root / f"{job.spec.kind}-{job.key[:16]}"


def _already_made(job: Job, root: Path, workers: int) -> Job | None:
    """The job of a training on the same table, if its shards are there and lack no row."""
    trained = dataclasses.replace(job, table=dataclasses.replace(job.table, labelled=True))
    folder = _folder(root, trained)
    with contextlib.suppress(UserError):
        if (folder / NAME).exists() and not load_manifest(folder).source.get("unlabelled"):
            return trained if _is_sound(folder, trained, workers) else None
    return None


def source_fingerprint(config: DataConfig) -> str:
    """A hash that changes when the names, sizes or times of a data set's files do."""
    if parse_spec(config.data).kind == "hf":
        return hashlib.sha256(config.data.encode()).hexdigest()
    return plan(config.data, resize=config.resize, on_bad=config.on_error).fingerprint


def content_fingerprint(resolved: DataConfig) -> str:
    """A hash of what a data set holds: its classes, images and labels."""
    spec = parse_spec(resolved.data)
    if spec.kind != "shards":
        return str(spec)
    manifest = load_manifest(_shard_folder(spec.where))
    if "content" in manifest.source:  # does not depend on how records are divided into files
        return str(manifest.source["content"])
    files = {part: [e.sha256 for e in entries] for part, entries in manifest.parts.items()}
    return hashlib.sha256(json.dumps([manifest.classes, files]).encode()).hexdigest()


def source_problems(config: DataConfig) -> list[str]:
    """What a glance at the source and the texts of the settings tells; empty if nothing."""
    found: list[str] = []
    try:
        parse_augment(config.augment)
    except UserError as error:
        found += error.problems
    if config.data == HANDED_OVER:
        return found
    found += column_problems(config.data, _table_options(config))
    try:
        spec = parse_spec(config.data)
        if spec.kind == "synthetic":
            synthetic.parse(spec.where, config.resize)
        locate(spec)
    except UserError as error:
        found += error.problems
    return found


def _verified(folder: Path, workers: int) -> Manifest:
    """The manifest of a folder whose files are what it says, by checksum if they are not large."""
    manifest = load_manifest(folder)
    if sum(entry.bytes for entry in manifest.files(folder).values()) <= HASHED_BYTES:
        problems = checksum_problems(folder, manifest, workers)
        if problems:
            raise UserError(shortened(problems))
    return manifest


def _has_side(folder: Path, side: int) -> bool:
    """Whether a folder holds shards of images of so many rows and columns."""
    with contextlib.suppress(UserError):
        return (folder / NAME).exists() and load_manifest(folder).shape[1:] == (side, side)
    return False


def _prepare_cached(job: Job, folder: Path, pool: Pool, workers: int, progress: Progress) -> None:
    """Prepare a job in the cache, unless it is there; a damaged entry is made anew."""
    if _is_sound(folder, job, workers):
        return
    make_folder(folder.parent, "SIXFOLD_CACHE")
    # Beside the folder, which may be removed.
    with space_explained(folder), locked(folder.with_name(f"{folder.name}.lock"), wait=True):
        if _is_sound(folder, job, workers):  # made by whoever had the lock
            return
        if (folder / NAME).exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        carry_out(job, folder, pool=pool, workers=workers, progress=progress)


def _is_sound(folder: Path, job: Job, workers: int) -> bool:
    if not (folder / NAME).exists():
        return False
    try:
        manifest = _verified(folder, workers)
    except UserError:
        return False
    refuse_bad(job, manifest)
    return manifest.source.get("key") == job.key


def _store(
    config: DataConfig, folder: Path, manifest: Manifest, part: str, as_listed: bool
) -> Store:
    """A part of a folder of shards, its records in their order."""
    cache = None
    if config.cache_bytes is not None:
        url, entries = parse_spec(config.data).where, manifest.parts[part]
        cache = ShardCache(url, folder, entries, manifest, config.cache_bytes)
    store = ShardStore(folder, manifest, part, cache)
    keys = store.keys() if (manifest.by_content and not as_listed) or manifest.rows else None
    if keys is None:
        return store
    if not manifest.rows:
        return OrderedStore(store, keys)
    return OrderedStore(store, keys, chosen_places(folder, manifest, part, len(keys)))


def open_data(config: DataConfig, *, as_listed: bool = False) -> DataSet:
    """Open resolved data in a rank: cheap, since pixels stay in files until they are asked for.

    The validation part is cut off the training part. Rows of a table come in the order of their
    content, so that a training does not depend on how the table is divided into files; with
    `as_listed` they come as they stand there.
    """
    spec = parse_spec(config.data)
    facts: dict[str, Any] = {}
    train: Store
    test: Store
    if spec.kind == "digits":
        name, classes, (train, test) = "digits", digits.CLASSES, digits.load(config.resize)
        facts["split"] = "80/20, stratified by class"
    elif spec.kind == "synthetic":
        name, classes = str(spec), synthetic.CLASSES
        train, test = synthetic.parse(spec.where, config.resize)
    elif spec.kind != "shards" or config.resize is not None:
        raise ValueError(f"{config.data} (resize {config.resize}) must be resolved first")
    else:
        folder = _shard_folder(spec.where)
        manifest = load_manifest(folder)
        name, classes = manifest.name, manifest.classes
        train, test = (_store(config, folder, manifest, part, as_listed) for part in PARTS)
        bad = manifest.bad_lines()
        if manifest.parts.get(VALIDATION) and config.validation and "key" in manifest.source:
            count = manifest.count(VALIDATION)
            bad += (f"validation part: {count} images: not used, since --validation cuts another",)
        elif manifest.parts.get(VALIDATION):
            facts["own_validation"] = _store(config, folder, manifest, VALIDATION, as_listed)
        if config.reread is not None:
            facts["reread"] = Reread(config.reread, manifest.shape, manifest.settings)
        split = str(manifest.source.get("split", ""))
        facts |= {
            "bad": bad,
            "skipped": manifest.skipped,
            "own_test": not split.startswith("80/20"),
            "split": split,
            "kind": manifest.kind,
            "pixel_range": str(manifest.source.get("pixel_range", "")),
        }
    if config.target == BINARY and facts.get("kind", CLASSES) == CLASSES:
        facts["kind"] = _binary(name, classes)
    return assemble(
        name=name,
        classes=classes,
        train=train,
        test=test,
        validation=config.validation,
        test_split=config.test_split,
        images=config.max_images,
        **facts,
    )


def fetch_shards(url: str, root: Path, progress: Progress | None) -> Path:
    """Copy a folder of shards, unless its like is there."""
    source = paths.join(url, NAME)
    if paths.look(source).size > MOST_MANIFEST_BYTES:
        raise UserError(f"{source}: too large to be a manifest")
    data = paths.read_file(source)
    try:
        manifest = parse_manifest(parse_json(data), source)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON: {error}") from None
    if manifest.rows:
        raise UserError(f"{url}: is a choice of other shards' records: copy the folder above it")
    folder = root / f"shards-{hashlib.sha256(url.encode() + data).hexdigest()[:16]}"
    total, done = sum(entry.count for entry in manifest.entries), 0
    with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
        folder.mkdir(parents=True, exist_ok=True)
        for entry in manifest.entries:
            target = folder / entry.file
            if not target.exists() or target.stat().st_size != entry.bytes:
                _copy(paths.join(url, entry.file), target, entry.bytes)
            if file_sha256(target) != entry.sha256:
                target.unlink()
                raise UserError(
                    f"{paths.join(url, entry.file)}: damaged (wrong checksum): prepare the shards "
                    "again"
                )
            done += entry.count
            if progress:
                progress(done, total)
        write_atomically(folder / NAME, data)  # last: a folder with a manifest is complete
        load_manifest(folder)
    return folder


def _copy(url: str, target: Path, size: int) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    with paths.explained(url), paths.open_file(url) as source, temporary.open("wb") as file:
        shutil.copyfileobj(source, file, 2**20)
    if temporary.stat().st_size != size:
        found = temporary.stat().st_size
        temporary.unlink()
        raise UserError(f"{url}: {found} bytes, but the manifest says {size}")
    temporary.replace(target)


def _binary(name: str, classes: tuple[str, ...]) -> str:
    """The kind `binary`, of data that have two classes."""
    known = [each for each in classes if each != UNLABELLED]
    if len(known) != 2:
        raise UserError(
            f"--loss binary: {name} has {len(known)} classes: expected two; give --loss "
            "cross_entropy"
        )
    return BINARY
