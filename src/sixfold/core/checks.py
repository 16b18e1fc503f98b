"""Lines about words and values that nobody knows."""

from collections.abc import Iterable

from sixfold.core.naming import meant


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A line that says a name is unknown, with the nearest known ones.

    >>> unknown("model", "lenet6", ["lenet5", "slide"])
    "unknown model 'lenet6': did you mean lenet5? (known: lenet5, slide)"
    """
    known = sorted(known)
    near = meant(name, known)
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {what} {name!r}{hint} (known: {', '.join(known)})"
