"""A file that a command writes: a path, or a URL at which it is put when it is whole."""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.environment import cache_directory
from sixfold.core.errors import RunError, SixfoldError, UserError
from sixfold.core.files import file_problems, folder_of_parts
from sixfold.core.locks import held
from sixfold.core.object_store import ObjectStore, StoreError, is_url


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """Where a file is written, by ranks in parts and by the launcher as a whole."""

    place: str  # as it is told: a path or a URL
    path: Path  # on this host
    parts: str  # where ranks put their parts, see `part_file`: a folder or a URL

    def collected(self) -> Path:
        """A folder of this host that has the parts of all ranks."""
        if not is_url(self.parts):
            return Path(self.parts)
        store, folder = ObjectStore(self.parts), self.path.parent / "parts"
        store.download({name: folder / name for name in store.list()})
        return folder

    def publish(self) -> None:
        """Put it at its URL, with the file of figures that lies beside it."""
        if is_url(self.place):
            files = (self.path.with_name(f"{self.path.name}.json"), self.path)
            store = ObjectStore(self.place.rpartition("/")[0])
            for file in files:  # whoever sees the file finds its figures
                store.upload({file.name: file})


def checked_place(out: str) -> str:
    """An absolute path, or a URL; a `UserError` if no file can be there."""
    if is_url(out):
        if not out.partition("://")[2].partition("/")[2].rstrip("/") or out.endswith("/"):
            raise UserError(
                f"--out {out}: give the URL of a file, such as s3://bucket/scores.parquet"
            )
        return out
    path = Path(out.removeprefix("file://")).expanduser().absolute()
    if found := file_problems("--out", path):
        raise UserError(found)
    return str(path)


def is_foreign(place: str) -> bool:
    """Whether there is a file without the file of figures that `OutputFile.publish` puts by it."""
    if not is_url(place):
        return Path(place).exists() and not Path(f"{place}.json").exists()
    folder, _, name = place.rpartition("/")
    try:
        store = ObjectStore(folder)
        return store.read(name, 0, 1) is not None and store.read(f"{name}.json", 0, 1) is None
    except StoreError as error:
        raise UserError(f"--out {error}") from None


@contextmanager
def output_file(place: str, *, apart: bool) -> Iterator[OutputFile]:
    """Have the file to oneself while it is written; its parts go, whatever happens.

    Args:
        place: from `checked_place`.
        apart: whether ranks may be on other hosts.
    """
    if not is_url(place):
        path = Path(place)
        with held(path, is_file=True), folder_of_parts(path) as parts:
            yield OutputFile(place=place, path=path, parts=str(parts))
        return
    home, name = cache_directory() / "outputs", place.rpartition("/")[2]
    parts_url = f"{place}.{secrets.token_hex(4)}.parts"
    store = ObjectStore(parts_url)
    try:
        store.write("begun", b"")  # refused here rather than when all is done
        store.delete(["begun"])
    except StoreError as error:
        raise UserError(f"--out {error}") from None
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        (Path(folder) / "parts").mkdir()
        own = parts_url if apart else str(Path(folder) / "parts")
        try:
            yield OutputFile(place=place, path=Path(folder) / name, parts=own)
        finally:
            if apart:
                with suppress(SixfoldError):
                    store.delete(store.list())


@contextmanager
def part_file(parts: str, name: str) -> Iterator[Path]:
    """Where a rank writes a part, which is put where the launcher finds it."""
    if not is_url(parts):
        yield Path(parts) / name
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        yield path
        try:
            ObjectStore(parts).upload({name: path})
        except StoreError as error:
            raise RunError(f"--out {error}") from None
