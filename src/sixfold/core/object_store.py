"""Objects below a URL that fsspec can write: s3://, gs://, abfs://, hdfs://, memory://, ...

An object is written all at once or, where the store cannot promise that, under a name that nobody
reads before a record names it. What the store refuses is one line for people.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.errors import RunError, UserError

TOGETHER = 8
"""Objects that are transferred at a time: one stream of a store is slower than most networks."""

_INSTANCES = threading.Lock()  # fsspec makes instances, and its event loop, without one


def is_url(text: str) -> bool:
    """Whether a place is a URL of a store; ``file://`` is a path.

    >>> is_url("s3://bucket/run"), is_url("runs/a"), is_url("file:///runs/a")
    (True, False, False)
    """
    return "://" in text and not text.startswith("file://")


class StoreError(RunError):
    """The store did not do what was asked."""


class DeniedError(StoreError):
    """The store lets nobody, or not this user, do that."""


@dataclass(frozen=True)
class StoredObject:
    """What a listing says of an object."""

    size: int
    stamp: str  # differs when the object does, where the store tells


class ObjectStore:
    """The objects below one URL, by names relative to it."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        with explained(self.url), _INSTANCES:
            # A listing that was kept would hide what others have written since.
            self._fs, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            self._root = root.rstrip("/")

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    def list(self, under: str = "") -> dict[str, StoredObject]:
        """All objects, or those below a folder, by name."""
        start = self._path(under) if under else self._root
        with explained(self.url):
            try:
                found = self._fs.find(start, detail=True)
            except FileNotFoundError:
                if not self._fs.exists(self._root.split("/")[0]):
                    raise
                return {}
        cut = len(self._root.lstrip("/")) + 1
        return {
            path.lstrip("/")[cut:]: StoredObject(int(info.get("size") or 0), _stamp(info))
            for path, info in found.items()
            if info.get("type") != "directory" and len(path.lstrip("/")) > cut
        }

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes | None:
        """An object's bytes, or those of a range; None if there is no such object."""
        with explained(self.url_of(name)):
            try:
                data: bytes = self._fs.cat_file(self._path(name), start=start, end=stop)
            except FileNotFoundError:
                return None
            return data

    def write(self, name: str, data: bytes) -> None:
        with explained(self.url_of(name)):
            self._fs.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of that name; whether it was written.

        At most one of several writers succeeds on S3, Google Cloud Storage, Azure and in memory;
        elsewhere the store is asked first.
        """
        path = self._path(name)
        with explained(self.url_of(name)):
            if self._fs.exists(path):
                return False
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, TypeError, ValueError):
                self._fs.pipe_file(path, data)
        return True

    def upload(self, files: Mapping[str, Path]) -> None:
        """Write objects from files."""
        self._transfer(self._fs.put_file, {name: (str(files[name]), name) for name in files})

    def download(self, files: Mapping[str, Path]) -> None:
        """Write files from objects; each is there as a whole or not at all."""
        self._transfer(self._get, {name: (name, files[name]) for name in files})

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no concern."""
        paths = [self._path(name) for name in names]
        with explained(self.url):
            for path in paths:
                try:
                    self._fs.rm_file(path)
                except FileNotFoundError:
                    continue

    def _get(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{threading.get_ident()}.tmp")
        try:
            self._fs.get_file(path, str(temporary))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _transfer(self, function: Any, pairs: Mapping[str, tuple[Any, Any]]) -> None:
        down = function == self._get

        def one(name: str) -> None:
            first, second = pairs[name]
            with explained(self.url_of(name)):
                if down:
                    function(self._path(first), second)
                else:
                    function(first, self._path(second))

        with ThreadPoolExecutor(TOGETHER) as pool:
            for _ in pool.map(one, pairs):
                pass

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _stamp(info: Mapping[str, Any]) -> str:
    # Stores differ in how they tell that an object has changed.
    tags = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    return next((str(info[tag]) for tag in tags if info.get(tag)), "")


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what a store raises, which may be anything, into one line."""
    try:
        yield
    except (RunError, UserError, FileExistsError):
        raise
    except ImportError as error:
        raise UserError(f"{url}: {error} (a package for this kind of URL is missing)") from None
    except FileNotFoundError:
        raise DeniedError(f"{url}: there is no such bucket or container: create it") from None
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if text.startswith("Protocol not known"):
            raise UserError(
                f"{url}: {text}: expected a path, or a URL such as s3://, gs://, abfs:// or hdfs://"
            ) from None
        if isinstance(error, PermissionError) or "redentials" in text or "AccessDenied" in text:
            raise DeniedError(
                f"{url}: access is denied ({text}): check the credentials and what they may do"
            ) from None
        raise StoreError(f"{url}: the store does not answer as it should ({text})") from None
