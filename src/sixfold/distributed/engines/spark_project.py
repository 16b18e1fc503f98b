"""Which files of the user's project executors need: modules, and data files beside them.

A module of the user's own is followed through what it imports (`sixfold.core.project_imports`) to
the modules and packages that lie beside it; of names that are put together while it runs, as
`f"parts.{kind}"`, all that begin so are taken. Packages travel whole; of single modules the small
files and folders of data beside them travel too, since a network may open them; larger ones if a
text in its code has their name. What is too large stays behind, which is written to the run's log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.core.project_imports import ImportWalk

LARGEST_DATA_BYTES = 16 << 20
"""Of a data file, or a folder of them: anchors, class names, small weights."""

LARGEST_NAMED_BYTES = 256 << 20
"""Of a file or folder whose name stands in the code."""

LARGEST_FOLDER_FILES = 500
"""Of a folder of data that travels; one with more is a data set."""

_NOT_DATA = {".pyc", ".pyo", ".so", ".pyd", ".dylib", ".py"}
"""Compiled code is for the machine on which it was made; modules travel if they are imported."""

_FOREIGN_MARKS = ("pyvenv.cfg", "attempt", "log.txt", "__init__.py", "CACHEDIR.TAG")
"""Files that say that a folder is an environment, a run, a package or a cache."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """Files that travel."""

    root: Path  # the folder that is searched for modules
    files: tuple[Path, ...]  # paths below it
    # files and folders beside the modules that stay behind, with the reason
    left_out: dict[Path, str]
    missed: tuple[Path, ...]  # those of them whose names stand in the code

    def told(self) -> str:
        """What travels and what does not, in one line."""
        size = sum(path.stat().st_size for path in self.files)
        names = ", ".join(str(path.relative_to(self.root)) for path in self.files[:20])
        more = f" and {len(self.files) - 20} more" if len(self.files) > 20 else ""
        text = f"sent to the executors from {self.root}: {names}{more} ({size:,} bytes)"
        left = [f"{path.relative_to(self.root)} ({why})" for path, why in self.left_out.items()]
        return text + (f"; left behind: {', '.join(left[:20])}" if left else "")

    def warnings(self) -> list[str]:
        """What the code seems to need and does not get, each with what to do."""
        return [
            f"the network's code names {path.name!r}, which is too large to send to the executors "
            f"({self.left_out[path]}): put it where all of them can read it, and name it by that "
            "absolute path"
            for path in self.missed
        ]


def collect(source: Path) -> Project:
    """What a module or package of the user's own needs to run elsewhere.

    Args:
        source: a .py file, or the folder of a package.

    Raises:
        UserError: if `source` is neither.
    """
    source = source.resolve()
    if not source.is_dir() and not (source.suffix == ".py" and source.is_file()):
        raise UserError(
            f"cannot send {source} to the executors: expected a .py file, or the folder of a "
            "package"
        )
    root = source.parent
    modules, texts = _reached(root, source)
    words = {part for text in texts for part in Path(text).parts}
    files = {path for module in modules for path in _whole(module)}
    left_out: dict[Path, str] = {}
    if any(module.is_file() for module in modules):
        data, left_out = _data_beside(root, words)
        files |= data
    missed = tuple(path for path in left_out if path.name in words)
    return Project(root=root, files=tuple(sorted(files)), left_out=left_out, missed=missed)


def _reached(root: Path, source: Path) -> tuple[set[Path], set[str]]:
    """Modules and packages in `root` that code imports, and all texts that stand in that code."""
    walk = ImportWalk(root)
    reached, waiting = set[Path](), {source}
    while waiting:
        reached |= waiting
        for file in (file for module in waiting for file in _whole(module)):
            if file.suffix == ".py":  # also those that nothing imports: a package travels whole
                walk.read(file, ".".join(file.relative_to(root).parent.parts))
        entries = {root / file.relative_to(root).parts[0] for file in _modules_in(root, walk)}
        waiting = entries - reached
    return reached, walk.texts


def _modules_in(root: Path, walk: ImportWalk) -> Iterator[Path]:
    """Modules in `root` that a walk has reached, and those that names made later may mean."""
    yield from (file for file in walk.modules.values() if file.is_relative_to(root))
    for beginning in walk.beginnings:
        top, dot, _ = beginning.partition(".")
        if dot and top and next((root / top).glob("**/*.py"), None) is not None:
            yield root / top
        elif top.isidentifier() and not dot:
            yield from root.glob(f"{top}*.py")


def _whole(module: Path) -> Iterator[Path]:
    """The file of a module, or all files of a package that can travel."""
    if module.is_file():
        yield module
        return
    for path in module.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(module).parts)
        if path.is_file() and not hidden and (path.suffix == ".py" or path.suffix not in _NOT_DATA):
            yield path


def _data_beside(root: Path, words: set[str]) -> tuple[set[Path], dict[Path, str]]:
    """Data files and folders in `root` that travel, and those that are too large for it."""
    found, left_out, total_bytes = set[Path](), dict[Path, str](), 0
    for entry in sorted(root.iterdir(), key=lambda entry: (entry.name not in words, entry)):
        if entry.name.startswith(("_", ".")):
            continue
        files = _data_in(entry)
        size_bytes = sum(path.stat().st_size for path in files)
        most_bytes = LARGEST_NAMED_BYTES if entry.name in words else LARGEST_DATA_BYTES
        if len(files) > LARGEST_FOLDER_FILES:
            left_out[entry] = f"more than {LARGEST_FOLDER_FILES} files"
        elif size_bytes > most_bytes:
            left_out[entry] = f"{size_bytes:,} bytes, of at most {most_bytes:,}"
        elif total_bytes + size_bytes > LARGEST_NAMED_BYTES:
            left_out[entry] = f"more than {LARGEST_NAMED_BYTES:,} bytes in all"
        else:
            found.update(files)
            total_bytes += size_bytes
    return found, left_out


def _data_in(entry: Path) -> list[Path]:
    """A data file, or those of a folder; at most one more than may travel."""
    if entry.is_file():
        return [] if entry.suffix in _NOT_DATA else [entry]
    if not entry.is_dir() or any((entry / mark).exists() for mark in _FOREIGN_MARKS):
        return []
    files: list[Path] = []
    for path in entry.rglob("*"):
        if path.name in _FOREIGN_MARKS:  # a folder of runs or of environments
            return []
        if path.is_file() and path.suffix not in _NOT_DATA:
            files.append(path)
        if len(files) > LARGEST_FOLDER_FILES:
            break
    return files


def zip_holding(path: Path) -> Path | None:
    """The zip file in which a package or module lies; None if in none."""
    return next((parent for parent in path.parents if parent.is_file()), None)
