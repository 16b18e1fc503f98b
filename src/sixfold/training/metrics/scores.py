"""How well scores rank and how well they are calibrated; as scikit-learn defines them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Of the calibration error, as in C. Guo et al., "On calibration of modern neural networks"."""

MOST_POINTS = 101  # of a curve that is drawn
Truth = NDArray[np.bool_]
Scores = NDArray[np.floating[Any]]


def auroc(positive: Truth, score: Scores) -> float | None:
    """Probability that a positive sample scores above a negative one, ties counting half.

    That is the area under the receiver operating characteristic; None if all samples are alike.

    >>> auroc(np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros or not np.isfinite(score).all():
        return None
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mean rank of equal scores, from 1
    total = float(ranks[place][positive].sum())
    return (total - ones * (ones + 1) / 2) / (ones * zeros)


def _precision_recall(positive: Truth, score: Scores) -> tuple[Scores, Scores]:
    """Precision and recall when all samples from each different score on are taken, highest first.

    There must be a positive sample.
    """
    order = np.argsort(-score, kind="stable")
    hits, ranked = np.cumsum(positive[order]), score[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    return hits[last] / (last + 1), hits[last] / hits[-1]


def average_precision(positive: Truth, score: Scores) -> float | None:
    """Mean of the precision over the steps of the recall; None without a positive sample.

    >>> round(average_precision(np.array([0, 0, 1, 1]) > 0, np.array([0.1, 0.4, 0.35, 0.8])), 4)
    0.8333
    """
    if not positive.any() or not np.isfinite(score).all():
        return None
    precision, recall = _precision_recall(positive, score)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def precision_recall_curve(positive: Truth, score: Scores) -> dict[str, list[float]] | None:
    """The curve as plain data, at no more than `MOST_POINTS` points; None without a positive."""
    if not positive.any() or not np.isfinite(score).all():
        return None
    precision, recall = _precision_recall(positive, score)
    kept = np.unique(np.linspace(0, len(recall) - 1, MOST_POINTS).round().astype(np.int64))
    return {
        "recall": [round(float(value), 6) for value in recall[kept]],
        "precision": [round(float(value), 6) for value in precision[kept]],
    }


def calibration_error(confidence: Scores, right: Truth) -> float | None:
    """Expected calibration error: mean distance of confidence and accuracy over equal bins.

    >>> calibration_error(np.array([0.9, 0.9, 0.9, 0.9]), np.array([True, True, True, False]))
    0.15000000000000002
    """
    if not len(right) or not np.isfinite(confidence).all():
        return None
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    gap = np.bincount(bins, confidence, BINS) - np.bincount(bins, right, BINS)
    return float(np.abs(gap).sum() / counts.sum())


def mean_of(values: list[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def macro(
    images: NDArray[np.int64], predicted: NDArray[np.int64], right: NDArray[np.int64]
) -> dict[str, float]:
    """Precision, recall and F1, each the mean over what occurs; 0 where it is 0/0.

    Of each class (K,) so many images, times that it was predicted, and times rightly.
    """
    there = (images > 0) | (predicted > 0)
    if not there.any():
        return {}
    images, predicted, right = images[there], predicted[there], right[there]
    return {
        "precision": float((right / np.maximum(predicted, 1)).mean()),
        "recall": float((right / np.maximum(images, 1)).mean()),
        "f1": float((2 * right / np.maximum(images + predicted, 1)).mean()),
    }
