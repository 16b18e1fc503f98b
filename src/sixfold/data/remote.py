"""Tensor shards that lie behind a URL: copied into the cache, for only files can be mapped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, write_atomically
from sixfold.core.locks import locked
from sixfold.data import paths
from sixfold.data.manifest import (
    MOST_MANIFEST_BYTES,
    NAME,
    file_sha256,
    load_manifest,
    parse_manifest,
)

BLOCK_BYTES = 2**20


def fetch_shards(url: str, root: Path, progress: Callable[[int, int], None] | None) -> Path:
    """Copy a folder of shards, unless its like is there."""
    source = paths.join(url, NAME)
    if paths.look(source).size > MOST_MANIFEST_BYTES:
        raise UserError(f"{source}: too large to be a manifest")
    data = paths.read_file(source)
    try:
        manifest = parse_manifest(parse_json(data), source)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON: {error}") from None
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
        shutil.copyfileobj(source, file, BLOCK_BYTES)
    if temporary.stat().st_size != size:
        found = temporary.stat().st_size
        temporary.unlink()
        raise UserError(f"{url}: {found} bytes, but the manifest says {size}")
    temporary.replace(target)
