"""Figures of scores against scikit-learn's."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from sixfold.training.metrics import multi_label, regression
from sixfold.training.metrics.classes import summarize
from sixfold.training.metrics.scores import auroc, average_precision, calibration_error

RANDOM = np.random.default_rng(0)


def scores(count: int, outputs: int) -> NDArray[np.float64]:
    """Probabilities with ties, (count, outputs)."""
    found = RANDOM.integers(1, 20, (count, outputs)).astype(np.float64)
    found /= found.sum(1, keepdims=True)
    return found


@pytest.mark.parametrize("trial", range(5))
def test_ranking_is_scikit_learns(trial: int) -> None:
    positive = RANDOM.random(50) < 0.2 + trial / 10
    score = np.round(RANDOM.random(50), 1)
    assert auroc(positive, score) == pytest.approx(sklearn.roc_auc_score(positive, score))
    wanted = sklearn.average_precision_score(positive, score)
    assert average_precision(positive, score) == pytest.approx(wanted)


def test_without_both_kinds_there_is_no_ranking() -> None:
    assert auroc(np.ones(3, bool), np.arange(3.0)) is None
    assert average_precision(np.zeros(3, bool), np.arange(3.0)) is None
    assert auroc(np.array([True, False]), np.array([0.5, np.nan])) is None


def test_classes_have_scikit_learns_means() -> None:
    true = RANDOM.integers(0, 4, 200)
    score = scores(200, 5)  # nobody is of the last class, which is predicted all the same
    guess = score.argmax(1)
    found = summarize(true, guess, score.max(1), classes=tuple("abcde"), scores=score)
    wanted = sklearn.precision_recall_fscore_support(
        true, guess, average="macro", zero_division=0.0
    )
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(wanted[:3])
    each = [sklearn.roc_auc_score(true == k, score[:, k]) for k in range(4)]
    assert found["auroc"] == pytest.approx(np.mean(each))


def test_two_classes_have_a_curve_of_the_second() -> None:
    true, score = RANDOM.integers(0, 2, 300), scores(300, 2)
    found = summarize(true, score.argmax(1), score.max(1), classes=("no", "yes"), scores=score)
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(true, score[:, 1]))
    (curve,) = found["precision_recall"]
    precision, recall, _ = sklearn.precision_recall_curve(true, score[:, 1])
    points = set(zip(recall.round(6).tolist(), precision.round(6).tolist(), strict=True))
    assert set(zip(curve["recall"], curve["precision"], strict=True)) <= points
    assert curve["name"] == "yes"


def test_calibration_counts_the_distance_in_each_bin() -> None:
    sure = RANDOM.random(5000)
    found = calibration_error(sure, RANDOM.random(5000) < sure)
    assert found is not None
    assert found < 0.05
    assert calibration_error(sure, np.zeros(5000, bool)) == pytest.approx(sure.mean())


def test_labels_have_scikit_learns_figures() -> None:
    true, score = RANDOM.random((80, 3)) < 0.4, np.round(RANDOM.random((80, 3)), 2)
    found = multi_label.summarize(true.astype(float), score, names=("a", "b", "c"))
    told = score > 0.5
    assert found["test_subset_accuracy"] == sklearn.accuracy_score(true, told)
    wanted = sklearn.average_precision_score(true, score, average="macro")
    assert found["mean_average_precision"] == pytest.approx(wanted)
    assert found["f1"] == pytest.approx(sklearn.f1_score(true, told, average="macro"))
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(true, score, average="macro"))
    assert [row["images"] for row in found["per_label"]] == true.sum(0).tolist()


def test_numbers_have_scikit_learns_figures() -> None:
    target = RANDOM.normal(size=(60, 2)) * [1, 10]
    output = target + RANDOM.normal(size=(60, 2))
    found = regression.summarize(target, output, names=("x", "y"))
    assert found["test_mae"] == pytest.approx(sklearn.mean_absolute_error(target, output))
    assert found["test_rmse"] == pytest.approx(np.sqrt(np.square(target - output).mean()))
    assert found["test_r2"] == pytest.approx(sklearn.r2_score(target, output))
    each = sklearn.r2_score(target, output, multioutput="raw_values")
    assert [row["r2"] for row in found["per_target"]] == pytest.approx(each)
    assert len(found["scatter"][0]["true"]) == 60


def test_what_is_not_finite_has_no_figures() -> None:
    target = np.zeros((3, 1))
    found = regression.summarize(target, np.array([[1.0], [np.nan], [2.0]]), names=("x",))
    assert found["test_mae"] is None
    assert found["scatter"][0]["predicted"][1] is None
    assert regression.summarize(target, target, names=("x",))["test_r2"] is None
