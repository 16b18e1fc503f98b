"""Where the C module comes from: this installation, one that is on the host, or what was shipped.

A package that runs from its folder has the module beside it. On a Spark executor it runs from a zip
file, from which compiled code cannot be imported. Then an installation of Sixfold on that host
gives its module, if it is of the same version; else the module that travelled in the zip file is
loaded through memory that has no name in any file system, so nothing is left behind.

A module compiled for another processor would not fail to load: it would kill the process at the
first instruction that is missing. So a module says in its own bytes what it needs (see kernels.c
and needs.inc), and these are read before it is loaded. Without a module torch and NumPy compute the
same bits, but for convolutions (`sixfold.training.native.winograd`, `.conv_weights`).
"""

import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import pkgutil
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sixfold.core.processor import PROCESSOR, processor

VERSION = 4  # of the C module that this package was written for; an older build counts as none
NAME = "sixfold.training.native.kernels"
CHECKSUM = ".sha256"
"""Ending of the file beside a module that travels, with the checksum of its bytes."""

_BUILD = re.compile(rb"sixfold-kernels version=(\d+) needs=([\w,]*);")


class Loaded(NamedTuple):
    """What was found."""

    module: Any  # the C module; None if there is none that can be used here
    origin: str  # "installed", "shipped", or "none: " and the reasons


class _Refused(Exception):  # noqa: N818  a reason, told in `Loaded.origin`
    """Why a module cannot be used here."""


def load() -> Loaded:
    """The first C module that can be used, of those that there are."""
    beside, elsewhere = ("installed", _beside), ("installed", _elsewhere)
    runs_from_folder = Path(__file__).is_file()
    why: list[str] = []
    for origin, find in (beside,) if runs_from_folder else (elsewhere, ("shipped", _shipped)):
        try:
            return Loaded(find(), origin)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, _Refused) as error:
            why.append(str(error))
    return Loaded(None, f"none: {'; '.join(why) or 'the C module was not built'}")


def check_build(code: bytes, has: frozenset[str] | None) -> None:
    """Refuse a module by its bytes if it cannot be used here, before it is loaded.

    `has` is what the processor knows, in Linux's words; None if that cannot be found out.
    """
    build = _BUILD.search(code)
    if build is None:
        raise _Refused("the C module does not say for which processors it was built")
    if int(build[1]) != VERSION:
        raise _Refused(f"the C module has version {int(build[1])}, not {VERSION}")
    needs = {need for need in build[2].decode().split(",") if need}
    if needs and has is None:
        raise _Refused(f"the C module needs {', '.join(sorted(needs))}; {PROCESSOR} is not there")
    if has is not None and not needs <= has:
        raise _Refused(
            f"the C module needs {', '.join(sorted(needs - has))}: not on this processor"
        )


def _file_name() -> str:
    """The module's file, which carries Python's version, the processor's kind and the system."""
    return f"kernels{sysconfig.get_config_var('EXT_SUFFIX')}"


def _checked(module: Any) -> Any:
    if getattr(module, "version", 0) != VERSION:
        raise _Refused(f"{module.__file__} was built for another version: install Sixfold again")
    return module


def _beside() -> Any:
    """The module in this package's folder."""
    return _checked(importlib.import_module(NAME))


def _elsewhere() -> Any:
    """The module of an installation on this host, before which the zip file goes."""
    for entry in sys.path:
        file = Path(entry or ".", "sixfold", "training", "native", _file_name())
        if file.is_file():
            code = file.read_bytes()
            if _BUILD.search(code):  # else it was built here before builds said what they need
                check_build(code, processor())
            return _checked(_load(file))
    raise ModuleNotFoundError(NAME)


def _shipped() -> Any:
    """The module in the zip file from which this package was imported."""
    name = _file_name()
    try:
        code = pkgutil.get_data("sixfold.training.native", name)
        checksum = pkgutil.get_data("sixfold.training.native", name + CHECKSUM)
    except OSError:
        code = checksum = None
    if code is None or checksum is None:
        raise _Refused(f"no {name} came: the launcher has none, or another Python or system")
    if hashlib.sha256(code).hexdigest() != checksum.decode().strip():
        raise _Refused(f"{name} is not what was sent: its checksum differs")
    check_build(code, processor())
    with _nameless(code) as file:
        return _checked(_load(file))


@contextmanager
def _nameless(code: bytes) -> Iterator[Path]:
    """A path to bytes in memory; it ends with the block, what was loaded from it stays."""
    if not hasattr(os, "memfd_create"):
        raise _Refused("a C module that was sent can be loaded on Linux only")
    number = os.memfd_create("sixfold-kernels", os.MFD_CLOEXEC)
    with os.fdopen(number, "wb") as file:
        file.write(code)
        file.flush()
        yield Path(f"/proc/self/fd/{number}")


def _load(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(
        NAME, file, loader=importlib.machinery.ExtensionFileLoader(NAME, str(file))
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
