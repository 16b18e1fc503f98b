"""How good predictions are: accuracy, per class, confusion, and the most confident mistakes.

Everything is computed from small arrays with one entry per image, so that ranks need to gather
nothing larger. Needs NumPy only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sixfold.training.metrics.scores import (
    auroc,
    calibration_error,
    macro,
    mean_of,
    precision_recall_curve,
)

MAX_CONFUSION_CLASSES = 200
"""Above this many classes the confusion matrix is left out: the file would be mostly zeros."""

MAX_WORST = 32  # how many misclassified images are listed
MIN_TOP5_CLASSES = 6  # top-5 accuracy says something from this many classes on


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Images by true (rows) and predicted class, (K, K), from (N,) numbers of classes each.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def balanced_accuracy(images: NDArray[np.int64], correct: NDArray[np.int64]) -> float:
    """Mean recall over the classes (K,) that have images; NaN if none has.

    >>> balanced_accuracy(np.array([100, 2, 0]), np.array([90, 1, 0]))
    0.7
    """
    present = images > 0
    if not present.any():
        return float("nan")
    return float(np.mean(correct[present] / images[present]))


def worst_mistakes(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    confidence: NDArray[np.float64],
    *,
    limit: int = MAX_WORST,
) -> NDArray[np.int64]:
    """Indices, at most `limit`, of the wrong predictions that were made with the most confidence.

    The most confident comes first, of equals the first; a confidence that is NaN counts as the
    least.

    >>> worst_mistakes(np.array([0, 0, 0]), np.array([0, 1, 1]), np.array([1.0, 0.6, 0.9])).tolist()
    [2, 1]
    """
    wrong = np.flatnonzero(labels != predicted)
    order = np.argsort(-np.nan_to_num(confidence[wrong], nan=-np.inf), kind="stable")
    return wrong[order[:limit]].astype(np.int64)


def summarize(
    labels: ArrayLike,
    predicted: ArrayLike,
    confidence: ArrayLike,
    top5: ArrayLike | None = None,
    *,
    classes: Sequence[str],
    names: Callable[[NDArray[np.int64]], Sequence[str]] | None = None,
    part: str = "test",
    scores: ArrayLike | None = None,
) -> dict[str, Any]:
    """The fields of `result.json` that follow from the predictions of one part of the data.

    Args:
        labels: (N,) true classes, each in [0, len(classes)).
        predicted: (N,) predicted classes, each in [0, len(classes)).
        confidence: (N,) probability given to the predicted class.
        top5: (N,) whether the true class is among the five best; None if not known.
        classes: name of each class.
        names: gives the names of images (files) from their indices; default "PART[INDEX]".
        part: "test" makes the first key `test_accuracy`; an empty string makes it `accuracy`.
        scores: (N, K) probabilities of the classes; None if not known.

    Returns:
        Plain data: `<part>_accuracy`, `balanced_accuracy`, `top5_accuracy` (from 6 classes on),
        `precision`, `recall` and `f1` (means over classes), `calibration_error`, `auroc` (mean over
        classes, each against the others), `precision_recall` (a curve, of two classes the second),
        `per_class` (a list of name, images, correct), `confusion` (rows true; up to 200 classes)
        and `worst` (the up to 32 most confidently wrong: name, index, label, predicted,
        confidence; classes by name; a confidence that is no number is None). Without any image the
        accuracies are absent.

    >>> fields = summarize([0, 1, 1], [0, 1, 0], [0.9, 0.8, 0.7], classes=("cat", "dog"))
    >>> fields["balanced_accuracy"], fields["per_class"][1]
    (0.75, {'name': 'dog', 'images': 2, 'correct': 1})
    >>> fields["worst"]
    [{'name': 'test[2]', 'index': 2, 'label': 'dog', 'predicted': 'cat', 'confidence': 0.7}]
    """
    true = _classes(labels, "labels", len(classes))
    guess = _classes(predicted, "predicted", len(classes))
    sure = np.asarray(confidence, dtype=np.float64)
    hits = None if top5 is None else np.asarray(top5, dtype=bool)
    for what, array in (("predicted", guess), ("confidence", sure), ("top5", hits)):
        if array is not None and array.shape != true.shape:
            raise ValueError(f"{what} has shape {array.shape}, labels have {true.shape}")

    images = np.bincount(true, minlength=len(classes))
    correct = np.bincount(true[true == guess], minlength=len(classes))
    fields: dict[str, Any] = {}
    if len(true):
        fields[f"{part}_accuracy" if part else "accuracy"] = float(np.mean(true == guess))
        fields["balanced_accuracy"] = balanced_accuracy(images, correct)
        if hits is not None and len(classes) >= MIN_TOP5_CLASSES:
            fields["top5_accuracy"] = float(np.mean(hits))
        fields |= macro(images, np.bincount(guess, minlength=len(classes)), correct)
        fields["calibration_error"] = calibration_error(sure, true == guess)
        if scores is not None:
            fields |= _ranking(true, np.asarray(scores), classes)
    fields["per_class"] = [
        {"name": name, "images": int(n), "correct": int(right)}
        for name, n, right in zip(classes, images, correct, strict=True)
    ]
    if len(classes) <= MAX_CONFUSION_CLASSES:
        fields["confusion"] = confusion_matrix(true, guess, len(classes)).tolist()
    worst = worst_mistakes(true, guess, sure)
    labelled = names(worst) if names else [f"{part or 'image'}[{index}]" for index in worst]
    fields["worst"] = [
        {
            "name": name,
            "index": int(index),
            "label": classes[true[index]],
            "predicted": classes[guess[index]],
            "confidence": float(sure[index]) if np.isfinite(sure[index]) else None,
        }
        for name, index in zip(labelled, worst, strict=True)
    ]
    return fields


def _ranking(
    true: NDArray[np.int64], scores: NDArray[Any], classes: Sequence[str]
) -> dict[str, Any]:
    """What follows from the order in which scores (N, K) put the images."""
    if len(classes) > 2:
        return {"auroc": mean_of([auroc(true == k, scores[:, k]) for k in range(len(classes))])}
    second, score = true == len(classes) - 1, scores[:, -1]
    curve = precision_recall_curve(second, score)
    return {
        "auroc": auroc(second, score),
        "precision_recall": [] if curve is None else [{"name": classes[-1], **curve}],
    }


def _classes(values: ArrayLike, what: str, classes: int) -> NDArray[np.int64]:
    """The values as int64 (N,), checked to be classes that exist."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{what} must be integers (N,), not {array.dtype} {array.shape}")
    bad = np.flatnonzero((array < 0) | (array >= classes))
    if bad.size:
        first = int(bad[0])
        raise ValueError(
            f"{what}[{first}] is class {int(array[first])}, but there are {classes} classes "
            f"(0 to {classes - 1})"
        )
    return array.astype(np.int64)
