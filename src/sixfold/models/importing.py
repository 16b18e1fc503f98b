"""Finding the user's own code: `package.module:factory`.

The module may be installed, or be a .py file or a package in the current directory, which is
searched first, as `python -m` does; a path such as `nets/mine.py:factory` is taken too, and so is
an object that was packed into a file (`sixfold.models.packed`). The factory is a function or a
class, perhaps nested as in `Class.make`. The search path is put back, and what was imported before
of a project that was edited since is imported afresh (`sixfold.models.loaded`): every rank finds
the same factory from the same text.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from sixfold.core.errors import UserError
from sixfold.core.installed import is_installed
from sixfold.models.loaded import Used, forget_edited, noting
from sixfold.models.packed import is_packed, load_packed, read_header
from sixfold.models.user_traceback import one_line


@contextmanager
def importable(name: str) -> Iterator[Used]:
    """While open, what lies beside the file that `name` means can be imported; its use is noted."""
    places = places_of(name)
    before = list(sys.path)
    sys.path[:0] = dict.fromkeys(str(directory) for directory, _ in places)
    importlib.invalidate_caches()
    try:
        with noting(places) as used:
            yield used
    finally:
        sys.path[:] = before


def find(name: str) -> Callable[..., Any]:
    """The factory that `name` means; that of a packed network gives a copy, weights and all."""
    if is_packed(name) and read_header(name).is_network:
        _forget_edited(name)
        return PackedNetwork(name)
    found = find_object(name)
    if isinstance(found, nn.Module):
        raise UserError(
            f"--model {name} is a network that is already built: name a function or class that "
            "builds it, so that every rank can start from the same seed"
        )
    if not callable(found):
        raise UserError(f"--model {name} is a {type(found).__name__}: it cannot be called")
    factory: Callable[..., Any] = found
    return factory


def find_object(name: str, option: str = "--model") -> Any:
    """What `name` means in the user's own code, or holds packed; `option` was given it."""
    if is_packed(name):
        _forget_edited(name)
        with importable(name):
            return load_packed(name, option)
    try:
        _, attribute = _parts(name)
        _forget_edited(name)
        with importable(name):
            found: Any = _module(name)
            for step in attribute.split("."):
                if not hasattr(found, step):
                    public = [known for known in dir(found) if not known.startswith("_")]
                    close = get_close_matches(step, public, n=1)
                    hint = f"; did you mean {close[0]}?" if close else ""
                    owner = getattr(found, "__name__", type(found).__name__)
                    raise UserError(f"--model {name}: {owner} has no {step!r}{hint}")
                found = getattr(found, step)
    except UserError as error:
        raise UserError(line.replace("--model", option, 1) for line in error.problems) from error
    return found


class PackedNetwork:
    """Makes a packed network, with the weights that it was packed with."""

    def __init__(self, name: str) -> None:
        self.__name__ = read_header(name).name
        self._name = name

    def __call__(self) -> Any:
        """The network, a new one by every call."""
        return load_packed(self._name)


def source_files(name: str) -> list[Path]:
    """Every .py file and package's directory that another machine needs, as for `source_file`."""
    if is_packed(name):
        tops = {module.partition(".")[0]: at for module, at in read_header(name).modules.items()}
        found = [source_file(f"{top}:{top}", Path(at)) for top, at in tops.items()]
    else:
        found = [source_file(name)]
    return [file for file in found if file is not None]


def source_file(name: str, folder: Path | None = None) -> Path | None:
    """The .py file, or the package's directory, that another machine needs for this network.

    None for networks of the zoo and for installed modules, which are taken to be installed there
    as well. The user's code is not run. `folder` is looked in first, if it is not the current one.
    """
    if ":" not in name:
        return None
    _parts(name)
    directory, module = place(name)
    top = module.partition(".")[0]
    search = [*([str(folder)] if folder is not None else []), str(directory), *sys.path]
    try:
        spec = PathFinder.find_spec(top, search) or importlib.util.find_spec(top)
    except ValueError:  # of `__main__`, and of modules that were made by hand
        spec = None
    if spec is None:
        raise UserError(_no_module(name, directory, module))
    if spec.submodule_search_locations:
        path = Path(next(iter(spec.submodule_search_locations)))
    elif spec.has_location and spec.origin:
        path = Path(spec.origin)
    else:
        return None
    path = path.resolve()
    return None if is_installed(path) else path


def _parts(name: str) -> tuple[str, str]:
    module, _, attribute = name.rpartition(":")
    steps = module.removesuffix(".py").replace("/", ".").split(".") if module else []
    if not module or not all(step.isidentifier() for step in attribute.split(".")):
        raise UserError(f"--model {name}: write it as package.module:factory")
    if not module.endswith(".py") and not all(step.isidentifier() for step in steps):
        raise UserError(
            f"--model {name}: {module!r} is no module name; write package.module:factory or "
            "path/file.py:factory"
        )
    return module, attribute


def places_of(name: str) -> list[tuple[Path, str]]:
    """Modules of the user's that `name` needs, and for each the directory to search first."""
    if is_packed(name):
        return [(Path(folder), module) for module, folder in read_header(name).modules.items()]
    return [place(name)]


def _forget_edited(name: str) -> None:
    for directory, module in places_of(name):
        forget_edited(directory, module)


def place(name: str) -> tuple[Path, str]:
    """Directory to search first, and the module's name."""
    module, _, _ = name.rpartition(":")
    if module.endswith(".py"):
        path = Path(module)
        return path.parent.resolve(), path.stem
    return Path.cwd(), module


def _module(name: str) -> ModuleType:
    """Import the module of `name`; `importable(name)` must be open."""
    directory, module = place(name)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(_no_module(name, directory, module)) from error
        raise UserError(f"--model {name}: importing {module} raised {one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"--model {name}: importing {module} raised {one_line(error)}") from error
    _refuse_namesake(name, directory, module)
    return imported


def _refuse_namesake(name: str, directory: Path, module: str) -> None:
    """Raise if another module of the same name was imported before the user's file."""
    top = module.partition(".")[0]
    mine = [
        path.resolve()
        for path in (directory / top / "__init__.py", directory / f"{top}.py")
        if path.is_file()
    ]
    other = getattr(sys.modules[top], "__file__", None)
    if mine and (other is None or Path(other).resolve() not in mine):
        raise UserError(
            f"--model {name}: {mine[0]} has the name of another module ({other or 'built in'}) "
            "that is imported already: rename it"
        )


def _no_module(name: str, directory: Path, module: str) -> str:
    file = f"{module.replace('.', '/')}.py"
    return f"--model {name}: no module {module!r}: no {file} in {directory}, and none installed"
