"""Python code that travels to the executors: this package, and the user's own modules.

Both travel as zip files named after their content and shipped once per session, so a changed
module is another file, and a worker that Spark uses again never mistakes one for the other.

Compiled code cannot be imported from a zip file. That of this package travels all the same, with
its checksum, and `sixfold.native.loading` takes it out where the executor's machine can run it;
a user's own has to be installed on the executors.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyspark import SparkContext

import sixfold
from sixfold.errors import UserError

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time stamp of everything in a zip file: the oldest that the format knows."""

_COMPILED = {".so", ".pyd", ".dylib"}

_LEFT_OUT = {".pyc", ".pyo", *_COMPILED}
"""What cannot be imported from a zip file."""


def ship(context: SparkContext, sources: Sequence[Path]) -> tuple[str, ...]:
    """Send this package and the user's modules to all executors, present and future.

    Args:
        context: of the session; what it has shipped already is not sent again.
        sources: .py files, and folders of packages.

    Returns:
        Names of the user's zip files, as `SparkFiles.get` wants them.

    Raises:
        UserError: naming each source that cannot be imported from.
    """
    problems = [
        f"cannot send {source} to the executors: expected a .py file, or the folder of a package"
        for source in sources
        if not source.is_dir() and not (source.suffix == ".py" and source.is_file())
    ]
    if problems:
        raise UserError(problems)
    package = Path(next(iter(sixfold.__path__))).resolve()
    _send(context, package, [*_files(package), *_compiled(package)])
    return tuple(_send(context, source, _files(source)) for source in map(Path.resolve, sources))


def _send(context: SparkContext, source: Path, found: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    files = sorted(found)
    for path in files:
        digest.update(f"{path.relative_to(source.parent)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    name = f"{source.stem}-{digest.hexdigest()}.zip"
    if any(Path(url).name == name for url in context.listFiles):
        return name
    # Into Spark's own folder: executors that come later fetch it too, as long as the session lives.
    archive = Path(context._temp_dir, name)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in files:
            info = zipfile.ZipInfo(path.relative_to(source.parent).as_posix(), _EPOCH)
            info.external_attr = 0o644 << 16
            zipped.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
            if path.suffix in _COMPILED:
                info = zipfile.ZipInfo(info.filename + ".sha256", _EPOCH)
                zipped.writestr(info, hashlib.sha256(path.read_bytes()).hexdigest())
    with import_path_kept():
        context.addPyFile(str(archive))
    return name


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for path in source.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if path.is_file() and not hidden and path.suffix not in _LEFT_OUT:
            yield path


def _compiled(package: Path) -> Iterator[Path]:
    """Modules of a package that were compiled for the Python that runs here."""
    return package.rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}")


@contextmanager
def import_path_kept() -> Iterator[None]:
    """Undo what pyspark does to the launcher's `sys.path`."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def importable(archives: Iterable[str]) -> Iterator[None]:
    """In an executor: import from these zip files first, and forget their modules afterwards.

    Args:
        archives: paths of zip files.
    """
    archives = tuple(archives)
    _forget(archives)
    path_before = list(sys.path)
    sys.path[:0] = [entry for entry in archives if entry not in sys.path]
    sys.path.sort(key=lambda entry: entry not in archives)  # stable: only they move, to the front
    try:
        yield
    finally:
        sys.path[:] = path_before
        _forget(archives)


def _forget(archives: tuple[str, ...]) -> None:
    """Drop the modules that have the name of something in these files, wherever they are from."""
    names: set[str] = set()
    for archive in archives:
        with zipfile.ZipFile(archive) as zipped:
            names |= {Path(member).parts[0].removesuffix(".py") for member in zipped.namelist()}
    for name in list(sys.modules):
        if name.partition(".")[0] in names:
            del sys.modules[name]
