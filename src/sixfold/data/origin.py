"""Whether data elsewhere that a run's settings name may be opened: the run may be a stranger's.

A URL, or a name of Hugging Face, that the user has given is noted in the cache, by a hash; so a run
of one's own is evaluated or resumed without giving its data again. Opening another one would tell
its owner who reads.
"""

import hashlib
from pathlib import Path

from sixfold.core.environment import cache_directory
from sixfold.data.paths import is_url

_GIVEN: set[str] = set()  # Of this process: the cache may not be writable


def note_given(spec: str) -> None:
    """Note that the user has named this data, if it is elsewhere."""
    if not _is_elsewhere(spec):
        return
    _GIVEN.add(spec)
    try:
        mark = _mark(spec)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:  # then it has to be given again
        pass


def origin_problems(spec: str, file: Path, is_vouched: bool = False) -> list[str]:
    """Why data that only a run's `file` names is not opened; empty if it may be.

    Args:
        spec: of the data.
        file: that names it.
        is_vouched: whether the user has named it too, or trusts the run.
    """
    if is_vouched or not _is_elsewhere(spec) or spec in _GIVEN or _mark(spec).exists():
        return []
    kind = "a data set of Hugging Face" if spec.startswith("hf:") else "a URL"
    return [
        f"{file} names the data {spec}, {kind} that you have not given on this machine; the run "
        "may be a stranger's, so it is not opened: give it with --data if you mean it, or "
        "--trust-model"
    ]


def _is_elsewhere(spec: str) -> bool:
    kind, _, where = spec.partition(":")
    return kind == "hf" or (is_url(where) and not where.startswith("file://"))


def _mark(spec: str) -> Path:
    return cache_directory() / "urls" / hashlib.sha256(spec.encode()).hexdigest()
