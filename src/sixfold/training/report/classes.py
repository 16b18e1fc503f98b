"""How each class fared: recall with its interval, and which classes are taken for which."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.html.axes import Tick, percent
from sixfold.core.html.json_lines import label, number
from sixfold.core.html.page import (
    Bar,
    Bars,
    Card,
    Cell,
    Fold,
    Matrix,
    MatrixPicture,
    Section,
    Table,
    Text,
)
from sixfold.core.html.pictures import png
from sixfold.core.statistics import wilson

MAX_BARS = 40  # up to this many classes all are shown as bars; beyond it the worst and the best
MAX_NUMBERS = 24  # up to this many classes the cells of the confusion matrix hold numbers
MAX_CONFUSIONS = 12  # how many of the most frequent confusions are listed
PICTURE_LABELS = 25  # at most so many rows of a matrix drawn as a picture are named
_CORRECT = (31, 111, 196)
_WRONG = (217, 95, 2)
"""Colours (RGB) of the picture of a large matrix: a blue and an orange that all can tell apart."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How one class fared."""

    name: str
    images: int
    correct: int
    recall: float | None  # None without images
    low: float  # ends of its 95% interval
    high: float

    def bar(self) -> Bar:
        """As it is drawn."""
        if self.recall is None:
            return Bar(name=self.name, parts=(), text="no images")
        return Bar(
            name=self.name,
            parts=((self.recall, "length"),),
            text=percent(self.recall),
            detail=f"{self.correct:,} of {self.images:,}",
            span=(self.low, self.high),
        )


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The section on classes."""

    worst: list[Recall]  # all, where there are not many
    best: list[Recall]  # of many
    every: list[Recall]
    matrix: Matrix | MatrixPicture | None
    confusions: Table | None  # the most frequent ones

    def section(self) -> Section:
        """As the page shows it."""

        def bars(title: str, classes: Sequence[Recall]) -> Bars:
            return Bars(title=title, bars=[one.bar() for one in classes], most=1.0)

        blocks: list[Any] = [bars("Accuracy by class", self.worst)]
        if self.best:
            blocks = [
                bars(f"The {len(self.worst)} worst of {len(self.every)} classes", self.worst),
                bars(f"The {len(self.best)} best", self.best),
                Fold(summary="All classes", blocks=[bars("", self.every)]),
            ]
        if self.confusions and len(self.every) > 3:
            blocks.append(self.confusions)
        cards = [Card(blocks=blocks)]
        if self.matrix:
            legend = Text(
                lines=[
                    "Rows are true, columns predicted classes; colour is by the share of the row, "
                    "blue where the class is right, orange where it is wrong."
                ],
                css="legend",
            )
            cards.append(Card(blocks=[self.matrix, legend]))
        return Section(
            id="classes",
            title="Classes",
            lead="Bars show the share of a class's test images that were recognised; the whisker "
            "is its 95% interval.",
            css="grid",
            blocks=cards,
        )


def read_bars(per_class: Any) -> list[Recall]:
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
        bars.append(
            Recall(
                name=label(entry.get("name")),
                images=images,
                correct=correct,
                recall=correct / images if images else None,
                low=low,
                high=high,
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
    draw = _matrix if len(bars) <= MAX_NUMBERS else _picture
    return Classes(
        worst=worst,
        best=best,
        every=bars,
        matrix=None if matrix is None else draw(matrix, names),
        confusions=None if matrix is None else _confusions(matrix, names),
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


def _matrix(matrix: NDArray[np.int64], names: Sequence[str]) -> Matrix:
    rates, strengths = _rates(matrix), _strengths(matrix)
    n = len(names)
    rows = []
    for row, true in enumerate(names):
        cells = [
            Cell(
                text=str(matrix[row, k]),
                detail=percent(float(rates[row, k])),
                strength=round(float(strengths[row, k]), 3),
                css="hit" if row == k else "miss" if matrix[row, k] else "none",
                title=f"{true} → {predicted}: {matrix[row, k]} ({percent(float(rates[row, k]))})",
            )
            for k, predicted in enumerate(names)
        ]
        rows.append((true, cells))
    size = "few" if n <= 5 else "many" if n > 12 else ""
    return Matrix(
        title="Confusion matrix",
        columns=names,
        rows=rows,
        corner=("true ↓", "predicted →"),
        css=f"{size}{' turned' if n > 5 else ''}",
    )


def _picture(matrix: NDArray[np.int64], names: Sequence[str]) -> MatrixPicture:
    """A PNG with one pixel a cell; strength is opacity, so that it suits any background."""
    from PIL import Image

    strengths = _strengths(matrix)
    pixels = np.zeros((*matrix.shape, 4), np.uint8)
    pixels[..., :3] = _WRONG
    diagonal = np.arange(len(matrix))
    pixels[diagonal, diagonal, :3] = _CORRECT
    pixels[..., 3] = np.round(255 * strengths)
    return MatrixPicture(
        title="Confusion matrix",
        uri=png(Image.fromarray(pixels, "RGBA")),
        names=names,
        labels=_labels(names),
        counts=_sparse(matrix),
    )


def _labels(names: Sequence[str]) -> list[Tick]:
    every = -(-len(names) // PICTURE_LABELS)
    return [
        Tick(round(100 * (k + 0.5) / len(names), 2), names[k]) for k in range(0, len(names), every)
    ]


def _sparse(matrix: NDArray[np.int64]) -> list[list[int]]:
    return [
        [int(v) for column in np.flatnonzero(row) for v in (column, row[column])] for row in matrix
    ]


def _confusions(matrix: NDArray[np.int64], names: Sequence[str]) -> Table | None:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rates = _rates(matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    rows = [
        (
            f"{names[row]} → {names[column]}",
            f"{wrong[row, column]:,}",
            percent(float(rates[row, column])),
        )
        for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[row, column]
    ]
    return Table(title="Most frequent confusions", rows=rows) if rows else None
