"""Bars, intervals and the confusion matrix."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from sixfold.core.html.page import Matrix, MatrixPicture
from sixfold.core.statistics import wilson
from sixfold.training.report.classes import class_section, read_bars, read_confusion


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (7, 10), (9806, 10_000), (1, 1)])
def test_wilson_equals_scipy(correct: int, n: int) -> None:
    expected = stats.binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_without_images_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def result(matrix: Any) -> dict[str, Any]:
    counts = np.asarray(matrix)
    return {
        "confusion": counts.tolist(),
        "per_class": [
            {"name": f"c{k}", "images": int(row.sum()), "correct": int(row[k])}
            for k, row in enumerate(counts)
        ],
    }


def test_cells_hold_counts_and_shares_of_the_row() -> None:
    section = class_section(result([[8, 2], [0, 0]]), [])
    assert section is not None
    assert isinstance(section.matrix, Matrix)
    cells = [[cell for cell in row if cell] for _, row in section.matrix.rows]
    assert [[cell.text for cell in row] for row in cells] == [["8", "2"], ["0", "0"]]
    assert cells[0][1].detail == "20.0%"
    assert cells[0][0].css == "hit"
    assert cells[0][0].strength == 0.8
    assert cells[0][1].strength == pytest.approx(0.2**0.5, abs=1e-3)
    assert section.confusions is not None
    assert [row[1] for row in section.confusions.rows] == ["2"]


def test_confusions_come_by_count() -> None:
    section = class_section(result([[9, 1, 3], [5, 2, 0], [0, 4, 4]]), [])
    assert section is not None
    assert section.confusions is not None
    pairs = [tuple(row[:2]) for row in section.confusions.rows]
    assert pairs == [("c1 → c0", "5"), ("c2 → c1", "4"), ("c0 → c2", "3"), ("c0 → c1", "1")]


def test_a_large_matrix_is_a_picture_with_one_pixel_a_cell() -> None:
    matrix = np.eye(40, dtype=int) * 7
    matrix[3, 30] = 1
    section = class_section(result(matrix), [])
    assert section is not None
    picture = section.matrix
    assert isinstance(picture, MatrixPicture)
    data = base64.b64decode(picture.uri.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert pixels.shape == (40, 40, 4)
    shown = pixels[..., 3] > 0
    assert (shown == (matrix > 0)).all()
    assert picture.counts[3] == [3, 7, 30, 1]
    assert picture.labels[0].label == "c0"
    assert len(picture.labels) <= 25


@pytest.mark.parametrize(
    "bad", [None, "x", [[1]], [[1, 2], [3]], [[1, -1], [0, 0]], [[1, float("nan")], [0, 0]]]
)
def test_a_malformed_matrix_is_left_out_with_a_note(bad: Any) -> None:
    assert read_confusion(bad, 2) is None
    notes: list[str] = []
    section = class_section(result([[1, 0], [0, 1]]) | {"confusion": bad}, notes)
    assert section is not None
    assert section.matrix is None
    assert notes == ["The confusion matrix in result.json could not be read."]


def test_entries_that_make_no_sense_are_left_out() -> None:
    entries = [
        {"name": "good", "images": 4, "correct": 3},
        {"name": "more right than there are", "images": 4, "correct": 5},
        {"name": "negative", "images": -4, "correct": -5},
        {"name": "endless", "images": float("inf"), "correct": 1},
        "text",
    ]
    assert [bar.name for bar in read_bars(entries)] == ["good"]


def test_of_many_classes_the_worst_and_the_best_are_shown() -> None:
    matrix = np.diag(np.arange(60))
    matrix[np.arange(60), (np.arange(60) + 1) % 60] += 60 - np.arange(60)
    section = class_section(result(matrix), [])
    assert section is not None
    assert [bar.name for bar in section.worst][:2] == ["c0", "c1"]
    assert [bar.name for bar in section.best][:2] == ["c59", "c58"]
    assert len(section.every) == 60
