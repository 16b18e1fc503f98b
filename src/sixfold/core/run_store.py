"""A run whose directory is a URL: a working copy on this host, published to the store.

Object stores know neither rename nor append nor locks, and weights are mapped from files. So a run
at a URL has a working copy in the cache, in which everything is as in a local run directory; what
changes there is published every few seconds, and at once where that matters. In the store the
files have the names that they have in a directory: a run may be copied from one to the other by any
tool. Besides there is

    attempts/000003.json     one for each attempt, created by whoever may make it: see below
    attempts/000003.files    which weights and checkpoints are whole, with size and checksum

*Fencing.* Numbers of attempts are taken one after the other, each by the creation of an object that
must not exist, so two processes never have the same. The highest alone may write. Its launcher
rewrites its object every few seconds; who comes later and sees that change is refused, and who sees
no change takes the next number. A process that finds a number above its own stops.

*Visibility.* Weights and checkpoints count only if the newest attempt's record names them with this
size and checksum. The record is written after them and before what they replace is removed. So half
an upload is never read, nor what a superseded attempt writes late: it can only write to its own
record.
"""

import atexit
import functools
import hashlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from sixfold.core.checks import place_of
from sixfold.core.environment import cache_directory
from sixfold.core.errors import RunError, SixfoldError, UserError
from sixfold.core.object_store import DeniedError, ObjectStore, StoredObject, StoreError, is_url

BEAT_S = 5.0  # between two signs of life of a launcher
SILENT_BEATS = 3  # after which it counts as gone
PUBLISH_S = 2.0  # between two looks for changed files
MOST_SHARE = 20  # A file that grows is published again after so many times what that took
ATTEMPTS = "attempts/"
_STATE = ("checkpoints", "snapshots", "servers")
_LAST = "result.json"  # the run is finished where it is
_LOCAL = ("attempt", "attempts")  # not published, as are hidden files

Stamp = tuple[int, int]


class SupersededError(RunError):
    """This process belongs to an attempt that a newer one has replaced."""


def is_weights(name: str) -> bool:
    """Whether a file counts only if a record names it."""
    return name.endswith(".safetensors")


class RunStore:
    """A run in a store and a working copy of it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.store, self.url, self.folder = ObjectStore(url), url.rstrip("/"), folder
        self.number = 0  # of the attempt under which this process writes
        self._known: dict[str, Stamp] = {}  # files that are the same here and there
        self._sums: dict[str, list[int]] = {}  # size and checksum of weights among them
        self._seen: dict[str, StoredObject] = {}  # of those, what others have written
        self._is_recorded = False
        self._due: dict[str, float] = {}  # when files that grow are published again
        self._lock = threading.RLock()
        self._numbers = threading.Lock()  # an attempt does not wait until something is published

    def newest(self) -> int:
        """The number of the newest attempt, 0 if there is none."""
        return max(map(_number, self.store.list(ATTEMPTS)), default=0)

    def take(self, number: int, facts: dict[str, Any]) -> None:
        """Begin an attempt of this number; a `SupersededError` if another process has."""
        with self._numbers:
            if not self.store.create(_attempt(number), json.dumps(facts).encode()):
                raise SupersededError(
                    f"{self.url}: attempt {self.number} was superseded by attempt {number}, which "
                    "another process has begun"
                )
            self.number = number

    def facts(self, number: int) -> dict[str, Any]:
        """What the launcher of an attempt has said of itself."""
        found: Any = {}
        with suppress(ValueError):
            found = json.loads(self.store.read(_attempt(number)) or b"{}")
        return found if isinstance(found, dict) else {}

    def fence(self) -> None:
        """Raise a `SupersededError` if a newer attempt has begun."""
        with self._numbers:
            newest = self.newest()
        if newest > self.number:
            raise SupersededError(
                f"{self.url}: attempt {self.number} was superseded by attempt {newest}"
            )

    def pull(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Bring what the store has, and this process has not written itself, into the copy."""
        with self._lock:
            listed = self.store.list()
            valid = self._valid(listed)
            names = [
                name
                for name in listed
                if not _is_local(name)
                and wanted(name)
                and (valid is None or not is_weights(name) or name in valid)
                and self._is_news(name, listed[name])
            ]
            self.store.download({name: self.folder / name for name in names})
            for name in names:
                path = self.folder / name
                if is_weights(name):
                    found = _sum(path)
                    if valid is not None and found != valid[name]:
                        path.unlink()  # overwritten by a superseded attempt
                        continue
                    self._sums[name] = found
                self._known[name], self._seen[name] = _stamp(path), listed[name]

    def _is_news(self, name: str, found: StoredObject) -> bool:
        """Whether others have written an object since; what this process has changed stays."""
        path = self.folder / name
        if not path.exists():
            return name not in self._known  # else it was removed here
        return self._seen.get(name, found) != found and self._known.get(name) == _stamp(path)

    def _valid(self, listed: dict[str, StoredObject]) -> dict[str, list[int]] | None:
        """Weights that count, with size and checksum; None if nothing is recorded: all do."""
        records = [name for name in listed if name.startswith(ATTEMPTS) and name.endswith(".files")]
        if not records:
            return None
        found = json.loads(self.store.read(max(records, key=_number)) or b"{}")
        return {
            name: [size, checksum]
            for name, (size, checksum) in found.items()
            if name in listed and listed[name].size == size
        }

    def publish(self, *, at_once: bool = True) -> None:
        """Make the store as the working copy is, as far as this process has changed that.

        Unless `at_once`, files that grow are published no more often than is cheap.
        """
        with self._lock:
            here = dict(self._files())
            gone = [name for name in self._known if name not in here]
            now = time.monotonic()
            changed = [
                name
                for name, stamp in here.items()
                if self._known.get(name) != stamp and (at_once or now >= self._due.get(name, 0.0))
            ]
            if not (gone or changed):
                return
            self.fence()
            weights = [name for name in changed if is_weights(name)]
            lost = [name for name in gone if is_weights(name)]
            self._remove(name for name in gone if not is_weights(name))
            self._upload(weights, here)
            if weights or lost or not self._is_recorded:
                self._record(set(here))
            self._remove(lost)
            self._upload([n for n in changed if not is_weights(n) and n != _LAST], here)
            self._upload([name for name in changed if name == _LAST], here)

    def _upload(self, names: list[str], stamps: dict[str, Stamp]) -> None:
        begin = time.monotonic()
        for name in names:
            if is_weights(name):
                self._sums[name] = _sum(self.folder / name)
        self.store.upload({name: self.folder / name for name in names})
        now = time.monotonic()
        for name in names:
            self._known[name] = stamps[name]
            self._seen.pop(name, None)
            self._due[name] = now + MOST_SHARE * (now - begin)

    def _record(self, here: set[str]) -> None:
        """Write which weights count, which the store has by now."""
        self._sums = {name: found for name, found in self._sums.items() if name in here}
        record = f"{ATTEMPTS}{self.number:06d}.files"
        self.store.write(record, json.dumps(self._sums, indent=1).encode())
        self._is_recorded = True

    def _remove(self, names: Iterable[str]) -> None:
        names = list(names)
        self.store.delete(names)
        for name in names:
            del self._known[name]
            self._seen.pop(name, None)

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if not _is_local(name):
                with suppress(FileNotFoundError):  # replaced, or removed, just now
                    if path.is_file():
                        yield name, _stamp(path)

    @contextmanager
    def publishing(self, beat: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Publish every few seconds, and call `beat` meanwhile; all is published at the end.

        What the store refuses meanwhile is tried again, and raised at the end if it still does.
        """
        ending = threading.Event()

        def repeat(what: Callable[[], None], pause_s: float) -> None:
            while not ending.wait(pause_s):
                try:
                    what()
                except SupersededError:
                    return
                except (SixfoldError, OSError):
                    continue

        def publish() -> None:
            self.publish(at_once=False)

        # Two threads: what takes long to publish does not make a launcher look as if it were gone.
        work = ((publish, PUBLISH_S), (beat, BEAT_S))
        threads = [threading.Thread(target=repeat, args=each, daemon=True) for each in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ending.set()
            for thread in threads:
                thread.join()
            self.publish()


@functools.cache
def rank_copy(url: str, token: str) -> RunStore:
    """The working copy of a rank that does not see that of the launcher, on another host.

    A process has one of each run, which goes with the process.
    """
    prefix, home = _prefix(url), cache_directory() / "runs"
    _remove_left_over(home, prefix)
    copy = RunStore(url, home / f"{prefix}{os.getpid()}-rank-{token}")
    copy.folder.mkdir(parents=True, exist_ok=True)
    atexit.register(shutil.rmtree, copy.folder, ignore_errors=True)
    return copy


class HeldRun:
    """A run in a store that this process has to itself, as its launcher."""

    def __init__(self, url: str) -> None:
        self._home, self._prefix = cache_directory() / "runs", _prefix(url)
        self.token = secrets.token_hex(8)
        self.run = RunStore(url, self._home / f"{self._prefix}{os.getpid()}-{self.token}")
        self._beats, self._denied = 0, ""

    @property
    def url(self) -> str:
        """Where the run lies."""
        return self.run.url

    @property
    def folder(self) -> Path:
        """The working copy."""
        return self.run.folder

    def claim(self) -> int:
        """Begin the next attempt; its number."""
        if self._denied:
            raise UserError(f"--out {self._denied}")
        self.run.take(self.run.number + 1, self._facts())
        return self.run.number

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others out, or say who is there; the working copy is there meanwhile."""
        _remove_left_over(self._home, self._prefix)
        try:
            was_empty = not self.run.store.list()
            self._enter()
        except StoreError as error:
            raise UserError(f"--out {error}") from None
        self.folder.mkdir(parents=True)
        try:
            self.run.pull()
            if self._denied:
                yield  # a finished run is only read
            else:
                with self.run.publishing(self._beat):
                    yield
        except StoreError as error:
            raise RunError(f"{error}; what the run has made lies in {self.folder}") from None
        except BaseException:
            self._leave(was_empty)
            raise
        self._leave(was_empty)

    def _leave(self, was_empty: bool) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(SixfoldError):
            listed = self.run.store.list()
            if was_empty and all(name.startswith(ATTEMPTS) for name in listed):
                self.run.store.delete(listed)  # refused before anything was written
            elif not self._denied and self.run.newest() == self.run.number:
                facts = self._facts() | {"ended": True}
                self.run.store.write(_attempt(self.run.number), json.dumps(facts).encode())

    def _enter(self) -> None:
        newest = self.run.newest()
        if newest and self._lives(newest):
            facts = self.run.facts(newest)
            began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts.get("time", 0)))
            raise UserError(
                f"{self.run.url} is in use by process {facts.get('pid')} on {facts.get('host')}, "
                f"since {began}: wait for it, or choose another --out"
            )
        self.run.number = newest
        try:
            self.run.take(newest + 1, self._facts())
        except SupersededError:
            raise UserError(
                f"{self.run.url} is in use by another process, which began just now: wait for it, "
                "or choose another --out"
            ) from None
        except DeniedError as error:
            if "config.json" not in self.run.store.list():
                raise
            self._denied = str(error)

    def _lives(self, number: int) -> bool:
        """Whether the launcher of an attempt gives signs of life."""
        facts = self.run.facts(number)
        if facts.get("ended"):
            return False
        if facts.get("host") == socket.gethostname():
            return psutil.pid_exists(facts.get("pid", 0)) and not self._is_silent(number, facts)
        return not self._is_silent(number, facts)

    def _is_silent(self, number: int, before: dict[str, Any]) -> bool:
        # Its own clock alone is looked at: those of two hosts need not agree.
        until = time.monotonic() + SILENT_BEATS * BEAT_S
        while time.monotonic() < until:
            time.sleep(BEAT_S / 5)
            if self.run.newest() != number or self.run.facts(number) != before:
                return bool(self.run.facts(number).get("ended"))
        return True

    def _beat(self) -> None:
        self._beats += 1
        self.run.store.write(_attempt(self.run.number), json.dumps(self._facts()).encode())

    def _facts(self) -> dict[str, Any]:
        began = psutil.Process().create_time()
        facts = {"token": self.token, "host": socket.gethostname(), "pid": os.getpid()}
        return facts | {"time": began, "beats": self._beats}


def _prefix(url: str) -> str:
    return f"{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:12]}-"


def _remove_left_over(home: Path, prefix: str) -> None:
    """Remove working copies of a run whose processes were killed."""
    for folder in home.glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def local_run(place: str | os.PathLike[str], *, record: bool = False) -> Path:
    """Where a run is read from on this host: a path made absolute, or a URL's copy in the cache.

    Of a URL what its use takes is fetched, and with `record` what its report takes; no checkpoints.
    A URL of a file, such as weights, gives that file, with the settings that lie beside it.
    """
    text = place_of(place, "the run")
    if not is_url(text):
        return Path(text.removeprefix("file://")).expanduser().absolute()
    url, file = text.rstrip("/"), ""
    if Path(url).suffix in (".safetensors", ".sixz"):
        url, _, file = url.rpartition("/")
    copy = RunStore(url, cache_directory() / "runs" / f"read-{_prefix(url)[:-1]}")

    def wanted(name: str) -> bool:
        folder = name.partition("/")[0]
        return folder in (name, "objects") or (record and folder not in _STATE)

    try:
        if not copy.store.list():
            raise UserError(f"there is no run {url}: give a run directory of `sixfold train`")
        shutil.rmtree(copy.folder, ignore_errors=True)
        copy.pull(wanted)
    except StoreError as error:
        raise UserError(str(error)) from None
    return copy.folder / file


def publish_file(place: str, file: Path) -> str:
    """Put a file of `local_run(place)` where it belongs; its path or URL."""
    if not is_url(place):
        return str(file)
    store = ObjectStore(place)
    try:
        store.upload({file.name: file})
    except StoreError as error:
        raise UserError(f"{error}; the file is {file}") from None
    return store.url_of(file.name)


def local_out(out: str | None, run: str, default: Path) -> Path:
    """Where a command writes that keeps its results next to the run it reads, unless told."""
    if out is None and is_url(run):
        raise UserError(f"{run} is a URL: give --out for the results")
    if out is not None and is_url(out):
        raise UserError(f"--out {out}: the results are files of this host, give a path")
    return Path(out.removeprefix("file://")).expanduser().absolute() if out else default


def _number(name: str) -> int:
    digits = name.removeprefix(ATTEMPTS).partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def _attempt(number: int) -> str:
    return f"{ATTEMPTS}{number:06d}.json"


def _is_local(name: str) -> bool:
    parts = name.split("/")
    return parts[0] in _LOCAL or any(part.startswith(".") for part in parts)


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _sum(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    found = size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found, size = zlib.crc32(block, found), size + len(block)
    return [size, found]
