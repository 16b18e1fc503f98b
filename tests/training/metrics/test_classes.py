"""Accuracy and its relatives, against scikit-learn and by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from sixfold.training.metrics.classes import (
    MAX_CONFUSION_CLASSES,
    MAX_WORST,
    confusion_matrix,
    summarize,
    worst_mistakes,
)


def names_of(classes: int) -> tuple[str, ...]:
    return tuple(f"class {k}" for k in range(classes))


@given(st.integers(2, 12), st.integers(2, 200), st.integers(0, 2**31))
def test_equals_scikit_learn(classes: int, n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    # Scores, not classes, so that top-5 has an independent reference too.
    scores = random.random((n, classes))
    labels = random.integers(0, classes, n)
    predicted = scores.argmax(axis=1)
    top5 = (scores > scores[np.arange(n), labels][:, None]).sum(axis=1) < 5
    fields = summarize(labels, predicted, scores.max(axis=1), top5, classes=names_of(classes))

    every = list(range(classes))
    assert fields["test_accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    expected = reference.confusion_matrix(labels, predicted, labels=every)
    assert fields["confusion"] == expected.tolist()
    present = np.unique(labels)
    recalls = reference.recall_score(
        labels, predicted, labels=present, average=None, zero_division=0
    )
    assert fields["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    if classes >= 6:
        best = reference.top_k_accuracy_score(labels, scores, k=5, labels=every)
        assert fields["top5_accuracy"] == pytest.approx(best)
    else:
        assert "top5_accuracy" not in fields
    counts = np.bincount(labels, minlength=classes)
    assert [entry["images"] for entry in fields["per_class"]] == counts.tolist()
    assert sum(entry["correct"] for entry in fields["per_class"]) == np.trace(expected)
    assert json.loads(json.dumps(fields)) == fields


def test_balanced_accuracy_leaves_out_classes_without_images() -> None:
    fields = summarize([0, 0, 0, 0, 2], [0, 0, 0, 1, 2], [0.9] * 5, classes=("a", "b", "c"))
    assert fields["test_accuracy"] == 0.8
    assert fields["balanced_accuracy"] == pytest.approx((0.75 + 1.0) / 2)
    assert fields["per_class"][1] == {"name": "b", "images": 0, "correct": 0}


def test_worst_are_the_most_confident_mistakes_and_ties_go_by_index() -> None:
    confidence = np.array([0.5, 0.9, 0.9, 0.99, 0.9])
    labels, predicted = np.zeros(5, np.int64), np.array([1, 1, 1, 0, 1])
    assert worst_mistakes(labels, predicted, confidence).tolist() == [1, 2, 4, 0]
    assert worst_mistakes(labels, predicted, confidence, limit=2).tolist() == [1, 2]


def test_worst_list_is_bounded_and_names_files_and_classes() -> None:
    n = 100
    fields = summarize(
        np.zeros(n, np.int64),
        np.ones(n, np.int64),
        np.linspace(0, 1, n),
        classes=("cat", "dog"),
        names=lambda indices: [f"cat/{index:04d}.jpg" for index in indices],
    )
    assert len(fields["worst"]) == MAX_WORST
    assert fields["worst"][0] == {
        "name": "cat/0099.jpg",
        "index": 99,
        "label": "cat",
        "predicted": "dog",
        "confidence": 1.0,
    }


def test_a_confidence_that_is_no_number_comes_last_and_stays_valid_json() -> None:
    fields = summarize([0, 0], [1, 1], [float("nan"), 0.2], classes=("a", "b"))
    assert [entry["index"] for entry in fields["worst"]] == [1, 0]
    json.dumps(fields, allow_nan=False)


def test_no_images_give_counts_but_no_accuracy() -> None:
    fields = summarize([], [], [], [], classes=names_of(7))
    assert not [key for key in fields if "accuracy" in key]
    assert fields["confusion"] == [[0] * 7] * 7
    assert fields["worst"] == []


def test_many_classes_have_no_confusion_matrix() -> None:
    classes = names_of(MAX_CONFUSION_CLASSES + 1)
    assert "confusion" not in summarize([200], [3], [0.5], classes=classes)
    assert "confusion" in summarize([199], [3], [0.5], classes=classes[:-1])


def test_part_names_the_accuracy() -> None:
    assert "validation_accuracy" in summarize([0], [0], [1.0], classes="a", part="validation")
    assert "accuracy" in summarize([0], [0], [1.0], classes="a", part="")


def test_wrong_arrays_are_refused_with_the_values() -> None:
    with pytest.raises(ValueError, match=r"predicted\[1\] is class 2, but there are 2 classes"):
        summarize([0, 1], [0, 2], [1, 1], classes=("a", "b"))
    with pytest.raises(ValueError, match=r"labels\[0\] is class -1"):
        summarize([-1], [0], [1], classes=("a", "b"))
    with pytest.raises(ValueError, match=r"confidence has shape \(1,\), labels have \(2,\)"):
        summarize([0, 1], [0, 1], [1], classes=("a", "b"))
    with pytest.raises(ValueError, match="must be integers"):
        summarize([0.5], [0], [1], classes=("a",))


def test_confusion_counts_rows_as_true_classes() -> None:
    assert confusion_matrix(np.array([2, 2]), np.array([0, 2]), 3)[2].tolist() == [1, 0, 1]


def test_importing_brings_neither_torch_nor_scikit_learn() -> None:
    program = (
        "import sys, sixfold.training.metrics.classes; "
        "print(sorted({'torch', 'sklearn', 'scipy', 'pyspark'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
