"""Finding the user's own code: `package.module:factory`.

The module may be installed, or be a .py file or a package in the current directory, which is
searched first, as `python -m` does; a path such as `nets/mine.py:factory` is taken too. The
factory is a function or a class, perhaps nested as in `Class.make`. Nothing is remembered between
calls, and the search path is put back: every rank finds the same factory from the same text.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from sixfold.core.errors import UserError
from sixfold.models.user_traceback import is_installed, one_line


@contextmanager
def importable(name: str) -> Iterator[None]:
    """While open, code beside the file that `package.module:factory` means can be imported."""
    directory, _ = place(name)
    before = list(sys.path)
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def find(name: str) -> Callable[..., Any]:
    """The factory that `package.module:factory` or `path/file.py:factory` means."""
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
    """What `name` means in the user's own code; `option` was given it."""
    try:
        _, attribute = _parts(name)
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


def source_file(name: str) -> Path | None:
    """The .py file, or the package's directory, that another machine needs for this network.

    None for networks of the zoo and for installed modules, which are taken to be installed there
    as well. The user's code is not run.
    """
    if ":" not in name:
        return None
    _parts(name)
    directory, module = place(name)
    top = module.partition(".")[0]
    with importable(name):
        spec = importlib.util.find_spec(top)
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
    """Module and attribute of `module:attribute`."""
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
    """What was looked for, and where."""
    file = f"{module.replace('.', '/')}.py"
    return f"--model {name}: no module {module!r}: no {file} in {directory}, and none installed"
