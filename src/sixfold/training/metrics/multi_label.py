"""How good predictions of labels are, of which an image may have any number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.training.metrics.scores import (
    auroc,
    average_precision,
    macro,
    mean_of,
    precision_recall_curve,
)

MOST_CURVES = 8  # labels of which a curve is kept, those with the most images first


def subset_accuracy(target: NDArray[Any], score: NDArray[Any]) -> float:
    """Part of the images that have all their labels and no other; NaN without images.

    Targets (N, K) are 0 or 1; a label is predicted if its probability lies above one half.
    """
    return float(((score > 0.5) == (target > 0.5)).all(1).mean()) if len(target) else float("nan")


def summarize(
    target: NDArray[Any], score: NDArray[Any], *, names: Sequence[str], part: str = "test"
) -> dict[str, Any]:
    """The fields of `result.json` that follow from the predictions of one part of the data.

    Targets (N, K) are 0 or 1, scores (N, K) probabilities. Plain data: `<part>_subset_accuracy`,
    `mean_average_precision`, `precision`, `recall`, `f1` and `auroc` (means over labels),
    `per_label` and `precision_recall` (curves).
    """
    true, told = target > 0.5, score > 0.5
    images, predicted, right = true.sum(0), told.sum(0), (true & told).sum(0)
    precisions = [average_precision(true[:, k], score[:, k]) for k in range(len(names))]
    found: dict[str, Any] = {}
    if len(target):
        prefix = f"{part}_" if part else ""
        found[f"{prefix}subset_accuracy"] = subset_accuracy(target, score)
        found["mean_average_precision"] = mean_of(precisions)
        found |= macro(images, predicted, right)
        found["auroc"] = mean_of([auroc(true[:, k], score[:, k]) for k in range(len(names))])
    found["per_label"] = [
        {
            "name": name,
            "images": int(images[k]),
            "predicted": int(predicted[k]),
            "correct": int(right[k]),
            "average_precision": precisions[k],
        }
        for k, name in enumerate(names)
    ]
    drawn = np.argsort(-images, kind="stable")[:MOST_CURVES].tolist()
    curves = {names[k]: precision_recall_curve(true[:, k], score[:, k]) for k in drawn}
    found["precision_recall"] = [
        {"name": name, **curve} for name, curve in curves.items() if curve is not None
    ]
    return found
