"""Whether the code that a file names is the user's own: the file may be a stranger's.

A weights file names its network's factory, and building the network calls it. So a name that a
file gives is used only if it is of the zoo, or code of the user's own project: a module that lies
in the current directory (and is not installed), did not come in one folder with the file, and
defines the class or function itself; or if it is an object that this user packed on this machine
(`sixfold.models.packed`). Anything else needs the user's word, `--trust-model`. A name that the
user gives with `--model` is not looked at here.
"""

import functools
import inspect
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from torch import nn

from sixfold.core.errors import UserError
from sixfold.core.installed import is_installed
from sixfold.models.config import ZOO
from sixfold.models.importing import find, source_file
from sixfold.models.packed import is_own_file, is_packed, packed_path


def check_origin(model: str, file: Path) -> None:
    """Refuse to run the network that a file names, unless it is the zoo's or the user's own.

    Nothing outside of the project is imported.
    """
    if ":" not in model or model in ZOO:
        return
    project = check_module(model, file)
    if is_packed(model):
        return
    if not _is_own(find(model), project):
        why = "which is no network's class or function that is written there"
        raise _refusal(f"the network {model}", file, why)


def check_module(name: str, file: Path, what: str = "network") -> Path:
    """The project's directory; refuses what is neither of that project nor packed by this user."""
    project = Path.cwd().resolve()
    if is_packed(name):
        if not is_own_file(packed_path(name)):
            raise _refusal(
                f"the {what} {name}", file, "which was not packed by you on this machine"
            )
        return project
    try:
        source = source_file(name)
    except UserError:
        source = None
    if source is None or not _is_within(source, project):
        raise _refusal(f"the {what} {name}", file, f"which is no code of the project in {project}")
    together = Path(os.path.commonpath([source, file.resolve()]))
    if together != project and together.is_relative_to(project):
        why = f"which may have come with it: both lie in {together}"
        raise _refusal(f"the {what} {name}", file, why)
    return project


def _refusal(named: str, file: Path, why: str) -> UserError:
    return UserError(
        f"{file} names {named}, {why}; a file's code may be a stranger's and is not "
        "run: work in your project's directory, or give --trust-model if you trust its writer"
    )


def _is_within(path: Path, project: Path) -> bool:
    packages = {"site-packages", "dist-packages"} & set(path.parts)
    return path.resolve().is_relative_to(project) and not is_installed(path) and not packages


def _is_own(factory: Any, project: Path) -> bool:
    """Whether a class of modules or a function is written in the project, not imported into it."""
    if isinstance(factory, functools.partial):
        return _is_own(factory.func, project)
    factory = inspect.unwrap(factory)
    code = getattr(factory, "__code__", None)
    if isinstance(code, CodeType):
        return _is_within(Path(code.co_filename), project)
    if not isinstance(factory, type) or not issubclass(factory, nn.Module):
        return False
    home = getattr(sys.modules.get(factory.__module__), "__file__", None)
    return home is not None and _is_within(Path(home), project)
