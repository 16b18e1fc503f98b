"""Where in the user's own code an exception was raised, in one line."""

from __future__ import annotations

import site
import sysconfig
from pathlib import Path


def one_line(error: BaseException) -> str:
    r"""An exception in one line: type, first line of its text, and where it was raised.

    The place is the innermost frame that is neither Sixfold's nor an installed package's.

    >>> one_line(ValueError("no\nmore"))
    'ValueError: no'
    """
    text = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    if isinstance(error, SyntaxError):  # its text has the place
        return line
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_file() and not is_installed(file):
            place = f" ({file.name} line {trace.tb_lineno})"
        trace = trace.tb_next
    return line + place


def is_installed(path: Path) -> bool:
    """Whether a file or directory belongs to Python, to an installed package or to Sixfold."""
    # Another environment's folder may be on the search path too.
    if not {"site-packages", "dist-packages"}.isdisjoint(path.resolve().parts):
        return True
    paths = sysconfig.get_paths()
    roots = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots |= {*site.getsitepackages(), site.getusersitepackages()}
    # Resolved, since a virtual environment may be reached through a link.
    places = [*(Path(root).resolve() for root in roots), Path(__file__).resolve().parents[1]]
    found = path.resolve()
    # Environments may borrow the packages of others.
    borrowed = not {"site-packages", "dist-packages"}.isdisjoint(found.parts)
    return borrowed or any(found.is_relative_to(place) for place in places)
