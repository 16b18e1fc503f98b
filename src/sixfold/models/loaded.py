"""What of a user's project this process has imported, and whether the files still say the same.

A notebook trains, its author edits `net.py`, and trains again: Python keeps the module that it has
imported. So modules of the user's own are imported with the hash of the very source that was
compiled, never from a `.pyc` file, and where a file's content is no longer that, the project's
modules are imported afresh. A module that was imported by others, before Sixfold was asked, is
current if its file is older than this process, or if running it apart makes the same.

What a network imports or opens by names that are made while it is built is noted here too.
"""

import contextlib
import functools
import hashlib
import importlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import psutil

from sixfold.core.installed import is_installed
from sixfold.core.project_imports import OF_THE_HOST, ImportWalk
from sixfold.models.identity import Identity
from sixfold.models.observe import is_own

_MARK = "_sixfold_source"
_USED = "_sixfold_used"
_MARGIN_S = 2.0  # Clocks of files and of processes are not alike to the tick


@dataclass
class Used:
    """The user's own files that were used while something was open."""

    modules: dict[str, Path] = field(default_factory=dict)  # that were imported, by name
    files: set[Path] = field(default_factory=set)  # that were opened for reading
    # Those files, of both kinds, that were used only when the network was built.
    late: set[Path] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)  # of the environment, that were read

    def add_classes(self, network: Any) -> None:
        """Take up where the classes of a network's layers are written."""
        for module in network.modules():
            for one in type(module).__mro__:
                self._add(one.__module__)

    def _add(self, name: str) -> None:
        if name not in self.modules and (file := own_file(sys.modules.get(name))) is not None:
            self.modules[name] = file


def own_file(module: Any) -> Path | None:
    """The source file of an imported module, if it is the user's own."""
    text = getattr(module, "__file__", None)
    if getattr(module, "__name__", "__main__") == "__main__" or not isinstance(text, str):
        return None
    file = Path(text).resolve()
    return file if file.suffix == ".py" and file.is_file() and not is_installed(file) else None


def used_by(module: str) -> Used:
    """What an imported module and the networks that it built have used, as far as is known."""
    found = Used()
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if isinstance(noted := getattr(spec, _USED, None), Used):
        found = Used(dict(noted.modules), set(noted.files), set(noted.late), set(noted.variables))
    waiting = [module, *found.modules]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or (file := own_file(sys.modules.get(name))) is None:
            continue
        seen.add(name)
        found.modules[name] = file
        for value in list(vars(sys.modules[name]).values()):
            home = value.__name__ if isinstance(value, ModuleType) else _home(value)
            waiting.append(home)
    return found


def _home(value: object) -> str:
    home = getattr(value, "__module__", None) if isinstance(value, type) or callable(value) else ""
    return home if isinstance(home, str) else ""


def forget_edited(directory: Path, module: str) -> None:
    """Drop what was imported of a module's project if any of its files has changed since.

    The module is about to be imported; `directory` is searched first.
    """
    walk = ImportWalk(directory)
    walk.follow(module)
    known = {**used_by(module).modules, **walk.modules}
    loaded = {name: path for name, path in known.items() if name in sys.modules}
    if any(_is_other(sys.modules[name], path) for name, path in loaded.items()):
        for name in loaded:
            del sys.modules[name]
        importlib.invalidate_caches()


def _is_other(module: ModuleType, file: Path) -> bool:
    """Whether a module may have been made from anything but what is in the file now."""
    if not file.is_file() or file.suffix != ".py":
        return False
    if own_file(module) != file:
        return own_file(module) is not None
    mark: str | None = getattr(module.__spec__, _MARK, None)
    if mark is not None:
        return mark != hashlib.sha256(file.read_bytes()).hexdigest()
    # ctime: unlike the time of a change it is not put back by copying or unpacking.
    began: float = psutil.Process().create_time()
    return file.stat().st_ctime > began - _MARGIN_S and not is_as_written(module, file)


def is_as_written(module: ModuleType, file: Path) -> bool:
    """Whether running a file's source apart makes what the module holds that was imported of it."""
    name = module.__name__
    inside = getattr(module, "__path__", None)
    spec = spec_from_file_location(name, file, submodule_search_locations=inside)
    if spec is None:
        return False
    loader = spec.loader = _SourceLoader(name, str(file), spec)
    other = module_from_spec(spec)
    try:
        sys.modules[name] = other  # dataclasses look there
        loader.exec_module(other)
        # While neither is found under the name, both are compared by content.
        del sys.modules[name]
        return _content(module) == _content(other)
    except (Exception, SystemExit):
        return False
    finally:
        sys.modules[name] = module


def _content(module: ModuleType) -> str:
    inner = f"{module.__name__}."
    held = {
        name: value
        for name, value in sorted(vars(module).items())
        if not name.startswith("__")
        and not (isinstance(value, ModuleType) and value.__name__.startswith(inner))
    }
    return Identity(held).digest


@contextmanager
def noting(places: Sequence[tuple[Path, str]]) -> Iterator[Used]:
    """While open, modules of the user's own are imported from their source, and noted.

    What is opened in `places` (directories and modules of the project) or in the current directory
    is noted too, and everything for each of the modules.
    """
    finder, before = _Finder(), {module for _, module in places if module in sys.modules}
    path_finder = [n for n, one in enumerate(sys.meta_path) if one is PathFinder]
    sys.meta_path.insert(path_finder[0] if path_finder else len(sys.meta_path), finder)
    try:
        folders = [*(directory for directory, _ in places), Path.cwd()]
        with _listening(finder.used.files, folders), _asked(finder.used.variables):
            yield finder.used
    finally:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(finder)
        for _, module in places:
            _note(module, finder.used, late=module in before)


def _note(module: str, found: Used, *, late: bool) -> None:
    """Keep with a module what it has used, as long as it is not imported anew."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if spec is None or own_file(sys.modules[module]) is None:
        return
    used: Used = vars(spec).setdefault(_USED, Used())
    files = {*found.modules.values(), *found.files}
    if late:
        used.late |= files - {*used.modules.values(), *used.files}
    else:
        used.late -= files
    used.modules |= found.modules
    used.files |= found.files
    used.variables |= found.variables


class _Finder:
    """Finds what Python would, and has the user's own modules loaded by `_SourceLoader`."""

    def __init__(self) -> None:
        self.used = Used()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None or type(spec.loader) is not SourceFileLoader:
            return None
        file = Path(spec.origin)
        if is_installed(file):
            return None
        spec.loader = _SourceLoader(name, spec.origin, spec)
        self.used.modules[name] = file.resolve()
        return spec


class _SourceLoader(SourceFileLoader):
    """Compiles the source, whatever lies in `__pycache__`, and notes its hash."""

    def __init__(self, name: str, path: str, spec: ModuleSpec) -> None:
        super().__init__(name, path)
        self._notes: dict[str, Any] = vars(spec)

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  its own module
        """The code, compiled anew: a `.pyc` counts as current by size and second of its source."""
        source = self.get_data(self.path)
        self._notes[_MARK] = hashlib.sha256(source).hexdigest()
        code: CodeType = self.source_to_code(source, self.path)
        return code


@contextmanager
def _asked(variables: set[str]) -> Iterator[None]:
    """While open, note the variables of the environment that the user's code reads in this thread.

    Not those of whoever takes the whole environment (`dict(os.environ)`).
    """
    environ: Any = os.environ
    encode, thread = environ.encodekey, threading.get_ident()
    read: dict[Any, set[str]] = {}  # by the place in the code

    def noted(name: Any) -> Any:
        place = _reader(sys._getframe(1)) if threading.get_ident() == thread else None
        if place is not None:
            read.setdefault(place, set()).add(name)
        return encode(name)

    environ.encodekey = noted
    try:
        yield
    finally:
        environ.encodekey = encode
        for names in read.values():
            if not names.issuperset(os.environ):
                variables |= names - OF_THE_HOST


def _reader(frame: FrameType | None) -> tuple[CodeType, int] | None:
    """Where the user's code reads a variable; None if others do, or if it is set."""
    if frame is None or frame.f_code.co_name != "__getitem__":
        return None
    while frame is not None and frame.f_globals.get("__name__") in ("os", "collections.abc"):
        frame = frame.f_back
    if frame is None or not is_own(str(frame.f_globals.get("__name__"))):
        return None
    return frame.f_code, frame.f_lasti


_ears = threading.local()


@contextmanager
def _listening(files: set[Path], folders: Sequence[Path]) -> Iterator[None]:
    """While open, note the files below some folders that this thread opens for reading only."""
    _have_hook()
    outer: dict[str, bool] | None = getattr(_ears, "heard", None)
    _ears.heard = heard = dict[str, bool]()
    try:
        yield
    finally:
        _ears.heard = outer
        if outer is not None:
            outer.update(heard)
        for text, only_read in heard.items():
            file = Path(text).resolve()
            below = [file.relative_to(one) for one in folders if file.is_relative_to(one)]
            hidden = any(part.startswith((".", "__")) for one in below for part in one.parts)
            if only_read and below and not hidden and file.is_file() and not is_installed(file):
                files.add(file)


@functools.cache
def _have_hook() -> None:
    """Install the hook, once for a process: Python never takes one away."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    heard: dict[str, bool] | None = getattr(_ears, "heard", None)
    if heard is None:
        return
    path, mode, flags = arguments
    if isinstance(path, str):
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) or bool(set(mode or "") & set("wax+"))
        heard[path] = heard.get(path, True) and not writes
