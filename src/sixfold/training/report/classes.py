"""How each class fared: recall with its interval, and which classes are taken for which."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.html.axes import Tick, percent
from sixfold.core.html.json_lines import label, number

MAX_BARS = 40
"""Up to this many classes all are shown as bars; beyond it the worst and the best."""

MAX_NUMBERS = 24
"""Up to this many classes the cells of the confusion matrix hold numbers."""

MAX_CONFUSIONS = 12
"""How many of the most frequent confusions are listed."""

PICTURE_LABELS = 25
"""At most so many rows of a matrix drawn as a picture are named."""

_CORRECT = (31, 111, 196)
_WRONG = (217, 95, 2)
"""Colours (RGB) of the picture of a large matrix: a blue and an orange that all can tell apart."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One class.

    Attributes:
        name: the class.
        images: how many there were.
        correct: how many of them were recognised.
        recall: `correct / images`, or None without images.
        low: lower end of the recall's 95% interval, in percent.
        high: upper end.
        text: recall as text.
    """

    name: str
    images: int
    correct: int
    recall: float | None
    low: float
    high: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of the matrix: its count, its share of the row, and how strongly it is coloured."""

    count: int
    text: str
    strength: float
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A pair of classes that is confused."""

    true: str
    predicted: str
    count: int
    percent: str


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The section on classes.

    Attributes:
        bars: classes to show: all, or the worst ones of many.
        best: the best ones of many.
        every: all classes.
        names: all names, in the order of the matrix.
        cells: rows of the matrix, if it is small enough to hold numbers.
        picture: data URI of the matrix as a picture, if it is larger.
        labels: for the picture: some names and the place of each, in percent from the top.
        counts: for the script, with a picture: rows as [column, count, column, count, ...].
        confusions: the most frequent confusions.
    """

    bars: list[Bar]
    best: list[Bar]
    every: list[Bar]
    names: list[str]
    cells: list[list[Cell]]
    picture: str
    labels: list[Tick]
    counts: list[list[int]]
    confusions: list[Confusion]


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95% interval of a proportion (Wilson 1927), which is right near 0 and 1 too.

    >>> [round(end, 3) for end in wilson(95, 100)]
    [0.888, 0.978]
    """
    if not n:
        return 0.0, 1.0
    z = 1.959964
    p, zz = correct / n, z * z / n
    middle, half = p + zz / 2, z * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return max(0.0, (middle - half) / (1 + zz)), min(1.0, (middle + half) / (1 + zz))


def read_bars(per_class: Any) -> list[Bar]:
    """The entries of `per_class` that make sense."""
    bars = []
    for entry in per_class if isinstance(per_class, list) else []:
        if not isinstance(entry, dict):
            continue
        n, right = number(entry.get("images")), number(entry.get("correct"))
        if not (0 <= right <= n < math.inf):
            continue
        images, correct = int(n), int(right)
        low, high = wilson(correct, images)
        recall = correct / images if images else None
        bars.append(
            Bar(
                name=label(entry.get("name")),
                images=images,
                correct=correct,
                recall=recall,
                low=round(100 * low, 2),
                high=round(100 * high, 2),
                text=percent(recall) if recall is not None else "no images",
            )
        )
    return bars


def read_confusion(value: Any, classes: int) -> NDArray[np.int64] | None:
    """The matrix, if it is one of the right size with counts in it."""
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if matrix.shape != (classes, classes) or not classes:
        return None
    if not np.isfinite(matrix).all() or (matrix < 0).any() or (matrix > 2**53).any():
        return None
    return matrix.astype(np.int64)


def class_section(result: dict[str, Any], notes: list[str]) -> Classes | None:
    """The section, or None if the result says nothing about classes."""
    bars = read_bars(result.get("per_class"))
    if not bars:
        return None
    names = [bar.name for bar in bars]
    matrix = read_confusion(result.get("confusion"), len(bars))
    if matrix is None and "confusion" in result:
        notes.append("The confusion matrix in result.json could not be read.")
    empty = [bar.name for bar in bars if not bar.images]
    if empty:
        some = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
        notes.append(f"Classes without test images: {some}.")
    worst, best = bars, []
    if len(bars) > MAX_BARS:
        order = sorted((b for b in bars if b.recall is not None), key=lambda b: b.recall or 0.0)
        worst, best = order[: MAX_BARS // 2], order[-MAX_BARS // 4 :][::-1]
    small = matrix is not None and len(bars) <= MAX_NUMBERS
    return Classes(
        bars=worst,
        best=best,
        every=bars,
        names=names,
        cells=_cells(matrix) if matrix is not None and small else [],
        picture=_picture(matrix) if matrix is not None and not small else "",
        labels=_labels(names) if matrix is not None and not small else [],
        counts=_sparse(matrix) if matrix is not None and not small else [],
        confusions=_confusions(matrix, names) if matrix is not None else [],
    )


def _rates(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, K) shares of each row; 0 for a class without images."""
    rates: NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return rates


def _strengths(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, K) in [0, 1]: how strongly a cell is coloured.

    Correct cells by their rate. Mistakes by its square root, since most are a few percent that
    would otherwise not be seen, and at least a trace for a single one.
    """
    rates = _rates(matrix)
    strengths = np.where(matrix > 0, np.maximum(np.sqrt(rates), 0.08), 0.0)
    np.fill_diagonal(strengths, np.diagonal(rates))
    return strengths


def _cells(matrix: NDArray[np.int64]) -> list[list[Cell]]:
    rates, strengths = _rates(matrix), _strengths(matrix)
    return [
        [
            Cell(
                count=int(matrix[row, column]),
                text=percent(float(rates[row, column])),
                strength=round(float(strengths[row, column]), 3),
                correct=row == column,
            )
            for column in range(len(matrix))
        ]
        for row in range(len(matrix))
    ]


def _picture(matrix: NDArray[np.int64]) -> str:
    """A PNG with one pixel a cell; strength is opacity, so that it suits any background."""
    from PIL import Image

    strengths = _strengths(matrix)
    pixels = np.zeros((*matrix.shape, 4), np.uint8)
    pixels[..., :3] = _WRONG
    diagonal = np.arange(len(matrix))
    pixels[diagonal, diagonal, :3] = _CORRECT
    pixels[..., 3] = np.round(255 * strengths)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _labels(names: Sequence[str]) -> list[Tick]:
    """Every so-manyth name, at the middle of its row."""
    every = -(-len(names) // PICTURE_LABELS)
    return [
        Tick(round(100 * (k + 0.5) / len(names), 2), names[k]) for k in range(0, len(names), every)
    ]


def _sparse(matrix: NDArray[np.int64]) -> list[list[int]]:
    return [
        [int(v) for column in np.flatnonzero(row) for v in (column, row[column])] for row in matrix
    ]


def _confusions(matrix: NDArray[np.int64], names: Sequence[str]) -> list[Confusion]:
    """The most frequent confusions, by count."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rates = _rates(matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    found = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            found.append(
                Confusion(
                    true=names[row],
                    predicted=names[column],
                    count=int(wrong[row, column]),
                    percent=percent(float(rates[row, column])),
                )
            )
    return found
