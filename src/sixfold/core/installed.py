"""Which code is a user's own."""

import functools
import site
import sysconfig
from pathlib import Path


def is_installed(path: Path) -> bool:
    """Whether a file or directory belongs to Python, to an installed package or to Sixfold."""
    # Another environment's folder may be on the search path too.
    if not {"site-packages", "dist-packages"}.isdisjoint(path.resolve().parts):
        return True
    return any(path.resolve().is_relative_to(place) for place in _places())


@functools.cache
def _places() -> tuple[Path, ...]:
    """Where Python, its packages and Sixfold lie."""
    paths = sysconfig.get_paths()
    roots = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots |= {*site.getsitepackages(), site.getusersitepackages()}
    # Resolved, since a virtual environment may be reached through a link.
    return (*(Path(root).resolve() for root in roots), Path(__file__).resolve().parents[1])
