"""Tensor shards that stay in a store, streamed through a bounded cache that a host's ranks share.

A set has a folder in the cache. It holds its manifest; of every file an *outline*, which is as long
as the file but has a hole for the pixels, so that labels, names and sums are read as those of any
shard; and in ``pixels/`` the few whole files that are used now or soon. A training says in which
order it will visit the files (`ShardCache.expect`); a thread fetches ahead of it, in that order, as
far as the cache has room. What is fetched is compared with its checksum. The cache may decide how
long a step waits, never what it computes.
"""

import hashlib
import math
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sixfold.core.environment import cache_directory
from sixfold.core.errors import SixfoldError, UserError
from sixfold.core.files import file_sha256, parse_json, space_explained, write_atomically
from sixfold.core.locks import locked
from sixfold.core.object_store import ObjectStore, StoreError
from sixfold.data.manifest import (
    MOST_MANIFEST_BYTES,
    NAME,
    Manifest,
    ShardEntry,
    parse_manifest,
)
from sixfold.data.shard_files import open_shard

PIXELS = "pixels"
HEAD_BYTES = 4096  # at the beginning of a file, which hold its schema
TOGETHER = 16  # outlines that are fetched at a time
LOOK_S = 0.05  # between two looks for room


def outline_folder(url: str) -> Path:
    """A folder with a set's manifest and outlines, made unless it is there."""
    try:
        store = ObjectStore(url)
        data = store.read(NAME)
        if data is None:
            raise UserError(f"{url}: no {NAME} in it: not a folder of tensor shards")
        if len(data) > MOST_MANIFEST_BYTES:
            raise UserError(f"{url}/{NAME}: too large to be a manifest")
        try:
            manifest = parse_manifest(parse_json(data), f"{url}/{NAME}")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{url}/{NAME}: not JSON: {error}") from None
        if manifest.rows:
            raise UserError(f"{url}: is a choice of other shards' records: give the folder above")
        name = hashlib.sha256(url.encode() + data).hexdigest()[:16]
        folder = cache_directory() / "data" / f"stream-{name}"
        with (
            space_explained(folder),
            locked(folder.with_name(f"{folder.name}.lock"), wait=True),
        ):
            if not (folder / NAME).exists():
                (folder / PIXELS).mkdir(parents=True, exist_ok=True)
                with ThreadPoolExecutor(TOGETHER) as pool:
                    list(pool.map(lambda e: _outline(store, folder, e, manifest), manifest.entries))
                write_atomically(folder / NAME, data)  # last: a folder with a manifest is complete
    except StoreError as error:
        raise UserError(str(error)) from None
    return folder


def _outline(store: ObjectStore, folder: Path, entry: ShardEntry, manifest: Manifest) -> None:
    """Everything of a file but its pixels, which lie between its head and its other columns."""
    pixels = entry.count * math.prod(manifest.shape)
    start = max(min(pixels, entry.bytes), HEAD_BYTES)  # the head comes before the pixels
    path = folder / entry.file
    with path.open("wb") as file:
        file.write(store.read(entry.file, 0, min(HEAD_BYTES, entry.bytes)) or b"")
        if start < entry.bytes:
            file.seek(start)
            file.write(store.read(entry.file, start, entry.bytes) or b"")
        file.truncate(entry.bytes)


class ShardCache:
    """The pixels of the files of one part of a set, as one rank sees them."""

    def __init__(
        self, url: str, folder: Path, entries: Sequence[ShardEntry], manifest: Manifest, most: int
    ) -> None:
        self._store, self._folder, self._entries = ObjectStore(url), folder, entries
        self._shape, self._most = manifest.shape, most
        self._open: dict[int, NDArray[np.uint8]] = {}
        # Numbers of files, those of a window in no order among each other; which window is used.
        self._windows: list[list[int]] = [[number] for number in range(len(entries))]
        self._now = 0
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    def expect(self, windows: Sequence[Sequence[int]]) -> None:
        """Say which files will be asked for next: those of one window, then those of the next."""
        with self._condition:
            self._windows, self._now = [list(window) for window in windows], 0
            self._condition.notify_all()

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """The pixels of a file, (n, C, H, W), mapped."""
        if number not in self._open:
            self._advance_to(number)
            self._fetch([number], self._window(self._now))
        return self._open[number]

    def _advance_to(self, number: int) -> None:
        with self._condition:
            later = range(self._now, len(self._windows))
            self._now = next((i for i in later if number in self._windows[i]), self._now)
            using = {*self._window(self._now), number}
            self._open = {one: pixels for one, pixels in self._open.items() if one in using}
            if self._thread is None:
                # It must not keep the cache alive, and ends with it.
                arguments = (weakref.ref(self), self._condition)
                self._thread = threading.Thread(
                    target=_keep_ahead, args=arguments, name="shards", daemon=True
                )
                self._thread.start()
            self._condition.notify_all()

    def _window(self, place: int) -> list[int]:
        return self._windows[place] if place < len(self._windows) else []

    def fetch_next(self) -> bool:
        """Fetch a file of this window or the next ones, if there is room; whether one was."""
        with self._condition:
            now = self._now
            soon = [one for window in self._windows[now : now + 3] for one in window]
        wanted, size = [], 0
        for number in soon:
            size += self._entries[number].bytes
            if size <= self._most:
                wanted.append(number)
        missing = [one for one in wanted if not self._path(one).exists()]
        if missing:
            self._fetch(missing[:1], wanted, opens=False)
        return bool(missing)

    def _path(self, number: int) -> Path:
        return self._folder / PIXELS / self._entries[number].file

    def _fetch(self, numbers: Sequence[int], kept: Sequence[int], *, opens: bool = True) -> None:
        """Bring files into the cache and map them; those to be kept make no room for them."""
        while True:
            here = [one for one in numbers if self._path(one).exists()]
            if opens and len(here) == len(numbers):
                try:
                    for one in numbers:
                        self._open[one] = open_shard(self._path(one), self._shape).pixels
                    return
                except UserError:
                    if all(self._path(one).exists() for one in numbers):
                        raise  # else another rank has made room just now
                    continue
            with locked(self._folder / f"{PIXELS}.lock", wait=True):
                for one in numbers:
                    if not self._path(one).exists():
                        self._make_room(self._entries[one].bytes, {*kept, *numbers})
                        self._download(one)
            if not opens:
                return

    def _make_room(self, size: int, kept: set[int]) -> None:
        """Remove the files that came first and are not to be kept, until there is room."""
        names = {self._entries[one].file for one in kept}
        found = []
        for path in (self._folder / PIXELS).glob("*.arrow"):
            status = path.stat()
            found.append((path.name in names, status.st_mtime_ns, status.st_size, path))
        used = sum(each[2] for each in found)
        # Those that this rank needs too, but later, go last: another one may need room at once.
        for _, _, bytes_, path in sorted(found):
            if used + size <= self._most:
                return
            path.unlink(missing_ok=True)
            used -= bytes_

    def _download(self, number: int) -> None:
        entry, target = self._entries[number], self._path(number)
        temporary = target.with_name(f"{target.name}.tmp")
        try:
            self._store.download({entry.file: temporary})
        except StoreError as error:
            raise UserError(str(error)) from None
        if file_sha256(temporary) != entry.sha256:
            temporary.unlink()
            raise UserError(
                f"{self._store.url_of(entry.file)}: damaged (wrong checksum): prepare the shards "
                "again"
            )
        temporary.replace(target)


def _keep_ahead(cache: weakref.ref[ShardCache], changed: threading.Condition) -> None:
    """Fetch what comes next, as long as the cache is used."""
    while (there := cache()) is not None:
        try:
            pause_s = 0.0 if there.fetch_next() else LOOK_S
        except (SixfoldError, OSError):  # whoever needs the file tells what is wrong
            pause_s = 1.0
        except RuntimeError:  # the interpreter ends
            return
        del there
        if pause_s:
            with changed:
                changed.wait(pause_s)


def room_problems(manifest: Manifest, spec: str, most: int, window: int | None) -> list[str]:
    """Why a set cannot be streamed through a cache of so many bytes."""
    sizes = sorted((entry.bytes for entry in manifest.parts["train"]), reverse=True)
    others = max((entry.bytes for entry in manifest.entries), default=0)
    if window is None:
        needed, what = sum(sizes), "images are visited in an order over the whole set"
        remedy = "give --shuffle-files K, to visit K files at a time, or a larger --cache-size"
    else:
        needed = 2 * sum(sizes[:window])
        what = f"two times --shuffle-files {window} have to find room"
        remedy = "give a larger --cache-size, or fewer files"
    needed = max(needed, others)
    if needed <= most:
        return []
    return [f"--cache-size: {spec}: {what}, which takes {needed:,} of {most:,} bytes: {remedy}"]
