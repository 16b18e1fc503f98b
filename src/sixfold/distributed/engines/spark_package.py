"""Python code that travels to the executors: this package, and the user's own project.

Both travel as zip files named after their content and shipped once per session, so a worker that
Spark uses again never mistakes one for the other. Compiled code cannot be imported from a zip file:
that of this package is taken out by `training.native.loading` where the executor's machine can run
it; a user's own has to be installed on the executors.
"""

import hashlib
import importlib
import logging
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import sixfold
from sixfold.core.errors import UserError, raise_problems
from sixfold.distributed.engines.spark_project import collect, zip_holding

_logger = logging.getLogger("sixfold")

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time stamp of everything in a zip file: the oldest that the format knows."""

_COMPILED = {".so", ".pyd", ".dylib"}

_LEFT_OUT = {".pyc", ".pyo", *_COMPILED}  # what cannot be imported from a zip file


class Carrier(Protocol):
    """Who brings files to executors: a SparkContext, or a Connect session's artifacts."""

    _temp_dir: Any  # folder for files that must last as long as the session

    @property
    def listFiles(self) -> list[str]:  # noqa: N802 - SparkContext's names
        """What was sent."""
        ...

    def addPyFile(self, path: str) -> None:  # noqa: N802
        """Send a file from which Python may import."""
        ...


def ship(
    context: Carrier, sources: Sequence[Path], report: Callable[[str], object] = lambda _: None
) -> tuple[str, ...]:
    """Send this package and the user's project (`sources`) to all executors, present and future.

    Returns the names of the user's zip files, as `SparkFiles.get` wants them; `report` gets lines
    on what travels.
    """
    members: dict[Path, dict[str, bytes]] = {}
    problems: list[str] = []
    for source in sources:
        if (archive := zip_holding(source)) is not None:  # of the user's own
            if not any(Path(url).name == archive.name for url in context.listFiles):
                _add(context, archive)
            continue
        try:
            project = collect(source)
        except UserError as error:
            problems += error.problems
            continue
        report(project.told())
        for warning in project.warnings():
            _logger.warning("sixfold: warning: %s", warning)
        members[source] = _read(project.root, project.files)
    raise_problems(problems)
    package = Path(next(iter(sixfold.__path__)))
    if (archive := zip_holding(package)) is not None:
        _send(context, "sixfold", _zipped(package, archive))
    else:
        package = package.resolve()
        compiled = package.rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}")  # for this Python
        _send(context, "sixfold", _read(package.parent, [*_files(package), *compiled]))
    return tuple(_send(context, source.stem, found) for source, found in members.items())


def _read(root: Path, files: Iterable[Path]) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def _zipped(package: Path, archive: Path) -> dict[str, bytes]:
    """A package that lies in a zip file."""
    parent = package.parent.relative_to(archive).as_posix().removeprefix(".")
    start = f"{parent}/" if parent else ""
    with zipfile.ZipFile(archive) as zipped:
        return {
            name.removeprefix(start): zipped.read(name)
            for name in zipped.namelist()
            if name.startswith(f"{start}{package.name}/") and not name.endswith(("/", ".pyc"))
        }


def _add(context: Carrier, archive: Path) -> None:
    with import_path_kept():
        context.addPyFile(str(archive))


def _send(context: Carrier, stem: str, members: Mapping[str, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for member, content in sorted(members.items()):
        digest.update(f"{member}\0{len(content)}\0".encode())
        digest.update(content)
    name = f"{stem}-{digest.hexdigest()}.zip"
    if any(Path(url).name == name for url in context.listFiles):
        return name
    # Into Spark's own folder: executors that come later fetch it too, as long as the session lives.
    archive = Path(context._temp_dir, name)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for member, content in sorted(members.items()):
            info = zipfile.ZipInfo(member, _EPOCH)
            info.external_attr = 0o644 << 16
            zipped.writestr(info, content, zipfile.ZIP_DEFLATED)
            if Path(member).suffix in _COMPILED and f"{member}.sha256" not in members:
                info = zipfile.ZipInfo(f"{member}.sha256", _EPOCH)
                zipped.writestr(info, hashlib.sha256(content).hexdigest())
    _add(context, archive)
    return name


def _files(source: Path) -> Iterator[Path]:
    for path in source.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if path.is_file() and not hidden and path.suffix not in _LEFT_OUT:
            yield path


@contextmanager
def import_path_kept() -> Iterator[None]:
    """The search path as it was, at the end; pyspark changes the launcher's."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def importable(archives: Iterable[str]) -> Iterator[None]:
    """In an executor: import from these zip files first, and forget their modules afterwards.

    They are unpacked, since a module may open files next to it, into Spark's own folder, which
    goes with the executor even if this process is killed.
    """
    archives = tuple(archives)
    if not archives:
        yield
        return
    names: set[str] = set()
    with (
        tempfile.TemporaryDirectory(
            prefix="sixfold-code-", dir=Path(archives[0]).parent, ignore_cleanup_errors=True
        ) as folder,
        import_path_kept(),
    ):
        for archive in archives:
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(folder)
                modules = (Path(name) for name in zipped.namelist() if name.endswith(".py"))
                names |= {module.parts[0].removesuffix(".py") for module in modules}
        _forget(names)
        # The zip files themselves are in the search path of all that this application runs.
        sys.path[:] = [folder, *(entry for entry in sys.path if entry not in archives)]
        try:
            yield
        finally:
            _forget(names)


def _forget(names: set[str]) -> None:
    """Drop modules of these names, wherever they are from."""
    for name in list(sys.modules):
        if name.partition(".")[0] in names:
            del sys.modules[name]
    importlib.invalidate_caches()
