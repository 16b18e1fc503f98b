"""Columns of numbers from files of JSON lines that may be long, cut short or damaged.

What is in a run directory is not trusted: a line that is no JSON object with a step is skipped
and counted, a field that is no number becomes NaN.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.files import parse_json_lines

_BATCH = 4096  # lines parsed by one call of the JSON parser, which is twice as fast as one by one

_UNSHOWABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_LARGEST = 1e100
"""No figure of a run is larger, and sums and ratios of smaller ones cannot overflow."""

_MAX_LABEL = 300
_PIECES = 256  # into how many evenly spaced pieces the sample of a long file is cut


def number(value: Any) -> float:
    """The value as a float; NaN unless it is a number, infinite beyond what any figure can be.

    >>> number(3), number("3"), number(True), number(10**400), number(-1e200)
    (3.0, nan, nan, inf, -inf)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return math.nan
    if abs(value) < _LARGEST:
        return float(value) if abs(value) > 1 / _LARGEST else 0.0
    return math.inf if value > 0 else -math.inf


def clean(text: str) -> str:
    r"""The text without what a browser cannot show, or would show as something else.

    Control characters, halves of surrogates, and the marks that turn the direction of writing
    (and could make one name look like another) become replacement characters.

    >>> clean("a\x07b")
    'a\ufffdb'
    """
    return _UNSHOWABLE.sub("\ufffd", text)


def label(value: Any) -> str:
    """A name or a figure from a file as showable text of bearable length.

    >>> label(None), label(3), len(label("x" * 10**6))
    ('', '3', 300)
    """
    if value is None or isinstance(value, dict | list):
        return ""
    text = str(value)
    return clean(text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "\u2026")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers by name."""

    # name -> (n,), NaN where a line did not say; sorted by `step`, and of several lines for one
    # step only the last (a resumed run repeats some)
    columns: dict[str, NDArray[np.float64]]
    skipped: int = 0  # lines that could not be used
    sampled: float = 1.0  # share of the file that was read

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["step"])


def tabulate(rows: Sequence[Sequence[float]], names: Sequence[str], **facts: Any) -> Table:
    """A table from rows of numbers in the order of the file; names[0] is "step"."""
    array = np.asarray(rows, dtype=np.float64).reshape(-1, len(names))
    # np.unique keeps the first of equals, so look from the end: the last line of a step counts.
    _, last = np.unique(array[::-1, 0], return_index=True)
    array = array[len(array) - 1 - last]
    return Table(columns={name: array[:, k] for k, name in enumerate(names)}, **facts)


def read_table(path: Path, names: Sequence[str], *, limit_bytes: int) -> Table:
    """Read columns of one kind of line; of a file longer than the limit an even sample.

    `names[0]` is "step"; lines without it are skipped.
    """
    rows: list[list[float]] = []
    skipped = 0
    for lines in _batches(path, limit_bytes):
        objects, bad = parse_json_lines(lines)
        skipped += bad
        for entry in objects:
            row = [number(entry.get(name)) for name in names]
            if math.isfinite(row[0]):
                rows.append(row)
            else:
                skipped += 1
    sampled = min(1.0, limit_bytes / max(1, path.stat().st_size))
    return tabulate(rows, names, skipped=skipped, sampled=sampled)


def batches(path: Path) -> Iterator[list[str]]:
    """The lines of a whole file, a few thousand at a time."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        while lines := file.readlines(_BATCH * 200):
            yield lines


def _batches(path: Path, limit_bytes: int) -> Iterator[list[str]]:
    size = path.stat().st_size
    if size <= limit_bytes:
        yield from batches(path)
        return
    piece = max(4096, limit_bytes // _PIECES)
    with path.open("rb") as file:
        for start in np.linspace(0, size - piece, max(1, limit_bytes // piece)).astype(int):
            file.seek(int(start))
            text = file.read(piece).decode(errors="replace")
            # The first and last lines of a piece are cut; the file's first line is whole.
            yield text.split("\n")[(1 if start else 0) : -1]
